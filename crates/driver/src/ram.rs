//! Where things lie in the guest's RAM.

use virtqueue::QueueConfig;

/// RAM begins here and not at 0, so that an address is never taken for an offset.
pub(crate) const START: u64 = 1 << 30;
const PAGE: u64 = 4096;

/// Hands out guest addresses upwards, never twice.
#[derive(Debug)]
pub(crate) struct Allocator {
    next: u64,
}

impl Allocator {
    pub(crate) fn new() -> Self {
        Self { next: START }
    }

    /// `size` bytes on pages of their own.
    pub(crate) fn take(&mut self, size: u64) -> u64 {
        let address = self.next;
        self.next += size.next_multiple_of(PAGE);
        address
    }

    pub(crate) fn used(&self) -> u64 {
        self.next - START
    }

    /// Puts the three parts of a ring on pages of their own, with room for the format that needs more.
    pub(crate) fn place_ring(&mut self, config: &mut QueueConfig) {
        let size = u64::from(config.size);
        config.descriptor = self.take(16 * size);
        config.driver = self.take(6 + 2 * size);
        config.device = self.take(6 + 8 * size);
    }
}
