//! Arguments of a call as a person would write them, read from the stopped thread.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::attach::Status;
use super::{address, flags, signatures};
use crate::proc;

/// The longest text that is shown of a path.
const TEXT_MAX: usize = 256;
/// The longest path that the kernel takes.
const PATH_MAX: usize = 4096;
/// `IOV_MAX`: more pieces a message cannot have.
const PIECES_MAX: u64 = 1024;
/// `SECCOMP_MODE_FILTER`, and what a thread's mode is once a call was its last (Linux 5.17 and later).
const FILTERED: i32 = 2;
const DEAD: i32 = 3;

/// The arguments of a call; all six words where it is not known how many it has.
pub(super) fn decode(thread: i32, name: Option<&str>, words: [u64; 6]) -> Vec<String> {
    let memory = Memory(File::open(format!("/proc/{thread}/mem")).ok());
    let kinds = signatures::of(name);
    let each = kinds.chars().zip(words).enumerate();
    let shown = each.filter_map(|(at, (kind, word))| match kind {
        // open() has no mode, unless it creates.
        'c' if !flags::creates(words[at - 1]) => None,
        'A' => Some(pointed(word, memory.address(word, words[at + 1]))),
        _ => Some(show(thread, &memory, kind, word)),
    });
    shown.collect()
}

fn show(thread: i32, memory: &Memory, kind: char, word: u64) -> String {
    // The kernel takes descriptors and most numbers as 32 bits; the upper half of the register means nothing.
    #[expect(clippy::cast_possible_truncation, reason = "the kernel truncates it just so")]
    let short = word as u32 as i32;
    match kind {
        'd' if short == libc::AT_FDCWD => "AT_FDCWD".to_owned(),
        'd' | 'f' => match fs::read_link(format!("/proc/{thread}/fd/{short}")) {
            Ok(path) => format!("{short}<{}>", path.display()),
            Err(_) => short.to_string(),
        },
        'p' | 't' => pointed(word, memory.text(word)),
        'i' => short.to_string(),
        'n' => word.to_string(),
        'l' => word.cast_signed().to_string(),
        'c' | 'o' if word != 0 => format!("{:#o}", word & 0o177_777),
        'H' => pointed(word, memory.message(word)),
        'Z' => pointed(word, memory.uring(word)),
        '3' => pointed(
            word,
            memory
                .words(word)
                .map(|[flags]| format!("{{flags={}}}", flags::clone(flags))),
        ),
        '2' => pointed(
            word,
            memory
                .words(word)
                .map(|[flags, mode, resolve]| how(flags, mode, resolve)),
        ),
        _ => flags::named(kind, word).unwrap_or_else(|| bits(word)),
    }
}

/// What an address leads to, or the address.
fn pointed(address: u64, found: Option<String>) -> String {
    found.unwrap_or_else(|| bits(address))
}

fn bits(word: u64) -> String {
    if word == 0 {
        "0".to_owned()
    } else {
        format!("{word:#x}")
    }
}

/// `struct open_how`.
fn how(flags: u64, mode: u64, resolve: u64) -> String {
    let mode = if mode == 0 {
        String::new()
    } else {
        format!(", mode={mode:#o}")
    };
    let resolve = if resolve == 0 {
        String::new()
    } else {
        format!(", resolve={resolve:#x}")
    };
    format!("{{flags={}{mode}{resolve}}}", flags::open(flags))
}

/// A thread's memory, if it may be read.
struct Memory(Option<File>);

impl Memory {
    /// Bytes from there on, as far as there are any.
    fn bytes(&self, address: u64, most: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; most];
        let read = self.0.as_ref()?.read_at(&mut bytes, address).ok()?;
        bytes.truncate(read);
        Some(bytes)
    }

    fn words<const COUNT: usize>(&self, address: u64) -> Option<[u64; COUNT]> {
        let bytes = self.bytes(address, COUNT * 8)?;
        let mut words = [0; COUNT];
        for (index, word) in words.iter_mut().enumerate() {
            *word = u64::from_ne_bytes(*bytes.get(index * 8..)?.first_chunk()?);
        }
        Some(words)
    }

    /// Text that ends with NUL, cut where it is too long or the memory ends.
    fn text(&self, address: u64) -> Option<String> {
        let bytes = self.bytes(address, TEXT_MAX)?;
        let end = bytes.iter().position(|&byte| byte == 0);
        let shown = String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned();
        Some(format!("{:?}", if end.is_some() { shown } else { shown + "..." }))
    }

    /// A path as it is; none if it has no end.
    fn path(&self, address: u64) -> Option<PathBuf> {
        let mut bytes = self.bytes(address, PATH_MAX)?;
        let end = bytes.iter().position(|&byte| byte == 0)?;
        bytes.truncate(end);
        Some(PathBuf::from(OsString::from_vec(bytes)))
    }

    /// A socket address of this length.
    fn address(&self, address: u64, length: u64) -> Option<String> {
        let length = usize::try_from(length & 0xffff_ffff).ok()?.min(address::LARGEST);
        address::show(&self.bytes(address, length)?)
    }

    /// `struct msghdr`: to whom, and how much in how many pieces.
    fn message(&self, address: u64) -> Option<String> {
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
    fn uring(&self, address: u64) -> Option<String> {
        let [_, flags] = self.words(address)?;
        Some(format!("{{flags={}}}", flags::uring(flags & 0xffff_ffff)))
    }
}

