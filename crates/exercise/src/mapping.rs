//! Shared mappings of files.
#![expect(unsafe_code, reason = "mmap, and loads and stores in what it mapped")]

use std::ffi::c_void;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};
use rustix::param::page_size;

const WORD: usize = size_of::<u64>();

/// A range of a file, mapped MAP_SHARED for reading and writing.
///
/// Other processes store into it at any time, so no reference ever points into it: bytes are moved by volatile accesses.
/// A touch of a page that lies behind the end of the file raises SIGBUS and ends the program: callers stay below the length
/// that the file has, so this happens only if the file system lost a part of it.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: *mut u8,
    length: usize,
    /// Where in the file the mapping begins; a multiple of the page size.
    start: u64,
}

impl Mapping {
    /// Maps the pages that hold `range` of a file. An empty range cannot be mapped (EINVAL).
    pub(crate) fn new(file: BorrowedFd<'_>, range: Range<u64>) -> io::Result<Self> {
        let page = page_size() as u64;
        let start = range.start - range.start % page;
        let length = usize::try_from(range.end.next_multiple_of(page) - start).map_err(io::Error::other)?;
        // SAFETY: the kernel chooses an address that nothing else uses.
        let base = unsafe {
            mmap(
                ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                start,
            )
        }?;
        Ok(Self {
            base: base.cast(),
            length,
            start,
        })
    }

    /// Copies what the file holds at `offset` out of the mapping. Fails if that is not mapped.
    pub(crate) fn load(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let at = self.check(offset, buffer.len())?;
        let (head, words) = split(at, buffer.len());
        let (first, rest) = buffer.split_at_mut(head);
        let (middle, last) = rest.split_at_mut(words * WORD);
        self.load_bytes(at, first);
        for (index, word) in middle.chunks_exact_mut(WORD).enumerate() {
            let from = at.wrapping_add(head + index * WORD).cast::<u64>();
            // SAFETY: `check` has seen that the range is mapped, `split` that the word is aligned.
            let value = unsafe { from.read_volatile() };
            word.copy_from_slice(&value.to_ne_bytes());
        }
        self.load_bytes(at.wrapping_add(head + words * WORD), last);
        Ok(())
    }

    /// Stores bytes at `offset` of the file through the mapping. Fails if that is not mapped.
    pub(crate) fn store(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let at = self.check(offset, bytes.len())?;
        let (head, words) = split(at, bytes.len());
        let (first, rest) = bytes.split_at(head);
        let (middle, last) = rest.split_at(words * WORD);
        self.store_bytes(at, first);
        for (index, word) in middle.chunks_exact(WORD).enumerate() {
            let mut value = [0; WORD];
            value.copy_from_slice(word);
            let to = at.wrapping_add(head + index * WORD).cast::<u64>();
            // SAFETY: `check` has seen that the range is mapped, `split` that the word is aligned.
            unsafe { to.write_volatile(u64::from_ne_bytes(value)) };
        }
        self.store_bytes(at.wrapping_add(head + words * WORD), last);
        Ok(())
    }

    /// Has the kernel read `length` bytes of another file from `from` on into the mapping, to `offset` of the mapped file: one pread(2).
    pub(crate) fn read_from(&self, file: BorrowedFd<'_>, from: u64, offset: u64, length: usize) -> io::Result<usize> {
        let at = self.check(offset, length)?;
        let from = libc::off_t::try_from(from).map_err(io::Error::other)?;
        // SAFETY: `check` has seen that the range is mapped, and no reference points into it.
        let moved = unsafe { libc::pread(file.as_raw_fd(), at.cast(), length, from) };
        usize::try_from(moved).map_err(|_| io::Error::last_os_error())
    }

    /// Has the kernel write what the mapped file holds at `offset` to another file, from `to` on: one pwrite(2).
    pub(crate) fn write_to(&self, file: BorrowedFd<'_>, to: u64, offset: u64, length: usize) -> io::Result<usize> {
        let at = self.check(offset, length)?;
        let to = libc::off_t::try_from(to).map_err(io::Error::other)?;
        // SAFETY: `check` has seen that the range is mapped.
        let moved = unsafe { libc::pwrite(file.as_raw_fd(), at.cast(), length, to) };
        usize::try_from(moved).map_err(|_| io::Error::last_os_error())
    }

    /// Writes what was stored to the file and waits for it (MS_SYNC).
    pub(crate) fn flush(&self) -> io::Result<()> {
        // SAFETY: the range is a mapping of ours.
        unsafe { msync(self.base.cast::<c_void>(), self.length, MsyncFlags::SYNC) }?;
        Ok(())
    }

    /// Where the bytes at `offset` are, if all of them are mapped.
    fn check(&self, offset: u64, length: usize) -> io::Result<*mut u8> {
        let at = offset.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        let at = at.filter(|&at| at <= self.length && length <= self.length - at);
        let at = at.ok_or_else(|| {
            let (start, end) = (self.start, self.start + self.length as u64);
            let message = format!("{length} bytes at {offset:#x} are not in the mapping of {start:#x}..{end:#x}");
            io::Error::new(io::ErrorKind::UnexpectedEof, message)
        })?;
        Ok(self.base.wrapping_add(at))
    }

    fn load_bytes(&self, at: *const u8, buffer: &mut [u8]) {
        for (index, byte) in buffer.iter_mut().enumerate() {
            // SAFETY: the callers checked that the range is mapped.
            *byte = unsafe { at.wrapping_add(index).read_volatile() };
        }
    }

    fn store_bytes(&self, at: *mut u8, bytes: &[u8]) {
        for (index, &byte) in bytes.iter().enumerate() {
            // SAFETY: the callers checked that the range is mapped.
            unsafe { at.wrapping_add(index).write_volatile(byte) };
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is a mapping of ours, and no reference points into it.
        let unmapped = unsafe { munmap(self.base.cast::<c_void>(), self.length) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping: {unmapped:?}");
    }
}

/// How many bytes stand before the first aligned word of a range, and how many whole words follow.
fn split(at: *const u8, length: usize) -> (usize, usize) {
    let head = at.addr().next_multiple_of(WORD) - at.addr();
    let head = head.min(length);
    (head, (length - head) / WORD)
}
