//! Operations on whole small files: each from its OPEN or CREATE to its RELEASE or UNLINK.

use std::sync::Arc;

use driver::Slot;

use super::common::{Common, PAGE};
use super::operation::{Next, Steps};
use crate::error::Error;
use crate::random::Random;
use crate::ring::message::{Message, Reply};
use crate::ring::session::{Manners, Open};
use crate::scratch::FILE_BYTES;

/// FOPEN_NOFLUSH (`fuse.h`).
const NO_FLUSH: u32 = 1 << 5;

/// Where an operation on a file stands.
#[derive(Clone, Copy, Debug, Default)]
struct FileState {
    phase: Phase,
    file: Open,
    flush: bool,
}

/// The message whose reply is awaited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Opening,
    Transferring,
    Flushing,
    Releasing,
    Unlinking,
}

impl FileState {
    /// Writes the message that follows `phase` when a file is closed. False if it is closed already.
    fn close(&mut self, manners: Manners, message: &mut Message) -> bool {
        if self.phase == Phase::Transferring && self.flush {
            self.phase = Phase::Flushing;
            message.flush(self.file.node, self.file.handle);
            return true;
        }
        if matches!(self.phase, Phase::Transferring | Phase::Flushing) && !manners.no_open {
            self.phase = Phase::Releasing;
            message.release(self.file.node, self.file.handle);
            return true;
        }
        false
    }
}

/// A small file from its start to its end.
pub(super) struct OpenReadClose {
    common: Arc<Common>,
    random: Random,
    state: FileState,
}

impl OpenReadClose {
    pub(super) fn new(common: Arc<Common>, random: Random) -> Self {
        Self {
            common,
            random,
            state: FileState::default(),
        }
    }
}

impl Steps for OpenReadClose {
    fn first(&mut self, _: &mut Slot, message: &mut Message) -> Result<(), Error> {
        let node = *self.random.of(&self.common.nodes.files);
        let manners = self.common.nodes.manners;
        self.state = FileState {
            phase: Phase::Opening,
            file: Open { node, handle: 0 },
            flush: !manners.no_flush,
        };
        if manners.no_open {
            self.state.phase = Phase::Transferring;
            message.read(node, 0, 0, FILE_BYTES);
        } else {
            message.open(node, libc::O_RDONLY.cast_unsigned());
        }
        Ok(())
    }

    fn next(&mut self, reply: &Reply, _: &mut Slot, message: &mut Message) -> Result<Next, Error> {
        reply.expect_success("OPEN, READ, FLUSH or RELEASE")?;
        let state = &mut self.state;
        match state.phase {
            Phase::Opening => {
                state.file.handle = reply.handle();
                state.flush &= reply.open_flags() & NO_FLUSH == 0;
                state.phase = Phase::Transferring;
                message.read(state.file.node, state.file.handle, 0, FILE_BYTES);
                return Ok(Next::Send);
            }
            Phase::Transferring if reply.length != FILE_BYTES => return Err(Error::Contents { what: "READ" }),
            _ => {}
        }
        let more = state.close(self.common.nodes.manners, message);
        Ok(if more { Next::Send } else { Next::Done(1) })
    }
}

/// A file that is made, written to and removed.
pub(super) struct CreateWriteUnlink {
    common: Arc<Common>,
    name: Vec<u8>,
    count: u64,
    state: FileState,
}

impl CreateWriteUnlink {
    /// `seat` makes the names differ from those of other seats.
    pub(super) fn new(common: Arc<Common>, seat: u64) -> Self {
        Self {
            common,
            name: format!("c{seat:03}-{:010}", 0).into_bytes(),
            count: 0,
            state: FileState::default(),
        }
    }
}

impl Steps for CreateWriteUnlink {
    fn first(&mut self, _: &mut Slot, message: &mut Message) -> Result<(), Error> {
        self.count += 1;
        number(&mut self.name, self.count);
        self.state = FileState::default();
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
        message.create(
            self.common.nodes.own,
            &self.name,
            flags.cast_unsigned(),
            libc::S_IFREG | 0o644,
        );
        Ok(())
    }

    fn next(&mut self, reply: &Reply, _: &mut Slot, message: &mut Message) -> Result<Next, Error> {
        reply.expect_success("CREATE, WRITE, FLUSH, RELEASE or UNLINK")?;
        let (nodes, state) = (&self.common.nodes, &mut self.state);
        match state.phase {
            Phase::Opening => {
                *state = FileState {
                    phase: Phase::Transferring,
                    file: Open {
                        node: reply.node(),
                        handle: reply.created_handle(),
                    },
                    flush: !nodes.manners.no_flush && reply.created_flags() & NO_FLUSH == 0,
                };
                message.write(state.file.node, state.file.handle, 0, PAGE);
                return Ok(Next::Send);
            }
            Phase::Transferring if reply.wrote() != PAGE => return Err(Error::Contents { what: "WRITE" }),
            Phase::Unlinking => return Ok(Next::DoneAndForget(state.file.node)),
            _ => {}
        }
        if !state.close(nodes.manners, message) {
            state.phase = Phase::Unlinking;
            message.unlink(nodes.own, &self.name);
        }
        Ok(Next::Send)
    }
}

/// Writes the last ten digits anew.
fn number(name: &mut [u8], mut number: u64) {
    for digit in name.iter_mut().rev().take(10) {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}
