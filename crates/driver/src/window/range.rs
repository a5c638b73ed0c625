//! A range of addresses in which files are mapped and unmapped: the VMM's side of a device's shared memory.
#![expect(
    unsafe_code,
    reason = "mmap over addresses of our own, and loads and stores in what it mapped"
)]

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::ptr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// What the start of the range is a multiple of, so that the kernel may use huge pages as in a VMM's memory.
const HUGE_PAGE: usize = 2 << 20;
const WORD: usize = size_of::<u64>();

/// Addresses of this process, reserved, into which parts of files are mapped shared. All numbers are bytes; offsets count from the
/// start of the range.
///
/// Nothing is mapped over anything else, and what was mapped is taken out whole, as vhost-user has it for shared memory regions.
pub struct AddressRange {
    /// All that was reserved.
    reserved: *mut c_void,
    reserved_length: usize,
    /// The range, which lies within.
    base: *mut u8,
    size: u64,
    /// What is mapped, by offset. Locked for writing while it changes, for reading while bytes are moved.
    mapped: RwLock<BTreeMap<u64, Mapped>>,
}

#[derive(Clone, Copy)]
struct Mapped {
    length: u64,
    writable: bool,
}

/// What cannot be done with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Behind the end, or empty.
    #[error("{length} bytes at {offset:#x} are not in a range of {size:#x}")]
    OutOfRange {
        /// Where.
        offset: u64,
        /// How many.
        length: u64,
        /// Bytes of the range.
        size: u64,
    },
    /// Something is mapped there.
    #[error("{length} bytes at {offset:#x} overlap a mapping")]
    Overlap {
        /// Where.
        offset: u64,
        /// How many.
        length: u64,
    },
    /// No mapping begins there and is as long.
    #[error("no mapping has {length} bytes at {offset:#x}")]
    NoSuchMapping {
        /// Where.
        offset: u64,
        /// How many.
        length: u64,
    },
    /// Nothing is mapped there.
    #[error("nothing is mapped at {offset:#x}")]
    NotMapped {
        /// The first byte of which this is true.
        offset: u64,
    },
    /// The mapping is for reading alone.
    #[error("the mapping at {offset:#x} is not writable")]
    ReadOnly {
        /// The first byte of which this is true.
        offset: u64,
    },
    /// The kernel did not do it.
    #[error("cannot map {length} bytes at {offset:#x}: {errno}")]
    Kernel {
        /// Where.
        offset: u64,
        /// How many.
        length: u64,
        /// What it answered.
        errno: Errno,
    },
}

impl RangeError {
    /// The error number that says this best.
    pub fn errno(self) -> Errno {
        match self {
            Self::OutOfRange { .. } => Errno::INVAL,
            Self::Overlap { .. } => Errno::EXIST,
            Self::NoSuchMapping { .. } => Errno::NOENT,
            Self::NotMapped { .. } | Self::ReadOnly { .. } => Errno::FAULT,
            Self::Kernel { errno, .. } => errno,
        }
    }
}

// SAFETY: the pointers name memory of the process, which is there for all of its threads until the value is dropped.
unsafe impl Send for AddressRange {}
// SAFETY: mappings change under the write lock, bytes are moved under the read lock and by atomic accesses alone.
unsafe impl Sync for AddressRange {}

impl AddressRange {
    /// Reserves `size` bytes, a multiple of the page size, in which nothing can be touched yet.
    pub fn reserve(size: u64) -> Result<Self, RangeError> {
        let failed = |errno| RangeError::Kernel {
            offset: 0,
            length: size,
            errno,
        };
        let length = usize::try_from(size).ok().and_then(|size| size.checked_add(HUGE_PAGE));
        let reserved_length = length.ok_or(failed(Errno::NOMEM))?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the kernel chooses addresses that nothing else uses.
        let reserved = unsafe { mmap_anonymous(ptr::null_mut(), reserved_length, ProtFlags::empty(), flags) };
        let reserved = reserved.map_err(failed)?;
        let base = reserved.cast::<u8>();
        let base = base.wrapping_add(base.addr().next_multiple_of(HUGE_PAGE) - base.addr());
        Ok(Self {
            reserved,
            reserved_length,
            base,
            size,
            mapped: RwLock::default(),
        })
    }

    /// Bytes of the range.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Mappings that there are.
    pub fn count(&self) -> usize {
        self.read().len()
    }

