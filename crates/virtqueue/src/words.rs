//! The accesses of a ring to shared memory.

use std::sync::atomic::{self, Ordering};

use guestmem::Area;

/// Little-endian words at byte offsets, with a memory order.
///
/// Guest memory ([`Area`]) in earnest; a model of memory where a test tries every interleaving of both halves.
pub(crate) trait Words {
    fn load_u16(&self, offset: usize, order: Ordering) -> u16;
    fn store_u16(&self, offset: usize, value: u16, order: Ordering);
    fn load_u32(&self, offset: usize, order: Ordering) -> u32;
    fn store_u32(&self, offset: usize, value: u32, order: Ordering);
    fn load_u64(&self, offset: usize, order: Ordering) -> u64;
    fn store_u64(&self, offset: usize, value: u64, order: Ordering);
    /// A full barrier: stores before it are visible before loads behind it are done.
    fn fence();
}

#[cfg(test)]
pub(crate) use crate::inflight::tests::before_store;

/// Tests end the device in front of any of its stores.
#[cfg(not(test))]
#[inline(always)]
fn before_store() {}

impl Words for Area {
    #[inline]
    fn load_u16(&self, offset: usize, order: Ordering) -> u16 {
        Area::load_u16(self, offset, order)
    }

    #[inline]
    fn store_u16(&self, offset: usize, value: u16, order: Ordering) {
        before_store();
        Area::store_u16(self, offset, value, order);
    }

    #[inline]
    fn load_u32(&self, offset: usize, order: Ordering) -> u32 {
        Area::load_u32(self, offset, order)
    }

    #[inline]
    fn store_u32(&self, offset: usize, value: u32, order: Ordering) {
        before_store();
        Area::store_u32(self, offset, value, order);
    }

    #[inline]
    fn load_u64(&self, offset: usize, order: Ordering) -> u64 {
        Area::load_u64(self, offset, order)
    }

    #[inline]
    fn store_u64(&self, offset: usize, value: u64, order: Ordering) {
        before_store();
        Area::store_u64(self, offset, value, order);
    }

    #[inline]
    fn fence() {
        atomic::fence(Ordering::SeqCst);
    }
}
