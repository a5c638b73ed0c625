//! A file with the structure of `/proc/kcore`: headers first, then memory.

use std::fs::File;
use std::io::Write;
use std::ops::Range;

use why::code::{Error, Memory};

const TEXT: u64 = 0xffff_ffff_8100_0000;
const MODULES: u64 = 0xffff_ffff_c000_0000;

/// Kind, offset in the file, address, length.
type Header = (u32, u64, u64, u64);

fn elf(headers: &[Header]) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(32, 0);
    bytes.extend(64_u64.to_le_bytes()); // e_phoff
    bytes.resize(54, 0);
    bytes.extend(56_u16.to_le_bytes()); // e_phentsize
    bytes.extend(u16::try_from(headers.len()).unwrap().to_le_bytes());
    bytes.resize(64, 0);
    for (kind, offset, address, length) in headers {
        bytes.extend(kind.to_le_bytes());
        bytes.extend(7_u32.to_le_bytes());
        for word in [*offset, *address, 0, *length, *length, 4096] {
            bytes.extend(word.to_le_bytes());
        }
    }
    bytes
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn memory() -> Memory {
    // A note, which is no memory whatever its address, and two parts of memory.
    let mut bytes = elf(&[(4, 0, TEXT, 4096), (1, 512, TEXT, 16), (1, 528, MODULES, 8)]);
    bytes.resize(512, 0xee);
    bytes.extend(0..24);
    Memory::of(file(&bytes)).unwrap()
}

#[test]
fn addresses_are_found_in_the_segment_that_holds_them() {
    let memory = memory();
    assert_eq!(memory.read(&(TEXT + 2..TEXT + 5)).unwrap(), [2, 3, 4]);
    assert_eq!(
        memory.read(&(MODULES..MODULES + 8)).unwrap(),
        [16, 17, 18, 19, 20, 21, 22, 23]
    );
}

#[test]
fn addresses_that_no_segment_holds_are_told() {
    let memory = memory();
    let wrong = [
        TEXT - 1..TEXT + 1,
        TEXT + 8..TEXT + 17,
        0..1,
        u64::MAX - 1..u64::MAX,
        TEXT..TEXT + (1 << 20),
        Range { start: 5, end: 2 },
    ];
    for range in wrong {
        let told = memory.read(&range).unwrap_err();
        assert!(
            matches!(told, Error::Address(start, _) if start == range.start),
            "{told}"
        );
    }
}

#[test]
fn what_is_no_elf_file_of_64_bits_is_refused() {
    let whole = elf(&[(1, 512, TEXT, 16)]);
    for length in 0..whole.len() {
        assert!(
            matches!(Memory::of(file(&whole[..length])), Err(Error::Header)),
            "{length} bytes"
        );
    }
    assert!(Memory::of(file(&whole)).is_ok());
    // Of 32 bits; the other byte order; headers too small; headers at the end of all addresses.
    for (at, byte) in [(4, 1), (5, 2), (54, 8)] {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        assert!(matches!(Memory::of(file(&bytes)), Err(Error::Header)), "byte {at}");
    }
}

#[test]
fn a_segment_that_the_file_does_not_hold_is_told() {
    let memory = Memory::of(file(&elf(&[(1, 512, TEXT, 16)]))).unwrap();
    assert!(memory.read(&(TEXT..TEXT + 1)).is_err());
    let memory = Memory::of(file(&elf(&[(1, u64::MAX, TEXT, 16)]))).unwrap();
    assert!(memory.read(&(TEXT + 4..TEXT + 5)).is_err());
}