    /// Maps `length` bytes of `file` from `file_offset` on, where nothing is mapped yet.
    pub fn map(
        &self,
        offset: u64,
        length: u64,
        file: BorrowedFd<'_>,
        file_offset: u64,
        writable: bool,
    ) -> Result<(), RangeError> {
        self.check(offset, length)?;
        let mut mapped = self.write();
        let below = mapped.range(..offset + length).next_back();
        if below.is_some_and(|(start, old)| start + old.length > offset) {
            return Err(RangeError::Overlap { offset, length });
        }
        let protection = if writable {
            ProtFlags::READ | ProtFlags::WRITE
        } else {
            ProtFlags::READ
        };
        // SAFETY: `check` has seen that the addresses are ours. Nothing refers to them: references are never made, and nobody
        // moves bytes while the table is locked.
        let at = unsafe {
            mmap(
                self.at(offset).cast(),
                length as usize,
                protection,
                MapFlags::SHARED | MapFlags::FIXED,
                file,
                file_offset,
            )
        };
        at.map_err(|errno| RangeError::Kernel { offset, length, errno })?;
        mapped.insert(offset, Mapped { length, writable });
        Ok(())
    }

    /// Takes out the mapping that was put in with just these numbers.
    pub fn unmap(&self, offset: u64, length: u64) -> Result<(), RangeError> {
        let mut mapped = self.write();
        if mapped.get(&offset).is_none_or(|old| old.length != length) {
            return Err(RangeError::NoSuchMapping { offset, length });
        }
        // SAFETY: the addresses are ours, since something was mapped there, and nobody moves bytes while the table is locked.
        let at = unsafe {
            mmap_anonymous(
                self.at(offset).cast(),
                length as usize,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED,
            )
        };
        at.map_err(|errno| RangeError::Kernel { offset, length, errno })?;
        mapped.remove(&offset);
        Ok(())
    }

    /// Takes everything out, and tells how many mappings that were.
    pub fn clear(&self) -> Result<usize, RangeError> {
        let all: Vec<_> = self.read().iter().map(|(offset, old)| (*offset, old.length)).collect();
        for (offset, length) in &all {
            self.unmap(*offset, *length)?;
        }
        Ok(all.len())
    }

    /// Copies out what the files hold. Must lie within their length: behind it a touch ends the process (SIGBUS).
    pub fn load(&self, offset: u64, into: &mut [u8]) -> Result<(), RangeError> {
        let mapped = self.read();
        self.check_mapped(&mapped, offset, into.len() as u64, false)?;
        let (head, words) = split(self.at(offset), into.len());
        let (first, rest) = into.split_at_mut(head);
        let (middle, last) = rest.split_at_mut(words);
        let mut at = self.at(offset);
        for byte in first {
            // SAFETY: `check_mapped` has seen that all of it is mapped, and the lock keeps it so.
            *byte = unsafe { AtomicU8::from_ptr(at) }.load(Ordering::Relaxed);
            at = at.wrapping_add(1);
        }
        for word in middle.as_chunks_mut::<WORD>().0 {
            // SAFETY: as above, and aligned as `split` has it.
            let value = unsafe { AtomicU64::from_ptr(at.cast()) }.load(Ordering::Relaxed);
            *word = value.to_ne_bytes();
            at = at.wrapping_add(WORD);
        }
        for byte in last {
            // SAFETY: as above.
            *byte = unsafe { AtomicU8::from_ptr(at) }.load(Ordering::Relaxed);
            at = at.wrapping_add(1);
        }
        Ok(())
    }

    /// Stores bytes into the files. As for the length of the files, see [`load`](Self::load).
    pub fn store(&self, offset: u64, from: &[u8]) -> Result<(), RangeError> {
        let mapped = self.read();
        self.check_mapped(&mapped, offset, from.len() as u64, true)?;
        let (head, words) = split(self.at(offset), from.len());
        let (first, rest) = from.split_at(head);
        let (middle, last) = rest.split_at(words);
        let mut at = self.at(offset);
        for byte in first {
            // SAFETY: `check_mapped` has seen that all of it is mapped for writing, and the lock keeps it so.
            unsafe { AtomicU8::from_ptr(at) }.store(*byte, Ordering::Relaxed);
            at = at.wrapping_add(1);
        }
        for word in middle.as_chunks::<WORD>().0 {
            // SAFETY: as above, and aligned as `split` has it.
            unsafe { AtomicU64::from_ptr(at.cast()) }.store(u64::from_ne_bytes(*word), Ordering::Relaxed);
            at = at.wrapping_add(WORD);
        }
        for byte in last {
            // SAFETY: as above.
            unsafe { AtomicU8::from_ptr(at) }.store(*byte, Ordering::Relaxed);
            at = at.wrapping_add(1);
        }
        Ok(())
    }

    fn at(&self, offset: u64) -> *mut u8 {
        self.base.wrapping_add(offset as usize)
    }

    fn check(&self, offset: u64, length: u64) -> Result<(), RangeError> {
        match offset.checked_add(length) {
            Some(end) if length > 0 && end <= self.size => Ok(()),
            _ => Err(RangeError::OutOfRange {
                offset,
                length,
                size: self.size,
            }),
        }
    }

