//! Counters of each queue: updated by its lane once per batch, readable from any thread.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Counts of one queue since the start of the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Chains that the device took.
    pub requests: u64,
    /// Readable bytes in these chains plus bytes written by the device.
    pub bytes: u64,
    /// Number of times that the queue went out of service: the driver broke the rules of its ring, the ring's memory
    /// was lost, or the kick descriptor broke. A request that the device answers with an error is not counted.
    pub errors: u64,
    /// Wake-ups by the driver. Several kicks in a row count as one.
    pub kicks: u64,
    /// Interrupts sent to the driver.
    pub interrupts: u64,
    /// Time spent in batches that served something. Of batches with few requests, one in 16 is measured and counts
    /// for all 16, because reading the clock takes a thirtieth of the time of a small request.
    pub busy: Duration,
}

/// The live counters of one queue. One lane at a time adds to them, so that no addition needs to be atomic.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) requests: Counter,
    pub(crate) bytes: Counter,
    pub(crate) errors: Counter,
    pub(crate) kicks: Counter,
    pub(crate) interrupts: Counter,
    pub(crate) busy_nanoseconds: Counter,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Counters {
    pub(crate) fn now(&self) -> Counts {
        Counts {
            requests: self.requests.get(),
            bytes: self.bytes.get(),
            errors: self.errors.get(),
            kicks: self.kicks.get(),
            interrupts: self.interrupts.get(),
            busy: Duration::from_nanos(self.busy_nanoseconds.get()),
        }
    }
}
