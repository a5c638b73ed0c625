//! Threads that wait in place of a lane. There is none before the first is needed.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use tracing::warn;

type Job = Box<dyn FnOnce() + Send>;

/// A bounded number of threads, and what they have to do, first come, first served.
pub(crate) struct Helpers {
    shared: Arc<Shared>,
    most: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// There is a job, or there will be no more.
    news: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    /// Threads that wait for a job.
    idle: usize,
    closed: bool,
}

impl Helpers {
    /// At most so many threads, and at least one.
    pub(crate) fn new(most: usize) -> Helpers {
        Helpers {
            shared: Arc::default(),
            most,
        }
    }

    /// Has a thread do it. Where there is none and none can be made, it is done here.
    pub(crate) fn run(&self, job: Job) {
        let mut state = self.shared.lock();
        state.jobs.push_back(job);
        if state.jobs.len() <= state.idle {
            drop(state);
            self.shared.news.notify_one();
            return;
        }
        if state.threads == self.most {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let name = format!("helper-{}", state.threads);
        match thread::Builder::new().name(name).spawn(move || shared.help()) {
            Ok(_) => state.threads += 1,
            Err(_) if state.threads > 0 => {}
            Err(error) => {
                warn!(%error, "cannot start a thread for a read that waits: its queue waits instead");
                let job = state.jobs.pop_back();
                drop(state);
                job.into_iter().for_each(|job| job());
            }
        }
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.news.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a thread.
    fn help(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.lock();
            } else if state.closed {
                return;
            } else {
                state.idle += 1;
                state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }
}
