//! Data that the arguments of a call point to in the memory of the stopped thread.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::{flags, socket_address};

/// The longest text that is shown of a path.
const TEXT_MAX: usize = 256;
/// The longest path that the kernel takes.
const PATH_MAX: usize = 4096;
/// `IOV_MAX`: more pieces a message cannot have.
const PIECES_MAX: u64 = 1024;

/// A thread's memory, if it may be read.
pub(super) struct Memory(Option<File>);

impl Memory {
    pub(super) fn of(thread: i32) -> Self {
        Self(File::open(format!("/proc/{thread}/mem")).ok())
    }

    /// Bytes from there on, as far as there are any.
    fn bytes(&self, address: u64, most: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; most];
        let read = self.0.as_ref()?.read_at(&mut bytes, address).ok()?;
        bytes.truncate(read);
        Some(bytes)
    }

    pub(super) fn words<const COUNT: usize>(&self, address: u64) -> Option<[u64; COUNT]> {
        let bytes = self.bytes(address, COUNT * 8)?;
        let mut words = [0; COUNT];
        for (index, word) in words.iter_mut().enumerate() {
            *word = u64::from_ne_bytes(*bytes.get(index * 8..)?.first_chunk()?);
        }
        Some(words)
    }

    /// Text that ends with NUL, cut where it is too long or the memory ends.
    pub(super) fn text(&self, address: u64) -> Option<String> {
        let bytes = self.bytes(address, TEXT_MAX)?;
        let end = bytes.iter().position(|&byte| byte == 0);
        let shown = String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned();
        Some(format!("{:?}", if end.is_some() { shown } else { shown + "..." }))
    }

    /// A path as it is; none if it has no end.
    pub(super) fn path(&self, address: u64) -> Option<PathBuf> {
        let mut bytes = self.bytes(address, PATH_MAX)?;
        let end = bytes.iter().position(|&byte| byte == 0)?;
        bytes.truncate(end);
        Some(PathBuf::from(OsString::from_vec(bytes)))
    }

    /// A socket address of this length.
    pub(super) fn address(&self, address: u64, length: u64) -> Option<String> {
        let length = usize::try_from(length & 0xffff_ffff).ok()?.min(socket_address::LARGEST);
        socket_address::show(&self.bytes(address, length)?)
    }

    /// `struct msghdr`: to whom, and how much in how many pieces.
    pub(super) fn message(&self, address: u64) -> Option<String> {
        let [name, length, pieces, count] = self.words(address)?;
        let to = self
            .address(name, length)
            .map_or_else(String::new, |to| format!("to {to}, "));
        let mut total = 0_u64;
        for piece in 0..count.min(PIECES_MAX) {
            let [_, length] = self.words(pieces.checked_add(piece * 16)?)?;
            total = total.saturating_add(length);
        }
        Some(format!("{{{to}{total} bytes in {count}}}"))
    }

    /// `struct io_uring_params`: sizes of the two rings, then flags.
    pub(super) fn uring(&self, address: u64) -> Option<String> {
        let [_, flags] = self.words(address)?;
        Some(format!("{{flags={}}}", flags::uring(flags & 0xffff_ffff)))
    }
}
