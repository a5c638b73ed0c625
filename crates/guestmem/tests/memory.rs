//! The memory table: accepted regions, address lookup, hostile numbers.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use guestmem::{Error, Memory, OutOfMemory, Pieces, RegionConfig};

const PAGE: u64 = 0x1000;

fn file(length: u64) -> OwnedFd {
    let file = tempfile::tempfile().expect("a temporary file");
    file.set_len(length).expect("room for it");
    file.into()
}

fn region(guest_address: u64, size: u64) -> RegionConfig {
    RegionConfig {
        guest_address,
        size,
        user_address: 0x7000_0000_0000 + guest_address,
        file: file(size),
        file_offset: 0,
    }
}

#[test]
fn regions_that_overlap_wrap_or_hold_nothing_are_refused() {
    let overlap = Memory::map(vec![region(2 * PAGE, PAGE), region(PAGE, PAGE + 1)]);
    assert!(
        matches!(overlap, Err(Error::Overlap { first: PAGE, second }) if second == 2 * PAGE),
        "{overlap:?}"
    );
    let empty = Memory::map(vec![RegionConfig {
        size: 0,
        ..region(0, PAGE)
    }]);
    assert!(matches!(empty, Err(Error::Empty { .. })), "{empty:?}");
    let wraps = Memory::map(vec![RegionConfig {
        guest_address: u64::MAX - 0xf,
        ..region(0, PAGE)
    }]);
    assert!(matches!(wraps, Err(Error::Overflow { .. })), "{wraps:?}");
    let offset_wraps = Memory::map(vec![RegionConfig {
        file_offset: u64::MAX - 0xfff,
        ..region(0, PAGE)
    }]);
    assert!(matches!(offset_wraps, Err(Error::Overflow { .. })), "{offset_wraps:?}");
}

#[test]
fn a_file_shorter_than_its_region_is_refused_since_touching_the_rest_would_raise_sigbus() {
    let short = Memory::map(vec![RegionConfig {
        size: 2 * PAGE,
        ..region(0, PAGE)
    }]);
    assert!(matches!(short, Err(Error::FileTooShort { .. })), "{short:?}");
    let behind = Memory::map(vec![RegionConfig {
        file_offset: PAGE,
        ..region(0, PAGE)
    }]);
    assert!(matches!(behind, Err(Error::FileTooShort { .. })), "{behind:?}");
}

#[test]
fn a_region_may_start_inside_a_page_of_its_file_if_alignment_stays() {
    let memory = Memory::map(vec![RegionConfig {
        guest_address: 0x30,
        size: 0x100,
        file_offset: 0x1010,
        ..region(0, 2 * PAGE)
    }])
    .expect("a region at an odd offset");
    memory.write(0x30, b"start").expect("the first byte is there");
    memory.area(0x30, 16).expect("an area").load_u64(8, Ordering::Relaxed);
    assert!(memory.write(0x2f, b"x").is_err() && memory.write(0x130, b"x").is_err());
    let odd = Memory::map(vec![RegionConfig {
        guest_address: 0x34,
        size: 0x100,
        ..region(0, PAGE)
    }]);
    assert!(matches!(odd, Err(Error::Unaligned { .. })), "{odd:?}");
}

#[test]
fn bytes_may_straddle_adjacent_regions_but_not_a_hole() {
    let memory =
        Memory::map(vec![region(PAGE, PAGE), region(2 * PAGE, PAGE), region(4 * PAGE, PAGE)]).expect("three regions");
    let (text, mut back) = (b"straddling bytes", [0; 16]);
    memory.write(2 * PAGE - 7, text).expect("adjacent regions");
    memory.read(2 * PAGE - 7, &mut back).expect("adjacent regions");
    assert_eq!(&back, text);
    let hole = memory.write(3 * PAGE - 7, text);
    assert_eq!(
        hole,
        Err(OutOfMemory {
            guest_address: 3 * PAGE - 7,
            length: 16
        })
    );
    memory.read(3 * PAGE - 7, &mut back[..7]).expect("in front of the hole");
    assert_eq!(back[..7], [0; 7], "a refused write must leave no byte");
}

#[test]
fn hostile_addresses_are_refused_and_leave_the_list_as_it_was() {
    let memory = Memory::map(vec![region(PAGE, PAGE), region(2 * PAGE, PAGE)]).expect("two regions");
    let mut pieces = Pieces::new(&memory);
    pieces.push(PAGE, 8).expect("in range");
    for (address, length) in [
        (0, 1),
        (PAGE - 1, 2),
        (3 * PAGE, 1),
        (PAGE, 2 * PAGE + 1),
        (PAGE, u64::MAX),
        (u64::MAX, 1),
        (u64::MAX, u64::MAX),
        (2 * PAGE, u64::MAX - 2 * PAGE + 1),
    ] {
        assert_eq!(
            pieces.push(address, length),
            Err(OutOfMemory {
                guest_address: address,
                length
            })
        );
        assert_eq!(pieces.total(), 8);
        assert!(memory.area(address, length as usize).is_err());
    }
    pieces.push(u64::MAX, 0).expect("no byte is out of range");
    pieces.push(PAGE, 2 * PAGE).expect("everything there is");
    assert_eq!(pieces.total(), 8 + 2 * PAGE as usize);
    assert!(
        memory.area(2 * PAGE - 8, 16).is_err(),
        "an area is contiguous on the host"
    );
    assert!(Memory::empty().read(0, &mut [0]).is_err());
}