    /// Whether mappings, one after the other, cover all of this.
    fn check_mapped(
        &self,
        mapped: &BTreeMap<u64, Mapped>,
        offset: u64,
        length: u64,
        write: bool,
    ) -> Result<(), RangeError> {
        if length == 0 {
            return Ok(());
        }
        self.check(offset, length)?;
        let mut covered = offset;
        while covered < offset + length {
            let below = mapped.range(..=covered).next_back();
            let below = below.filter(|(start, old)| *start + old.length > covered);
            let (start, old) = below.ok_or(RangeError::NotMapped { offset: covered })?;
            if write && !old.writable {
                return Err(RangeError::ReadOnly { offset: covered });
            }
            covered = start + old.length;
        }
        Ok(())
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<u64, Mapped>> {
        self.mapped.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<u64, Mapped>> {
        self.mapped.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AddressRange {
    fn drop(&mut self) {
        // SAFETY: the whole reservation with all that was mapped into it; whoever could touch it has borrowed `self`.
        let unmapped = unsafe { munmap(self.reserved, self.reserved_length) };
        debug_assert_eq!(unmapped, Ok(()), "a reservation can be given up");
    }
}

impl fmt::Debug for AddressRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AddressRange")
            .field("size", &self.size)
            .field("mappings", &self.count())
            .finish_non_exhaustive()
    }
}

/// Cuts `length` bytes at `start`: how many bytes stand before the first aligned word, and how many bytes of whole words follow.
fn split(start: *mut u8, length: usize) -> (usize, usize) {
    let head = start.align_offset(WORD).min(length);
    (head, (length - head) & !(WORD - 1))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    const PAGE: u64 = 4096;

    fn file(pages: u64) -> File {
        let file = File::from(memfd_create("file", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(pages * PAGE).unwrap();
        file
    }

    #[test]
    fn loads_and_stores_of_any_alignment_move_exactly_their_bytes() {
        let (file, range) = (file(1), AddressRange::reserve(PAGE).unwrap());
        range.map(0, PAGE, file.as_fd(), 0, true).unwrap();
        let source: Vec<u8> = (1..=60).collect();
        for start in 0..9 {
            for length in 0..40 {
                file.write_all_at(&[0; 64], 0).unwrap();
                range.store(start, &source[..length]).unwrap();
                let mut expected = vec![0; 64];
                expected[start as usize..][..length].copy_from_slice(&source[..length]);
                let mut stored = vec![0; 64];
                file.read_exact_at(&mut stored, 0).unwrap();
                assert_eq!(stored, expected);
                let mut back = vec![0; length];
                range.load(start, &mut back).unwrap();
                assert_eq!(back, source[..length]);
            }
        }
    }

    #[test]
    fn nothing_is_mapped_over_a_mapping_nor_taken_out_in_part() {
        let (file, range) = (file(8), AddressRange::reserve(8 * PAGE).unwrap());
        let map = |offset: u64, length: u64| range.map(offset * PAGE, length * PAGE, file.as_fd(), 0, true);
        map(2, 3).unwrap();
        for (offset, length) in [(2, 3), (0, 3), (3, 1), (4, 2), (0, 8)] {
            let refused = map(offset, length).unwrap_err();
            assert_eq!(refused.errno(), Errno::EXIST, "{offset} {length}");
        }
        for (offset, length) in [(2, 2), (3, 2), (2, 4), (0, 8), (5, 1)] {
            let refused = range.unmap(offset * PAGE, length * PAGE).unwrap_err();
            assert_eq!(refused.errno(), Errno::NOENT, "{offset} {length}");
        }
        map(0, 2).unwrap();
        map(5, 3).unwrap();
        assert_eq!(map(7, 2).unwrap_err().errno(), Errno::INVAL);
        assert_eq!(range.count(), 3);
        range.load(0, &mut [0; 8 * PAGE as usize]).unwrap();
        range.unmap(2 * PAGE, 3 * PAGE).unwrap();
        let hole = range.load(0, &mut [0; 8 * PAGE as usize]).unwrap_err();
        assert_eq!(hole, RangeError::NotMapped { offset: 2 * PAGE });
        assert_eq!((range.clear().unwrap(), range.count()), (2, 0));
    }

    #[test]
    fn a_mapping_for_reading_is_not_written() {
        let (file, range) = (file(2), AddressRange::reserve(2 * PAGE).unwrap());
        range.map(0, PAGE, file.as_fd(), PAGE, true).unwrap();
        range.map(PAGE, PAGE, file.as_fd(), 0, false).unwrap();
        let refused = range.store(PAGE - 1, &[1, 2]).unwrap_err();
        assert_eq!(refused, RangeError::ReadOnly { offset: PAGE });
        let mut page = [1];
        file.read_exact_at(&mut page, 2 * PAGE - 1).unwrap();
        assert_eq!(page, [0], "not even the part that could be");
    }
}
