//! Operations done in some time, and the duration of each.

use std::thread::ScopedJoinHandle;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::error::Error;

/// The longest latency that is told apart.
const LATENCY_MOST: u64 = 100_000_000_000;

/// What was done in some time.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Operations, entries or bytes.
    pub(crate) items: u64,
    /// Operations, those included of which no item and no latency counts.
    pub(crate) operations: u64,
    pub(crate) elapsed: Duration,
    /// Nanoseconds an operation.
    pub(crate) latency: Histogram<u64>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            items: 0,
            operations: 0,
            elapsed: Duration::ZERO,
            latency: Histogram::new_with_bounds(1, LATENCY_MOST, 3).expect("the bounds are right"),
        }
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latency.saturating_record(nanoseconds);
    }

    /// What all threads did in the same time.
    pub(crate) fn of_threads(threads: Vec<ScopedJoinHandle<'_, Result<Self, Error>>>) -> Result<Self, Error> {
        let mut all = Self::new();
        for thread in threads {
            match thread.join() {
                Ok(tally) => all.join(&tally?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(all)
    }

    /// What another lane did in the same time.
    fn join(&mut self, other: &Self) {
        self.items += other.items;
        self.operations += other.operations;
        self.elapsed = self.elapsed.max(other.elapsed);
        self.latency
            .add(&other.latency)
            .expect("all histograms have the same bounds");
    }
}
