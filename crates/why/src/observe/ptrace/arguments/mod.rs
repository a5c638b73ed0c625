//! Arguments of a call as a person would write them, read from the stopped thread.

mod flags;
mod memory;
mod signatures;
mod socket_address;

use std::fs;

use crate::observe::context::Object;
use memory::Memory;

/// The arguments of a call; all six words where it is not known how many it has.
pub(super) fn decode(thread: i32, name: Option<&str>, words: [u64; 6]) -> Vec<String> {
    let memory = Memory::of(thread);
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

/// What a call is about: the open files and the paths among its arguments, in their order. Paths are made absolute, as the
/// thread sees them, and no file is looked at for that: whoever serves it may be stopped as well.
pub(super) fn objects(thread: i32, name: Option<&str>, words: [u64; 6]) -> Vec<Object> {
    let memory = Memory::of(thread);
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

/// Whether an argument as it is shown is the path of a program that would be started under this name.
pub(super) fn names_command(argument: &str, name: &str) -> bool {
    let path = argument.strip_prefix('"').and_then(|path| path.strip_suffix('"'));
    let last = path.and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    !name.is_empty() && last.as_bytes().iter().take(15).eq(name.as_bytes())
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
            shown("openat2", [0xffff_ff9c, at, self::at(&how), 24, 0, 0]),
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
