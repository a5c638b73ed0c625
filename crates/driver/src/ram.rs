//! Layout of the guest's RAM.

use std::os::fd::OwnedFd;

use guestmem::{Memory, RegionConfig};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use virtqueue::QueueConfig;

use crate::Error;

/// RAM begins here and not at 0, so that an address is never taken for an offset.
pub(crate) const START: u64 = 1 << 30;
const PAGE: u64 = 4096;

/// RAM of `size` bytes, and its file, which can be shortened.
pub(crate) fn shrinkable(size: u64) -> Result<(Memory, OwnedFd), Error> {
    let file = memfd_create("guest-ram", MemfdFlags::CLOEXEC).map_err(Error::event("create a memfd"))?;
    ftruncate(&file, size).map_err(Error::event("size the memfd"))?;
    let shared = rustix::io::fcntl_dupfd_cloexec(&file, 0).map_err(Error::event("duplicate the memfd"))?;
    let region = RegionConfig {
        guest_address: START,
        size,
        user_address: START,
        file,
        file_offset: 0,
    };
    Ok((Memory::map(vec![region])?, shared))
}

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
