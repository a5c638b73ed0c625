//! Deferred reads: the rest of a read that would wait for a disk or a network, for another thread to finish.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::fs::RestOfRead;
use crate::wire;

/// What became of a request.
#[derive(Debug)]
#[must_use = "a request that is not answered leaves the guest waiting"]
pub enum Answer {
    /// It is answered: the bytes written, for the used ring. That is the length of the reply, or 0 for a request that gets none.
    Done(u32),
    /// It cannot be served now, since that takes the front end, which waits for this queue: hand in the same request later.
    PutOff,
    /// The rest of it waits for data. The queue may go on meanwhile.
    Deferred(DeferredRead),
}

/// What a request does where it would wait for data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBlock {
    /// It waits.
    Wait,
    /// It ends as [`Answer::Deferred`].
    Defer,
}

/// The rest of a read, for [`Server::finish`](crate::server::Server::finish). It keeps alive what it needs: the open file, and the
/// session, which cannot end before.
pub struct DeferredRead {
    pub(crate) of: wire::InHeader,
    /// Bytes of the body that are there already, and those that are still wanted.
    pub(crate) done: usize,
    pub(crate) wanted: u32,
    pub(crate) rest: RestOfRead,
    pub(crate) outstanding: Outstanding,
}

impl fmt::Debug for DeferredRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, done, wanted, .. } = self;
        let unique = of.unique;
        write!(
            f,
            "DeferredRead {{ unique: {unique}, done: {done}, wanted: {wanted}, .. }}"
        )
    }
}

impl DeferredRead {
    pub(crate) fn new(
        of: wire::InHeader,
        (done, wanted): (usize, u32),
        rest: RestOfRead,
        outstanding: Outstanding,
    ) -> DeferredRead {
        DeferredRead {
            of,
            done,
            wanted,
            rest,
            outstanding,
        }
    }
}

/// Counts the deferred reads of a session.
#[derive(Debug, Default)]
pub(crate) struct DeferredReads(Arc<Count>);

#[derive(Debug, Default)]
struct Count {
    reads: Mutex<usize>,
    none: Condvar,
}

/// One deferred read, counted until it drops.
pub(crate) struct Outstanding(Arc<Count>);

impl DeferredReads {
    /// Counts one more. To be called within a session that is held.
    pub(crate) fn add(&self) -> Outstanding {
        *self.0.reads.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Outstanding(Arc::clone(&self.0))
    }

    /// Waits until none is outstanding. To be called where none can be added.
    pub(crate) fn wait(&self) {
        let mut reads = self.0.reads.lock().unwrap_or_else(PoisonError::into_inner);
        while *reads > 0 {
            reads = self.0.none.wait(reads).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        let mut reads = self.0.reads.lock().unwrap_or_else(PoisonError::into_inner);
        *reads -= 1;
        if *reads == 0 {
            self.0.none.notify_all();
        }
    }
}