/// What a call is about: the open files and the paths among its arguments, in their order. Paths are made absolute, as the
/// thread sees them, and no file is looked at for that: whoever serves it may be stopped as well.
pub(super) fn objects(thread: i32, name: Option<&str>, words: [u64; 6]) -> Vec<Object> {
    let memory = Memory(File::open(format!("/proc/{thread}/mem")).ok());
    let mut directory = None;
    let mut found = Vec::new();
    for (kind, word) in signatures::of(name).chars().zip(words) {
        #[expect(clippy::cast_possible_truncation, reason = "the kernel truncates it just so")]
        let number = word as u32 as i32;
        match kind {
            'd' => directory = (number != libc::AT_FDCWD).then_some(number),
            'f' => found.push(Object::Descriptor(number)),
            'p' => {
                let base = directory
                    .take()
                    .map_or("cwd".to_owned(), |number| format!("fd/{number}"));
                let base = fs::read_link(format!("/proc/{thread}/{base}")).unwrap_or_default();
                found.extend(memory.path(word).map(|path| Object::Path(base.join(path))));
            }
            _ => {}
        }
    }
    found
}

/// An argument that is a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Object {
    /// An open one.
    Descriptor(i32),
    /// One that has this name, if it is there at all.
    Path(PathBuf),
}

/// Whether an argument as it is shown is the path of a program that would be started under this name.
pub(super) fn names_command(argument: &str, name: &str) -> bool {
    let path = argument.strip_prefix('"').and_then(|path| path.strip_suffix('"'));
    let last = path.and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    !name.is_empty() && last.as_bytes().iter().take(15).eq(name.as_bytes())
}

/// The name under which the thread's program was started, or its first 15 bytes (`comm`).
pub(super) fn program(thread: i32) -> Option<String> {
    Some(proc::read(thread, "comm").ok()?.trim_end().to_owned())
}

/// Whether a seccomp filter is on the thread.
pub(super) fn filtered(thread: i32) -> bool {
    matches!(seccomp(thread), Some(FILTERED | DEAD))
}

/// Whether a seccomp filter has ended the thread.
pub(super) fn ended_by_filter(thread: i32) -> bool {
    seccomp(thread) == Some(DEAD)
}

fn seccomp(thread: i32) -> Option<i32> {
    Status::of(thread)?.number("Seccomp:")
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    fn shown(call: &str, words: [u64; 6]) -> String {
        let own = i32::try_from(std::process::id()).unwrap();
        decode(own, Some(call), words).join(", ")
    }

    fn at<T: ?Sized>(value: &T) -> u64 {
        ptr::from_ref(value).cast::<u8>().addr() as u64
    }

    #[test]
    fn lengths_and_offsets_have_64_bits_and_flags_have_names() {
        let told = shown("mmap", [0, 1 << 46, 3, 0x22, u64::from(u32::MAX), 1 << 33]);
        assert_eq!(
            told,
            "0, 70368744177664, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 8589934592"
        );
        assert_eq!(
            shown("lseek", [u64::from(u32::MAX), (-5_i64).cast_unsigned(), 2, 0, 0, 0]),
            "-1, -5, SEEK_END"
        );
    }

    #[test]
    fn open_has_a_mode_only_where_it_creates() {
        let path = c"/x";
        let at = at(path);
        let open = |flags| shown("openat", [0xffff_ff9c, at, flags, 0o644, 0, 0]);
        assert_eq!(open(0), "AT_FDCWD, \"/x\", O_RDONLY");
        assert_eq!(open(0o101), "AT_FDCWD, \"/x\", O_WRONLY|O_CREAT, 0o644");
        assert_eq!(open(0o20200001), "AT_FDCWD, \"/x\", O_WRONLY|O_TMPFILE, 0o644");
        let how = [0o101_u64, 0o600, 8];
        assert_eq!(
            shown("openat2", [0xffff_ff9c, at, super::tests::at(&how), 24, 0, 0]),
            "AT_FDCWD, \"/x\", {flags=O_WRONLY|O_CREAT, mode=0o600, resolve=0x8}, 24"
        );
    }

    #[test]
    fn a_message_tells_to_whom_and_how_much() {
        let mut address = [0_u8; 16];
        address[..8].copy_from_slice(&[2, 0, 0, 53, 10, 0, 0, 1]);
        let pieces = [[0x1000_u64, 60_000], [0x2000, 40_000]];
        let message = [at(&address), 16, at(&pieces), 2];
        assert_eq!(
            shown("sendmsg", [1 << 20, at(&message), 0x4000, 0, 0, 0]),
            "1048576, {to 10.0.0.1:53, 100000 bytes in 2}, MSG_NOSIGNAL"
        );
        let unnamed = [0, 0, at(&pieces), 1];
        assert_eq!(
            shown("sendmsg", [1 << 20, at(&unnamed), 0, 0, 0, 0]),
            "1048576, {60000 bytes in 1}, 0"
        );
    }

    #[test]
    fn addresses_that_lead_nowhere_stay_addresses() {
        assert_eq!(shown("connect", [1 << 20, 8, 16, 0, 0, 0]), "1048576, 0x8, 16");
        assert_eq!(shown("sendmsg", [1 << 20, 8, 0, 0, 0, 0]), "1048576, 0x8, 0");
        let endless = [0, 0, 8, u64::MAX];
        let told = shown("sendmsg", [1 << 20, at(&endless), 0, 0, 0, 0]);
        assert!(told.contains(", 0x"), "{told}");
        assert_eq!(shown("io_uring_setup", [4, 8, 0, 0, 0, 0]), "4, 0x8");
        assert_eq!(shown("unlink", [8, 0, 0, 0, 0, 0]), "0x8");
    }
}
