//! Errors of guest memory.

use std::fmt;
use std::io;

/// A memory table that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A region without a byte.
    #[error("memory region at guest address {guest_address:#x} is empty")]
    Empty {
        /// Where the region was to start.
        guest_address: u64,
    },
    /// An end that does not fit in 64 bits, or is not addressable on this host.
    #[error("memory region of {size:#x} bytes at guest address {guest_address:#x} wraps around the address space")]
    Overflow {
        /// Where the region was to start.
        guest_address: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// Two regions claim the same guest address.
    #[error("memory regions at guest addresses {first:#x} and {second:#x} overlap")]
    Overlap {
        /// Start of the lower region.
        first: u64,
        /// Start of the upper region.
        second: u64,
    },
    /// Alignment in the guest would not be alignment on the host.
    #[error("memory region at guest address {guest_address:#x} is not aligned like its file offset {file_offset:#x}")]
    Unaligned {
        /// Where the region was to start.
        guest_address: u64,
        /// Where it starts in its file.
        file_offset: u64,
    },
    /// The file ends before the region does; there is no memory behind its end.
    #[error("memory region at guest address {guest_address:#x} needs {needed:#x} bytes of a file that has {length:#x}")]
    FileTooShort {
        /// Where the region was to start.
        guest_address: u64,
        /// Where the region ends in the file.
        needed: u64,
        /// The length of the file.
        length: u64,
    },
    /// The kernel refused.
    #[error("cannot {action} memory region at guest address {guest_address:#x}")]
    Map {
        /// What was tried.
        action: &'static str,
        /// Where the region was to start.
        guest_address: u64,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No region with these numbers.
    #[error("no memory region of {size:#x} bytes at guest address {guest_address:#x}, user address {user_address:#x}")]
    NoSuchRegion {
        /// Guest address asked for.
        guest_address: u64,
        /// Size asked for.
        size: u64,
        /// Front end's address asked for.
        user_address: u64,
    },
}

/// A range that is not (entirely) guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{length:#x} bytes at guest address {guest_address:#x} are not guest memory")]
pub struct OutOfMemory {
    /// Start of the range.
    pub guest_address: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// A region part of which was not there when it was touched. It stays usable: what is missing reads as zeros, which cursors refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostRegion {
    /// Where it starts.
    pub guest_address: u64,
    /// Its size in bytes.
    pub size: u64,
    /// The guest address of the first access that failed.
    pub lost_at: u64,
}

impl fmt::Display for LostRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            guest_address,
            size,
            lost_at,
        } = self;
        write!(
            f,
            "memory region of {size:#x} bytes at guest address {guest_address:#x}: no memory at {lost_at:#x} \
             (its file was shortened, or cannot be read)"
        )
    }
}

/// Why a cursor did not copy, nor move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// It has fewer bytes left than were asked for.
    #[error("{wanted} bytes requested, {left} are left")]
    Short {
        /// Bytes asked for.
        wanted: usize,
        /// Bytes left.
        left: usize,
    },
    /// Some of the bytes cannot be reached: they are no guest memory, or lie in a region that has lost memory, or in a window
    /// behind the end of the file there, or are to be written to a file that is open for reading. Some may have been copied.
    #[error("cannot access a buffer")]
    Fault,
}

impl From<CursorError> for io::Error {
    fn from(error: CursorError) -> io::Error {
        match error {
            CursorError::Short { .. } => io::Error::new(io::ErrorKind::UnexpectedEof, error),
            CursorError::Fault => io::Error::from_raw_os_error(libc::EFAULT),
        }
    }
}
