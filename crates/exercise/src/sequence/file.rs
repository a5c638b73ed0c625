//! The file under test.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, copy_file_range, fallocate};
use rustix::param::page_size;

use crate::mapping::Mapping;

/// What `fallocate` can do besides writing and truncating.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Free a range; it reads as zeros. The length stays.
    Punch,
    /// Make zeros of a range; the file may grow.
    Zero,
    /// Take a range out.
    Collapse,
    /// Put a range of zeros in.
    Insert,
    /// Reserve space; neither contents nor length change.
    Allocate,
}

/// A file, real or faulty on purpose. Offsets and lengths are in bytes.
pub(super) trait Target {
    /// How long the file is.
    fn length(&self) -> io::Result<u64>;
    /// Reads once, and says how many bytes came.
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes once, and says how many bytes were taken.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize>;
    /// Loads bytes through the mapping; they may reach to the end of the file's last page.
    fn load(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Stores bytes through the mapping; they lie within the file.
    fn store(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Writes out what was stored through the mapping.
    fn flush(&mut self) -> io::Result<()>;
    /// Gives up the mapping, so that the next load or store makes a new one, of the length that the file then has.
    fn unmap(&mut self);
    /// Sets the length.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
    /// Does one kind of `fallocate`.
    fn change(&mut self, change: Change, range: Range<u64>) -> io::Result<()>;
    /// Copies within the file.
    fn copy(&mut self, from: u64, to: u64, length: u64) -> io::Result<()>;
    /// Writes contents and attributes to the disk.
    fn sync(&mut self) -> io::Result<()>;
    /// Closes the file and opens it again.
    fn reopen(&mut self) -> io::Result<()>;
}

/// A file of the file system under test.
#[derive(Debug)]
pub(super) struct RealFile {
    path: PathBuf,
    file: File,
    /// Kept from one operation to the next, also over close and open: so loads and stores meet pages that other
    /// operations changed in between.
    mapping: Option<Mapping>,
}

impl RealFile {
    /// Makes the file, or empties it.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            mapping: None,
        })
    }

    fn mapping(&mut self) -> io::Result<&Mapping> {
        let mapping = match self.mapping.take() {
            Some(mapping) => mapping,
            None => Mapping::new(
                self.file.as_fd(),
                0..self.length()?.next_multiple_of(page_size() as u64),
            )?,
        };
        Ok(self.mapping.insert(mapping))
    }
}

impl Target for RealFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(bytes, offset)
    }

    fn load(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.mapping()?.load(offset, buffer)
    }

    fn store(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.mapping()?.store(offset, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.mapping()?.flush()
    }

    fn unmap(&mut self) {
        self.mapping = None;
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn change(&mut self, change: Change, range: Range<u64>) -> io::Result<()> {
        let flags = match change {
            Change::Punch => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            Change::Zero => FallocateFlags::ZERO_RANGE,
            Change::Collapse => FallocateFlags::COLLAPSE_RANGE,
            Change::Insert => FallocateFlags::INSERT_RANGE,
            Change::Allocate => FallocateFlags::KEEP_SIZE,
        };
        Ok(fallocate(&self.file, flags, range.start, range.end - range.start)?)
    }

    fn copy(&mut self, from: u64, to: u64, length: u64) -> io::Result<()> {
        let (mut from, mut to, mut left) = (from, to, length);
        while left > 0 {
            // The kernel moves both offsets on; it may copy less than was asked for.
            let copied = copy_file_range(&self.file, Some(&mut from), &self.file, Some(&mut to), left as usize)?;
            if copied == 0 {
                return Err(io::Error::other(format!("copy_file_range left out {left} bytes")));
            }
            left -= copied as u64;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn reopen(&mut self) -> io::Result<()> {
        // Closed first, for a file system that keeps its state as long as one descriptor is open. Any file can stand in.
        self.file = File::open("/")?;
        self.file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        Ok(())
    }
}
