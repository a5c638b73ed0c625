//! One mapped region.
#![expect(
    unsafe_code,
    reason = "promises the SIGBUS handler that a region is mapped as long as it is registered"
)]

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use vm_memory::{FileOffset, MmapRegion};

use crate::sigbus::Registration;
use crate::{Error, LostRegion};

/// The strictest alignment that VIRTIO asks of a ring (descriptor table, VIRTIO 1.1 2.6): an address aligned in the
/// guest must be aligned on the host as well.
const RING_ALIGNMENT: u64 = 16;

/// One region as the VMM announces it (`SET_MEM_TABLE`, `ADD_MEM_REG`) or as a driver creates it.
#[derive(Debug)]
pub struct RegionConfig {
    /// First guest physical address.
    pub guest_address: u64,
    /// Size in bytes, not 0.
    pub size: u64,
    /// Where the front end has mapped it; only translated, never followed.
    pub user_address: u64,
    /// The memory itself, to be shared.
    pub file: OwnedFd,
    /// Where in the file the region starts.
    pub file_offset: u64,
}

/// A region that is mapped as long as this value lives.
#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) guest_address: u64,
    pub(crate) size: u64,
    pub(crate) user_address: u64,
    /// In front of the mapping: it is dropped first.
    registration: Registration,
    mapping: MmapRegion,
    /// Bytes between the start of the mapping (a page boundary) and the start of the region.
    lead: usize,
}

impl Region {
    pub(crate) fn map(config: RegionConfig) -> Result<Region, Error> {
        let RegionConfig {
            guest_address,
            size,
            user_address,
            file,
            file_offset,
        } = config;
        let overflow = Error::Overflow { guest_address, size };
        if size == 0 {
            return Err(Error::Empty { guest_address });
        }
        if guest_address.checked_add(size).is_none() || user_address.checked_add(size).is_none() {
            return Err(overflow);
        }
        if guest_address % RING_ALIGNMENT != file_offset % RING_ALIGNMENT {
            return Err(Error::Unaligned {
                guest_address,
                file_offset,
            });
        }
        let Some(needed) = file_offset.checked_add(size).filter(|&end| i64::try_from(end).is_ok()) else {
            return Err(overflow);
        };
        let failed = |action| {
            move |source: io::Error| Error::Map {
                action,
                guest_address,
                source,
            }
        };
        let file = File::from(file);
        let length = file.metadata().map_err(failed("ask the length of the file of"))?.len();
        if length < needed {
            return Err(Error::FileTooShort {
                guest_address,
                needed,
                length,
            });
        }
        // A mapping starts at a page; a region may start anywhere in its file.
        let lead = file_offset % rustix::param::page_size() as u64;
        let (Ok(mapped_size), Ok(lead_size)) = (usize::try_from(lead + size), usize::try_from(lead)) else {
            return Err(overflow);
        };
        let page_size = page_size(&file).map_err(failed("ask for the file system of"))?;
        let mapping = MmapRegion::from_file(FileOffset::new(file, file_offset - lead), mapped_size)
            .map_err(|error| failed("map")(io::Error::other(error)))?;
        // SAFETY: `Region` drops the registration first; whoever touches the mapping has an `Arc<Region>`, and does so by atomics
        // and system calls alone.
        let registration = unsafe { Registration::new(mapping.as_ptr(), mapped_size, page_size) };
        Ok(Region {
            registration,
            guest_address,
            size,
            user_address,
            mapping,
            lead: lead_size,
        })
    }

    /// The first guest address behind the region.
    pub(crate) fn end(&self) -> u64 {
        self.guest_address + self.size
    }

    /// Whether part of it was not there when it was touched.
    #[inline]
    pub(crate) fn is_lost(&self) -> bool {
        self.registration.is_lost()
    }

    /// The loss of the region, once.
    pub(crate) fn take_loss(&self) -> Option<LostRegion> {
        let offset = self.registration.take_report()?;
        Some(LostRegion {
            guest_address: self.guest_address,
            size: self.size,
            lost_at: self
                .guest_address
                .saturating_add(offset.saturating_sub(self.lead) as u64),
        })
    }

    /// What it was mapped from, with another descriptor of the file.
    pub(crate) fn config(&self) -> io::Result<RegionConfig> {
        let Some(file) = self.mapping.file_offset() else {
            return Err(io::Error::other("a region without a file"));
        };
        Ok(RegionConfig {
            guest_address: self.guest_address,
            size: self.size,
            user_address: self.user_address,
            file: file.file().try_clone()?.into(),
            file_offset: file.start() + self.lead as u64,
        })
    }

    /// The host address of the region's byte `offset`, which must be less than its size (else the pointer is one that
    /// must not be used).
    pub(crate) fn host(&self, offset: u64) -> *mut u8 {
        debug_assert!(offset < self.size, "offset {offset:#x} in a region of {:#x}", self.size);
        self.mapping.as_ptr().wrapping_add(self.lead + offset as usize)
    }
}

/// The size of the pages that map this file.
fn page_size(file: &File) -> io::Result<usize> {
    let stat = rustix::fs::fstatfs(file)?;
    Ok(if stat.f_type == libc::HUGETLBFS_MAGIC {
        stat.f_bsize as usize
    } else {
        rustix::param::page_size()
    })
}
