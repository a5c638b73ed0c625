//! One contiguous range of guest memory with atomic access, as rings use it.
#![expect(
    unsafe_code,
    reason = "atomics over mapped memory; every offset is checked here, in front of the access"
)]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::region::Region;

/// A contiguous range of guest memory, kept mapped as long as this value lives.
///
/// Loads and stores are little-endian, as in every ring of VIRTIO 1.x, and take a byte offset. An offset out of range
/// or not aligned panics like a slice index does: offsets come from the ring's size and not from the guest.
pub struct Area {
    start: *mut u8,
    length: usize,
    /// Keeps `start..start + length` mapped.
    region: Arc<Region>,
}

// SAFETY: `start` points to memory that `region` keeps mapped wherever this value goes; access is by atomics alone.
unsafe impl Send for Area {}
// SAFETY: as above; `&Area` gives out atomic accesses only.
unsafe impl Sync for Area {}

macro_rules! access {
    ($load:ident, $store:ident, $type:ty, $atomic:ty) => {
        #[doc = concat!("Loads a `", stringify!($type), "` at byte `offset`. Panics if it is out of range or not aligned.")]
        #[inline]
        #[track_caller]
        pub fn $load(&self, offset: usize, order: Ordering) -> $type {
            let pointer = self.check::<$type>(offset);
            // SAFETY: `check` made the pointer in range (mapped, by `region`) and aligned; others access it too, hence
            // the atomic.
            <$type>::from_le(unsafe { <$atomic>::from_ptr(pointer) }.load(order))
        }

        #[doc = concat!("Stores a `", stringify!($type), "` at byte `offset`. Panics if it is out of range or not aligned.")]
        #[inline]
        #[track_caller]
        pub fn $store(&self, offset: usize, value: $type, order: Ordering) {
            let pointer = self.check::<$type>(offset);
            // SAFETY: as for the load.
            unsafe { <$atomic>::from_ptr(pointer) }.store(value.to_le(), order);
        }
    };
}

impl Area {
    /// `length` bytes of `region` from `start` on.
    pub(crate) fn new(region: Arc<Region>, start: *mut u8, length: usize) -> Area {
        Area { start, length, region }
    }

    /// Length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a ring is never empty")]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether the region that it lies in has lost memory, so that what is loaded may be zeros that nobody stored.
    #[inline]
    pub fn is_lost(&self) -> bool {
        self.region.is_lost()
    }

    access!(load_u16, store_u16, u16, AtomicU16);
    access!(load_u32, store_u32, u32, AtomicU32);
    access!(load_u64, store_u64, u64, AtomicU64);

    #[inline]
    #[track_caller]
    fn check<T>(&self, offset: usize) -> *mut T {
        let in_range = self
            .length
            .checked_sub(size_of::<T>())
            .is_some_and(|last| offset <= last);
        assert!(
            in_range,
            "{} bytes at offset {offset} of an area of {}",
            size_of::<T>(),
            self.length
        );
        let pointer = self.start.wrapping_add(offset).cast::<T>();
        assert!(
            pointer.is_aligned(),
            "offset {offset} is not aligned to {}",
            align_of::<T>()
        );
        pointer
    }
}

impl fmt::Debug for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Area")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}
