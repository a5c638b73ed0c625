//! The kernel's memory, from `/proc/kcore`: an ELF file whose program headers give the addresses.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

const KCORE: &str = "/proc/kcore";
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
/// `PT_LOAD`: a part of memory.
const LOAD: u32 = 1;
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
/// No function of the kernel is longer.
const READ_MAX: u64 = 1 << 16;

/// Why the kernel's code cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its instructions are not known to this program.
    #[error(
        "innkeeper does not know the instructions of this kind of processor ({})",
        std::env::consts::ARCH
    )]
    Processor,
    /// The kernel was built without it.
    #[error("this kernel does not expose its code: there is no {KCORE} (CONFIG_PROC_KCORE)")]
    Missing,
    /// The file is root's.
    #[error("no permission for {KCORE}: only root may read the kernel's code")]
    NotAllowed,
    /// Lockdown in its confidentiality mode.
    #[error("the kernel is locked down for confidentiality, which forbids reading its code ({KCORE})")]
    Lockdown,
    /// Opening or reading failed.
    #[error("cannot read {KCORE}: {0}")]
    Read(#[from] io::Error),
    /// It is no ELF file of 64 bits and this byte order.
    #[error("{KCORE} is not a 64-bit ELF file")]
    Header,
    /// The kernel's code is not there.
    #[error("{KCORE} does not contain the addresses {0:#x} to {1:#x}")]
    Address(u64, u64),
}

/// The kernel's memory.
#[derive(Debug)]
pub struct Memory {
    file: File,
    segments: Vec<Segment>,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    address: u64,
    length: u64,
    offset: u64,
}

impl Memory {
    /// Opens `/proc/kcore`.
    ///
    /// # Errors
    /// There is none, or it may not be read.
    pub fn open() -> Result<Self, Error> {
        Self::open_at(Path::new(KCORE))
    }

    /// As [`Self::open`], of a system whose files are elsewhere.
    pub(crate) fn open_at(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::Missing,
            io::ErrorKind::PermissionDenied if locked_down() => Error::Lockdown,
            io::ErrorKind::PermissionDenied => Error::NotAllowed,
            _ => Error::Read(source),
        })?;
        Self::of(file)
    }

    /// Reads the headers of such a file.
    ///
    /// # Errors
    /// It is no ELF file of 64 bits in this byte order.
    pub fn of(file: File) -> Result<Self, Error> {
        let mut header = [0; HEADER];
        exact(&file, &mut header, 0)?;
        // ELFCLASS64 and ELFDATA2LSB.
        if header[..6] != *b"\x7fELF\x02\x01" {
            return Err(Error::Header);
        }
        let table = word(&header, 32);
        let (size, count) = (half(&header, 54), half(&header, 56));
        if usize::from(size) < PROGRAM_HEADER {
            return Err(Error::Header);
        }
        let mut segments = Vec::new();
        for number in 0..u64::from(count) {
            let at = table.checked_add(number * u64::from(size)).ok_or(Error::Header)?;
            let mut header = [0; PROGRAM_HEADER];
            exact(&file, &mut header, at)?;
            if word(&header, 0) & u64::from(u32::MAX) == u64::from(LOAD) {
                segments.push(Segment {
                    offset: word(&header, 8),
                    address: word(&header, 16),
                    length: word(&header, 32),
                });
            }
        }
        Ok(Self { file, segments })
    }

    /// The bytes of these addresses, at most 64 KiB.
    ///
    /// # Errors
    /// They are not all in one segment, or cannot be read.
    pub fn read(&self, range: &Range<u64>) -> Result<Vec<u8>, Error> {
        let missing = || Error::Address(range.start, range.end);
        let length = range.end.checked_sub(range.start).filter(|length| *length <= READ_MAX);
        let length = length.ok_or_else(missing)?;
        let offset = self.segments.iter().find_map(|segment| {
            let into = range.start.checked_sub(segment.address)?;
            let fits = into.checked_add(length)? <= segment.length;
            fits.then(|| segment.offset.checked_add(into))?
        });
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| missing())?];
        exact(&self.file, &mut bytes, offset.ok_or_else(missing)?)?;
        Ok(bytes)
    }
}

fn locked_down() -> bool {
    fs::read_to_string(LOCKDOWN).is_ok_and(|modes| modes.contains("[confidentiality]"))
}

/// A file cut off is no ELF file.
fn exact(file: &File, bytes: &mut [u8], offset: u64) -> Result<(), Error> {
    file.read_exact_at(bytes, offset).map_err(|source| match source.kind() {
        io::ErrorKind::UnexpectedEof => Error::Header,
        _ => Error::Read(source),
    })
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    word.map_or(0, |word| u64::from_le_bytes(*word))
}

fn half(bytes: &[u8], at: usize) -> u16 {
    let half = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    half.map_or(0, |half| u16::from_le_bytes(*half))
}