#[test]
fn a_region_is_added_and_removed_by_all_its_numbers_while_older_snapshots_live_on() {
    let first = Memory::map(vec![region(0, PAGE)]).expect("a region");
    let both = first.with_region(region(PAGE, PAGE)).expect("another");
    both.write(0, b"kept").expect("in range");
    assert!(first.write(PAGE, b"x").is_err());
    assert!(both.with_region(region(0, 1)).is_err(), "overlap");
    let user = 0x7000_0000_0000;
    assert!(matches!(
        both.without_region(0, PAGE, user + 1),
        Err(Error::NoSuchRegion { .. })
    ));
    let second = both.without_region(0, PAGE, user).expect("these are its numbers");
    assert!(second.read(0, &mut [0]).is_err());
    drop(both);
    let mut bytes = [0; 4];
    first.read(0, &mut bytes).expect("still mapped");
    assert_eq!(&bytes, b"kept");
}

#[test]
fn user_addresses_translate_only_inside_a_region() {
    let memory = Memory::map(vec![region(PAGE, PAGE)]).expect("a region");
    let user = 0x7000_0000_0000 + PAGE;
    assert_eq!(memory.guest_address_of(user), Some(PAGE));
    assert_eq!(memory.guest_address_of(user + PAGE - 1), Some(2 * PAGE - 1));
    assert_eq!(memory.guest_address_of(user + PAGE), None);
    assert_eq!(memory.guest_address_of(user - 1), None);
}

#[test]
fn an_area_sees_the_bytes_of_its_range_little_endian() {
    let (memory, _file) = Memory::memfd("area", PAGE, 0).expect("a memfd");
    let area = memory.area(16, 16).expect("in range");
    assert_eq!(area.len(), 16);
    area.store_u16(2, 0x1122, Ordering::Release);
    area.store_u32(4, 0x3344_5566, Ordering::Relaxed);
    area.store_u64(8, 0x0102_0304_0506_0708, Ordering::Relaxed);
    let mut bytes = [0; 16];
    memory.read(16, &mut bytes).expect("in range");
    assert_eq!(
        bytes,
        [0, 0, 0x22, 0x11, 0x66, 0x55, 0x44, 0x33, 8, 7, 6, 5, 4, 3, 2, 1]
    );
    assert_eq!(area.load_u16(14, Ordering::Acquire), 0x0102);
}

#[test]
#[should_panic(expected = "8 bytes at offset 9")]
fn an_area_refuses_an_offset_out_of_range() {
    let (memory, _file) = Memory::memfd("area", PAGE, 0).expect("a memfd");
    memory.area(0, 16).expect("in range").load_u64(9, Ordering::Relaxed);
}

#[test]
#[should_panic(expected = "not aligned")]
fn an_area_refuses_an_unaligned_offset() {
    let (memory, _file) = Memory::memfd("area", PAGE, 0).expect("a memfd");
    memory.area(0, 16).expect("in range").load_u16(1, Ordering::Relaxed);
}

#[test]
fn two_mappings_of_one_memfd_share_bytes() {
    let (memory, file) = Memory::memfd("shared", PAGE, 0x10_0000).expect("a memfd");
    let other = Memory::map(vec![RegionConfig {
        guest_address: 0,
        size: PAGE,
        user_address: 0,
        file,
        file_offset: 0,
    }])
    .expect("mapped again");
    memory.write(0x10_0010, b"seen").expect("in range");
    let mut bytes = [0; 4];
    other.read(0x10, &mut bytes).expect("in range");
    assert_eq!(&bytes, b"seen");
}

/// The other process is not trusted to keep it as long as it is.
#[test]
fn shared_memory_can_be_neither_shortened_nor_lengthened() {
    let (_memory, file) = Memory::memfd("sealed", 2 * PAGE, 0).expect("a memfd");
    for length in [0, PAGE, 3 * PAGE] {
        assert_eq!(rustix::fs::ftruncate(&file, length), Err(rustix::io::Errno::PERM));
    }
    let more = rustix::fs::fcntl_add_seals(&file, rustix::fs::SealFlags::WRITE);
    assert_eq!(
        more,
        Err(rustix::io::Errno::PERM),
        "a seal against writing would end the rings"
    );
}
