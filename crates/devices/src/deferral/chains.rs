//! Deferred chains: the chains of one queue whose requests are finished on another thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use backend::{Queues, Waker};
use guestmem::{Reader, Writer};
use tracing::error;
use virtqueue::Pending;

use super::Helpers;

/// The chains that a lane has passed to [`Helpers`].
pub(crate) struct DeferredChains {
    helpers: Arc<Helpers>,
    returns: Arc<Returns>,
    /// The queue of these chains.
    queue: u16,
    /// Number of chains passed on and not completed, and its maximum.
    out: usize,
    most: usize,
}

/// The finished chains, returned by the helpers.
struct Returns {
    finished: Mutex<Vec<(Pending, u32)>>,
    /// Signalled when a chain is finished.
    news: Condvar,
    waker: Waker,
}

impl DeferredChains {
    /// Makes an empty list for at most `most` chains of `queue`. `waker` is that of its lane.
    pub(crate) fn new(helpers: Arc<Helpers>, queue: u16, most: usize, waker: Waker) -> DeferredChains {
        let returns = Returns {
            finished: Mutex::default(),
            news: Condvar::new(),
            waker,
        };
        DeferredChains {
            helpers,
            returns: Arc::new(returns),
            queue,
            out: 0,
            most,
        }
    }

    /// Whether no more chains can be passed on now.
    pub(crate) fn is_full(&self) -> bool {
        self.out >= self.most
    }

    /// Runs `finish` on a helper thread and queues the completion. `finish` returns the number of bytes written.
    pub(crate) fn hand_out(
        &mut self,
        pending: Pending,
        finish: impl FnOnce(&mut Reader<'_>, &mut Writer<'_>) -> u32 + Send + 'static,
    ) {
        let returns = Arc::clone(&self.returns);
        self.out += 1;
        self.helpers.run(Box::new(move || returns.finish(pending, finish)));
    }

    /// Completes the finished chains.
    pub(crate) fn complete(&mut self, queues: &mut Queues) {
        let finished = std::mem::take(&mut *self.returns.finished.lock().unwrap_or_else(PoisonError::into_inner));
        self.out -= finished.len();
        for (pending, written) in finished {
            queues.complete(self.queue, pending, written);
        }
    }

    /// Waits for all chains, and completes them.
    pub(crate) fn settle(&mut self, queues: &mut Queues) {
        while self.out > 0 {
            self.returns.wait();
            self.complete(queues);
        }
    }
}

impl Returns {
    fn finish(&self, pending: Pending, finish: impl FnOnce(&mut Reader<'_>, &mut Writer<'_>) -> u32) {
        // A lane that waits for this chain would wait for ever.
        let finished = catch_unwind(AssertUnwindSafe(|| {
            let (mut reader, mut writer) = pending.open();
            finish(&mut reader, &mut writer)
        }));
        let written = finished.unwrap_or_else(|_| {
            error!("a request panicked; it gets no reply");
            0
        });
        let mut finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        finished.push((pending, written));
        // Whoever comes to one that is not the first is served with it.
        let first = finished.len() == 1;
        drop(finished);
        if first {
            self.news.notify_one();
            self.waker.wake();
        }
    }

    fn wait(&self) {
        let finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        let _finished = self
            .news
            .wait_while(finished, |finished| finished.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
    }
}
