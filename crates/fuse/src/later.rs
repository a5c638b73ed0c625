//! Reads that would wait for a disk or a network: what is left of such a request, for another thread to finish.

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
    Later(Later),
}

/// Whether a request may leave its rest for [`Later`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnWait {
    /// It waits itself.
    Stay,
    /// It leaves what waits.
    Leave,
}

/// The rest of a request, for [`Server::finish`](crate::server::Server::finish). It keeps alive what it needs: the open file, and the session, which cannot end before.
pub struct Later {
    pub(crate) of: wire::InHeader,
    /// Bytes of the body that are there already, and those that are still wanted.
    pub(crate) done: usize,
    pub(crate) wanted: u32,
    pub(crate) rest: RestOfRead,
    pub(crate) within: Within,
}

impl fmt::Debug for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, done, wanted, .. } = self;
        let unique = of.unique;
        write!(f, "Later {{ unique: {unique}, done: {done}, wanted: {wanted}, .. }}")
    }
}

impl Later {
    pub(crate) fn new(of: wire::InHeader, (done, wanted): (usize, u32), rest: RestOfRead, within: Within) -> Later {
        Later {
            of,
            done,
            wanted,
            rest,
            within,
        }
    }
}

/// Counts the requests of a session that are left for later.
#[derive(Debug, Default)]
pub(crate) struct Leavings(Arc<Count>);

#[derive(Debug, Default)]
struct Count {
    requests: Mutex<usize>,
    none: Condvar,
}

/// One request that is left for later.
pub(crate) struct Within(Arc<Count>);

impl Leavings {
    /// To be called within a session that is held.
    pub(crate) fn enter(&self) -> Within {
        *self.0.requests.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Within(Arc::clone(&self.0))
    }

    /// Waits until none is left. To be called where none can enter.
    pub(crate) fn wait(&self) {
        let mut requests = self.0.requests.lock().unwrap_or_else(PoisonError::into_inner);
        while *requests > 0 {
            requests = self.0.none.wait(requests).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        let mut requests = self.0.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests -= 1;
        if *requests == 0 {
            self.0.none.notify_all();
        }
    }
}
