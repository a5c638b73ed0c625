//! The memory table: all regions, and the lookup of addresses.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags};

use crate::region::Region;
use crate::sigbus::is_any_memory_lost;
use crate::window_area::WindowArea;
use crate::{Area, Error, LostRegion, OutOfMemory, Pieces, Reader, RegionConfig, WindowAreas, Writer};

/// An immutable snapshot of the mapped regions.
///
/// A clone is cheap and keeps the mappings alive; a change of the memory table makes a new snapshot.
#[derive(Debug, Clone)]
pub struct Memory {
    /// Sorted by guest address, without overlap.
    regions: Arc<[Arc<Region>]>,
    windows: WindowAreas,
}

impl Memory {
    /// Memory without a byte: every access is refused.
    pub fn empty() -> Memory {
        Memory {
            regions: Arc::new([]),
            windows: WindowAreas::default(),
        }
    }

    /// The same regions, with buffers that may lie in these windows. Rings never do.
    pub fn with_windows(self, windows: &WindowAreas) -> Memory {
        Memory {
            windows: windows.clone(),
            ..self
        }
    }

    /// Maps all regions (`SET_MEM_TABLE`), or none on an error.
    pub fn map(regions: Vec<RegionConfig>) -> Result<Memory, Error> {
        Memory::of(
            regions
                .into_iter()
                .map(|region| Region::map(region).map(Arc::new))
                .collect::<Result<_, _>>()?,
            WindowAreas::default(),
        )
    }

    /// This memory and one more region (`ADD_MEM_REG`). The others stay mapped where they are.
    pub fn with_region(&self, region: RegionConfig) -> Result<Memory, Error> {
        let mut regions = self.regions.to_vec();
        regions.push(Arc::new(Region::map(region)?));
        Memory::of(regions, self.windows.clone())
    }

    /// This memory without the region that has exactly these numbers (`REM_MEM_REG`).
    pub fn without_region(&self, guest_address: u64, size: u64, user_address: u64) -> Result<Memory, Error> {
        let mut regions = self.regions.to_vec();
        let wanted = (guest_address, size, user_address);
        let position = regions
            .iter()
            .position(|at| (at.guest_address, at.size, at.user_address) == wanted);
        regions.remove(position.ok_or(Error::NoSuchRegion {
            guest_address,
            size,
            user_address,
        })?);
        Memory::of(regions, self.windows.clone())
    }

    /// What each region was mapped from, with another descriptor of its file.
    pub fn configs(&self) -> io::Result<Vec<RegionConfig>> {
        self.regions.iter().map(|region| region.config()).collect()
    }

    /// Fresh zeroed memory of `size` bytes from `guest_address` on, and the file to share it with another process, which cannot
    /// shorten it: its memory would be lost here. The user address equals the guest address.
    pub fn memfd(name: &str, size: u64, guest_address: u64) -> Result<(Memory, OwnedFd), Error> {
        let failed = |action| {
            move |error| Error::Map {
                action,
                guest_address,
                source: io::Error::from(error),
            }
        };
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create(name, flags).map_err(failed("create a memfd for"))?;
        rustix::fs::ftruncate(&file, size).map_err(failed("size the memfd of"))?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals).map_err(failed("seal the memfd of"))?;
        let shared = file.try_clone().map_err(|source| Error::Map {
            action: "share",
            guest_address,
            source,
        })?;
        let region = RegionConfig {
            guest_address,
            size,
            user_address: guest_address,
            file,
            file_offset: 0,
        };
        Ok((Memory::map(vec![region])?, shared))
    }

    /// The guest address of a front end's address, as `SET_VRING_ADDR` gives them.
    pub fn guest_address_of(&self, user_address: u64) -> Option<u64> {
        self.regions.iter().find_map(|region| {
            let offset = user_address
                .checked_sub(region.user_address)
                .filter(|&offset| offset < region.size)?;
            Some(region.guest_address + offset)
        })
    }

    /// One range that lies within one region, for the rings. Whether the address suits the ring is for the caller to
    /// check: alignment on the host is alignment in the guest, up to 16 bytes.
    pub fn area(&self, guest_address: u64, length: usize) -> Result<Area, OutOfMemory> {
        let refused = OutOfMemory {
            guest_address,
            length: length as u64,
        };
        let (_, region) = self.find(guest_address, 0).ok_or(refused)?;
        let offset = guest_address - region.guest_address;
        if length as u64 > region.size - offset {
            return Err(refused);
        }
        Ok(Area::new(Arc::clone(region), region.host(offset), length))
    }

    /// Copies `into.len()` bytes out of guest memory; nothing on an error.
    pub fn read(&self, guest_address: u64, into: &mut [u8]) -> Result<(), OutOfMemory> {
        let length = into.len() as u64;
        let refused = OutOfMemory { guest_address, length };
        let mut pieces = Pieces::new(self);
        pieces.push(guest_address, length)?;
        Reader::new(&pieces).read_exact(into).map_err(|_| refused)
    }

    /// Copies `from` into guest memory; nothing on an error.
    pub fn write(&self, guest_address: u64, from: &[u8]) -> Result<(), OutOfMemory> {
        let length = from.len() as u64;
        let refused = OutOfMemory { guest_address, length };
        let mut pieces = Pieces::new(self);
        pieces.push(guest_address, length)?;
        Writer::new(&pieces).write_all(from).map_err(|_| refused)
    }

    /// A region that has lost memory, once for each. Other snapshots of the same region have no second one.
    pub fn take_loss(&self) -> Option<LostRegion> {
        if !is_any_memory_lost() {
            return None;
        }
        self.regions.iter().find_map(|region| region.take_loss())
    }

    /// The region that holds `guest_address`, and its number; looks at number `hint` first.
    #[inline]
    pub(crate) fn find(&self, guest_address: u64, hint: usize) -> Option<(usize, &Arc<Region>)> {
        let holds = |region: &Arc<Region>| guest_address.wrapping_sub(region.guest_address) < region.size;
        if let Some(region) = self.regions.get(hint).filter(|region| holds(region)) {
            return Some((hint, region));
        }
        let after = self
            .regions
            .partition_point(|region| region.guest_address <= guest_address);
        let index = after.checked_sub(1)?;
        self.regions
            .get(index)
            .filter(|region| holds(region))
            .map(|region| (index, region))
    }

    /// The window area that holds `guest_address`, if it is mapped here.
    pub(crate) fn find_window(&self, guest_address: u64) -> Option<Arc<WindowArea>> {
        self.windows.find(guest_address)
    }

    fn of(mut regions: Vec<Arc<Region>>, windows: WindowAreas) -> Result<Memory, Error> {
        regions.sort_by_key(|region| region.guest_address);
        for pair in regions.windows(2) {
            if let [lower, upper] = pair
                && lower.end() > upper.guest_address
            {
                return Err(Error::Overlap {
                    first: lower.guest_address,
                    second: upper.guest_address,
                });
            }
        }
        Ok(Memory {
            regions: regions.into(),
            windows,
        })
    }
}
