//! Areas of windows in the guest's address space: parts of files, not memory of the guest.
//!
//! A request may have its buffers there (O_DIRECT from one mapped file to another). The guest or the host may shorten
//! such a file at any time, and an access behind its end raises SIGBUS. Therefore only the kernel accesses it, which
//! returns EFAULT. Unlike memory, an area is never lost: what is left of the file stays usable, and so does the rest
//! once the file has grown again.
#![expect(unsafe_code, reason = "maps files and unmaps them; access is by the kernel alone")]

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustix::fs::OFlags;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::{Error, RegionConfig};

/// The parts of files that a guest sees in windows, by their guest addresses.
///
/// A clone is another handle on the same: unlike a [`Memory`](crate::Memory) this changes while queues run, each of which looks a
/// buffer up when it meets it.
#[derive(Clone, Debug, Default)]
pub struct WindowAreas(Arc<RwLock<BTreeMap<u64, Arc<WindowArea>>>>);

impl WindowAreas {
    /// One more part of a file. What cannot be mapped here is kept too: its buffers cannot be reached.
    pub fn add(&self, config: RegionConfig) -> Result<(), Error> {
        let area = WindowArea::new(config)?;
        let mut areas = self.write();
        let below = areas.range(..area.guest_address + area.size).next_back();
        if let Some((&first, old)) = below
            && first + old.size > area.guest_address
        {
            return Err(Error::Overlap {
                first: first.min(area.guest_address),
                second: first.max(area.guest_address),
            });
        }
        areas.insert(area.guest_address, Arc::new(area));
        Ok(())
    }

    /// Takes out the area that has exactly these numbers; whether there was one. Requests on their way keep it.
    pub fn remove(&self, guest_address: u64, size: u64, user_address: u64) -> bool {
        let mut areas = self.write();
        let found = areas
            .get(&guest_address)
            .is_some_and(|area| (area.size, area.user_address) == (size, user_address));
        if found {
            areas.remove(&guest_address);
        }
        found
    }

    /// Takes all of them out.
    pub fn clear(&self) {
        self.write().clear();
    }

    /// The area that holds `guest_address`, if it is mapped.
    pub(crate) fn find(&self, guest_address: u64) -> Option<Arc<WindowArea>> {
        let areas = self.read();
        let (_, area) = areas.range(..=guest_address).next_back()?;
        let holds = guest_address - area.guest_address < area.size && area.mapping.is_some();
        holds.then(|| Arc::clone(area))
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<u64, Arc<WindowArea>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<u64, Arc<WindowArea>>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One part of a file.
#[derive(Debug)]
pub(crate) struct WindowArea {
    pub(crate) guest_address: u64,
    pub(crate) size: u64,
    user_address: u64,
    mapping: Option<Mapping>,
    /// Bytes between the start of the mapping (a page boundary) and the start of the area.
    lead: usize,
}

impl WindowArea {
    fn new(config: RegionConfig) -> Result<WindowArea, Error> {
        let RegionConfig {
            guest_address,
            size,
            user_address,
            file,
            file_offset,
        } = config;
        if size == 0 {
            return Err(Error::Empty { guest_address });
        }
        let lead = file_offset % rustix::param::page_size() as u64;
        let mapped_size = size.checked_add(lead).and_then(|size| usize::try_from(size).ok());
        let (Some(_), Some(_), Some(mapped_size)) = (
            guest_address.checked_add(size),
            user_address.checked_add(size),
            mapped_size,
        ) else {
            return Err(Error::Overflow { guest_address, size });
        };
        Ok(WindowArea {
            guest_address,
            size,
            user_address,
            mapping: Mapping::new(&file, file_offset - lead, mapped_size),
            lead: lead as usize,
        })
    }

    /// The host address of the area's byte `offset`, less than its size, if it is mapped. For the kernel alone.
    pub(crate) fn host(&self, offset: u64) -> Option<*mut u8> {
        debug_assert!(offset < self.size, "offset {offset:#x} in an area of {:#x}", self.size);
        let Mapping { start, .. } = self.mapping.as_ref()?;
        Some(start.cast::<u8>().wrapping_add(self.lead + offset as usize))
    }
}

#[derive(Debug)]
struct Mapping {
    start: *mut c_void,
    length: usize,
}

// SAFETY: the pointer is that of a mapping, which is the process's and no thread's, and is only handed to the kernel.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// For writing where the descriptor allows that. `None` if it cannot be mapped.
    fn new(file: &OwnedFd, offset: u64, length: usize) -> Option<Mapping> {
        let writable = rustix::fs::fcntl_getfl(file).ok()? & OFlags::ACCMODE == OFlags::RDWR;
        let protection = if writable {
            ProtFlags::READ | ProtFlags::WRITE
        } else {
            ProtFlags::READ
        };
        // SAFETY: a new mapping, at an address that the kernel chooses, replaces nothing.
        let start = unsafe { mmap(std::ptr::null_mut(), length, protection, MapFlags::SHARED, file, offset) };
        Some(Mapping {
            start: start.ok()?,
            length,
        })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, which nobody refers to any more: whoever has a pointer has the area too.
        let unmapped = unsafe { munmap(self.start, self.length) };
        debug_assert!(unmapped.is_ok(), "unmaps what was mapped");
    }
}
