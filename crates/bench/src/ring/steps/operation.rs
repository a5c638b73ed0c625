//! An operation as a chain of messages.

use driver::Slot;

use crate::error::Error;
use crate::ring::message::{Message, Reply};

/// What comes after a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The message that was written.
    Send,
    /// The operation is complete and counts so much, or 0 where another one is measured.
    Done(u64),
    /// The same, and the guest forgets this node.
    DoneAndForget(u64),
}

/// One operation after another, as a chain of messages.
pub(crate) trait Steps: Send {
    /// Writes the first message of an operation.
    fn first(&mut self, slot: &mut Slot, message: &mut Message) -> Result<(), Error>;

    /// Looks at a reply and writes the message that follows it.
    fn next(&mut self, reply: &Reply, slot: &mut Slot, message: &mut Message) -> Result<Next, Error>;
}
