//! Status of a session, on request, and its counters, readable from other threads.

use std::sync::Arc;

use crate::Counts;
use crate::counters::Counters;

/// Status of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Feature bits in use.
    pub features: u64,
    /// One for each queue of the device.
    pub queues: Vec<QueueStatus>,
}

/// Status of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueStatus {
    /// Whether the queue runs, enabled or not.
    pub running: bool,
    /// The counts of all its runs.
    pub counts: Counts,
}

/// Reads the counts of a session from another thread, during and after the session.
#[derive(Clone, Debug)]
pub struct Watch(Arc<[Arc<Counters>]>);

impl Watch {
    pub(crate) fn new(counters: Arc<[Arc<Counters>]>) -> Watch {
        Watch(counters)
    }

    /// The current counts of each queue.
    #[must_use]
    pub fn counts(&self) -> Vec<Counts> {
        self.0.iter().map(|counters| counters.now()).collect()
    }
}
