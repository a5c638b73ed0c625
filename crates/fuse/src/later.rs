//! Reads that would wait for a disk or a network: what is left of such a request, for another thread to finish.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use guestmem::Writer;

use crate::fs::{Errno, RestOfRead};
use crate::reply::Reply;

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

/// The rest of a request. It keeps alive what it needs: the open file, and the session, which cannot end before.
pub struct Later {
    unique: u64,
    /// Bytes of the body that are there already, and those that are still wanted.
    done: usize,
    wanted: u32,
    rest: RestOfRead,
    _within: Within,
}

impl fmt::Debug for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            unique, done, wanted, ..
        } = self;
        write!(f, "Later {{ unique: {unique}, done: {done}, wanted: {wanted}, .. }}")
    }
}

impl Later {
    pub(crate) fn new(unique: u64, (done, wanted): (usize, u32), rest: RestOfRead, within: Within) -> Later {
        Later {
            unique,
            done,
            wanted,
            rest,
            _within: within,
        }
    }

    /// Waits for the data and answers. `writer` is all of the request's space for the reply, with what was written there before.
    /// Gives the bytes written, for the used ring.
    pub fn finish(self, writer: &mut Writer<'_>) -> u32 {
        let Some(mut reply) = Reply::begin(self.unique, writer, OnWait::Stay) else {
            return 0;
        };
        let result = reply.pass(self.done).and_then(|()| reply.fill(self.wanted, self.rest));
        if let Err(Errno(errno)) = result {
            tracing::debug!(unique = self.unique, errno, "read failed");
        }
        reply.end(result)
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
