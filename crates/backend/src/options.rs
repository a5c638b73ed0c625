//! Options of serving a device, set by its owner.

use std::time::Duration;

/// Options of serving a device.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Offer packed rings; the guest then uses them if its VMM allows it.
    pub packed: bool,
    /// How long a lane polls its empty ring before it sleeps, if requests have come that soon. With zero it sleeps at
    /// once.
    pub poll: Duration,
}

impl Default for Options {
    /// All ring features, and no polling.
    fn default() -> Self {
        Self {
            packed: true,
            poll: Duration::ZERO,
        }
    }
}
