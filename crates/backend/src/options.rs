//! Options of serving a device, set by its owner.

use std::time::Duration;

/// How a device is served.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Offer packed rings; the guest then uses them if its VMM lets it.
    pub packed: bool,
    /// How long a lane looks at its empty ring before it sleeps, if requests have come that soon. Zero: it sleeps at once.
    pub poll: Duration,
}

impl Default for Options {
    /// All that rings can be, and no polling.
    fn default() -> Self {
        Self {
            packed: true,
            poll: Duration::ZERO,
        }
    }
}
