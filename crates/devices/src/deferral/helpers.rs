//! Helper threads that block in place of a lane, started on demand.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use backend::ThreadStart;
use tracing::warn;

type Job = Box<dyn FnOnce() + Send>;

/// A bounded number of threads and their jobs, first come, first served.
pub(crate) struct Helpers {
    shared: Arc<Shared>,
    most: usize,
    start: ThreadStart,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Signalled when there is a job, or when there will be no more.
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
    /// Allows at most `most` threads, each of which calls `start` first. Jobs for none would wait for ever.
    pub(crate) fn new(most: usize, start: ThreadStart) -> Helpers {
        Helpers {
            shared: Arc::default(),
            most,
            start,
        }
    }

    /// Runs a job on a helper thread, or on the calling thread if there is no helper and none can be started.
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
        let (shared, start) = (Arc::clone(&self.shared), self.start.clone());
        let help = move || {
            start.run();
            shared.help();
        };
        let name = format!("helper-{}", state.threads);
        match thread::Builder::new().name(name).spawn(help) {
            Ok(_) => state.threads += 1,
            Err(_) if state.threads > 0 => {}
            Err(error) => {
                warn!(%error, "cannot start a thread for a blocking request; its queue blocks instead");
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

    /// The main loop of a helper thread.
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel, sync_channel};

    use super::*;

    impl Helpers {
        fn threads(&self) -> usize {
            self.shared.lock().threads
        }

        /// A job that ends when the sender is dropped.
        fn occupy(&self, begun: &Sender<()>) -> Sender<()> {
            let (until, ended) = channel::<()>();
            let begun = begun.clone();
            self.run(Box::new(move || {
                begun.send(()).unwrap();
                let _dropped = ended.recv();
            }));
            until
        }
    }

    #[test]
    fn threads_come_with_the_jobs_and_stop_coming_at_the_limit() {
        let helpers = Helpers::new(3, ThreadStart::default());
        assert_eq!(helpers.threads(), 0, "nothing was asked of them yet");
        let (begun, begins) = channel();
        let mut jobs = Vec::new();
        for threads in [1, 2, 3] {
            jobs.push(helpers.occupy(&begun));
            begins.recv().unwrap();
            assert_eq!(helpers.threads(), threads);
        }
        let waits = helpers.occupy(&begun);
        assert_eq!(helpers.threads(), 3);
        assert!(begins.try_recv().is_err(), "all threads are occupied");
        jobs.pop();
        begins.recv().unwrap();
        drop((jobs, waits));
    }

    #[test]
    fn a_thread_that_is_idle_is_used_again() {
        let helpers = Helpers::new(3, ThreadStart::default());
        for _ in 0..100 {
            let (done, end) = sync_channel(0);
            helpers.run(Box::new(move || done.send(()).unwrap()));
            end.recv().unwrap();
            while helpers.shared.lock().idle == 0 {
                thread::yield_now();
            }
        }
        assert_eq!(helpers.threads(), 1);
    }

    #[test]
    fn what_was_begun_is_finished_when_they_are_dropped() {
        let helpers = Helpers::new(1, ThreadStart::default());
        let (begun, begins) = channel();
        let first = helpers.occupy(&begun);
        let second = helpers.occupy(&begun);
        begins.recv().unwrap();
        let shared = Arc::downgrade(&helpers.shared);
        drop(helpers);
        drop(first);
        begins.recv().unwrap();
        drop(second);
        while shared.strong_count() > 0 {
            thread::yield_now();
        }
    }
}
