//! Options of serving a device, set by its owner.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Options of serving a device.
#[derive(Clone, Debug)]
pub struct Options {
    /// Offer packed rings; the guest then uses them if its VMM allows it.
    pub packed: bool,
    /// How long a lane polls its empty ring before it sleeps, if requests have come that soon. With zero it sleeps at
    /// once.
    pub poll: Duration,
    /// Called by the thread of each lane before it serves.
    pub at_lane_start: ThreadStart,
}

impl Default for Options {
    /// All ring features, and no polling.
    fn default() -> Self {
        Self {
            packed: true,
            poll: Duration::ZERO,
            at_lane_start: ThreadStart::default(),
        }
    }
}

/// What a new thread does first: its owner confines it there. Nothing by default.
#[derive(Clone, Default)]
pub struct ThreadStart(Option<Arc<dyn Fn() + Send + Sync>>);

impl ThreadStart {
    /// Each thread calls `start`. A panic there ends the thread.
    pub fn new(start: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(start)))
    }

    /// To be called by the new thread.
    pub fn run(&self) {
        if let Some(start) = &self.0 {
            start();
        }
    }
}

impl fmt::Debug for ThreadStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadStart").finish_non_exhaustive()
    }
}
