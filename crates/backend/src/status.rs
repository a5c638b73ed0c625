//! Status of a session, on request, and its counters, readable from other threads.

use std::sync::Arc;

use crate::Counts;
use crate::counters::Counters;

/// What a session has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Feature bits in use.
    pub features: u64,
    /// One for each queue of the device.
    pub queues: Vec<QueueStatus>,
}

/// What a queue has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueStatus {
    /// Whether it runs, enabled or not.
    pub running: bool,
    /// What it has done, in all its runs.
    pub counts: Counts,
}

/// Reads the counts of a session from another thread, while it runs and after.
#[derive(Clone, Debug)]
pub struct Watch(Arc<[Arc<Counters>]>);

impl Watch {
    pub(crate) fn new(counters: Arc<[Arc<Counters>]>) -> Watch {
        Watch(counters)
    }

    /// The counts of each queue now.
    #[must_use]
    pub fn counts(&self) -> Vec<Counts> {
        self.0.iter().map(|counters| counters.now()).collect()
    }
}
