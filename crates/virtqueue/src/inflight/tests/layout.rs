//! The layouts against the structures of the vhost-user specification.

use std::mem::{offset_of, size_of};

use guestmem::{Area, Memory};

use crate::inflight::{InflightRecord, PackedRecord, SplitRecord};
use crate::layout::Descriptor;
use crate::layout::packed::Position;

#[repr(C)]
struct DescStateSplit {
    inflight: u8,
    padding: [u8; 5],
    next: u16,
    counter: u64,
}

#[repr(C)]
struct QueueRegionSplit {
    features: u64,
    version: u16,
    desc_num: u16,
    last_batch_head: u16,
    used_idx: u16,
    desc: [DescStateSplit; 0],
}

#[repr(C)]
struct DescStatePacked {
    inflight: u8,
    padding: u8,
    next: u16,
    last: u16,
    num: u16,
    counter: u64,
    id: u16,
    flags: u16,
    len: u32,
    addr: u64,
}

#[repr(C)]
struct QueueRegionPacked {
    features: u64,
    version: u16,
    desc_num: u16,
    free_head: u16,
    old_free_head: u16,
    used_idx: u16,
    old_used_idx: u16,
    used_wrap_counter: u8,
    old_used_wrap_counter: u8,
    padding: [u8; 7],
    desc: [DescStatePacked; 0],
}

const ENTRIES: u16 = 4;

struct Bytes(Memory);

impl Bytes {
    fn new(packed: bool) -> (Bytes, Area) {
        let bytes = InflightRecord::bytes(packed, ENTRIES);
        let (memory, _file) = Memory::memfd("record", bytes as u64, 0).unwrap();
        let area = memory.area(0, bytes).unwrap();
        (Bytes(memory), area)
    }

    fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.read(at as u64, &mut bytes).unwrap();
        bytes
    }

    fn u8(&self, at: usize) -> u8 {
        u8::from_ne_bytes(self.get(at))
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_ne_bytes(self.get(at))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.get(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.get(at))
    }
}

#[test]
fn a_split_record_is_laid_out_as_specified() {
    type Region = QueueRegionSplit;
    type Entry = DescStateSplit;
    let entry = |index: usize| offset_of!(Region, desc) + index * size_of::<Entry>();
    assert_eq!(InflightRecord::bytes(false, ENTRIES), entry(4));
    let (bytes, area) = Bytes::new(false);
    let mut record = SplitRecord::recover(area, ENTRIES, ENTRIES, 9).unwrap();
    assert_eq!(bytes.u16(offset_of!(Region, version)), 1);
    assert_eq!(bytes.u16(offset_of!(Region, desc_num)), ENTRIES);
    assert_eq!(bytes.u16(offset_of!(Region, used_idx)), 9);
    record.mark(2);
    record.mark(3);
    assert_eq!(bytes.u8(entry(2) + offset_of!(Entry, inflight)), 1);
    assert_eq!(bytes.u64(entry(3) + offset_of!(Entry, counter)), 1);
    record.stage(2);
    record.before_publication(3);
    assert_eq!(bytes.u16(offset_of!(Region, last_batch_head)), 3);
    assert_eq!(bytes.u16(entry(3) + offset_of!(Entry, next)), 2);
    record.after_publication(11);
    assert_eq!(bytes.u16(offset_of!(Region, used_idx)), 11);
    assert_eq!(bytes.u8(entry(2) + offset_of!(Entry, inflight)), 0);
    assert_eq!(bytes.u8(entry(3) + offset_of!(Entry, inflight)), 0);
    assert_eq!(bytes.u64(offset_of!(Region, features)), 0);
    assert_eq!(bytes.get(entry(2) + offset_of!(Entry, padding)), [0; 5]);
}

#[test]
fn a_packed_record_is_laid_out_as_specified() {
    type Region = QueueRegionPacked;
    type Entry = DescStatePacked;
    let entry = |index: usize| offset_of!(Region, desc) + index * size_of::<Entry>();
    assert_eq!(InflightRecord::bytes(true, ENTRIES), entry(4));
    let (bytes, area) = Bytes::new(true);
    let start = Position { slot: 3, wrap: true };
    let mut record = PackedRecord::recover(area, ENTRIES, ENTRIES, start, |_| false).unwrap();
    assert_eq!(bytes.u16(offset_of!(Region, version)), 1);
    assert_eq!(bytes.u16(offset_of!(Region, desc_num)), ENTRIES);
    let positions = || {
        let field = |at| bytes.u16(at);
        let heads = [offset_of!(Region, free_head), offset_of!(Region, old_free_head)].map(field);
        let used = [offset_of!(Region, used_idx), offset_of!(Region, old_used_idx)].map(field);
        let wraps = [
            offset_of!(Region, used_wrap_counter),
            offset_of!(Region, old_used_wrap_counter),
        ];
        (heads, used, wraps.map(|at| bytes.u8(at)))
    };
    let next = |index| bytes.u16(entry(index) + offset_of!(Entry, next));
    assert_eq!(positions(), ([0, 0], [3, 3], [1, 1]));
    assert_eq!([0, 1, 2, 3].map(next), [1, 2, 3, 4]);

    let descriptor = |link| Descriptor {
        address: 0x1122_3344_5566_7788,
        length: 0x99aa_bbcc,
        flags: 0x8081,
        link,
    };
    record.begin();
    record.copy(&descriptor(6));
    record.copy(&descriptor(7));
    assert_eq!(positions(), ([0, 0], [3, 3], [1, 1]), "the chain is not fetched yet");
    assert_eq!(record.mark(), 0);
    assert_eq!(positions(), ([2, 2], [3, 3], [1, 1]));
    assert_eq!(bytes.u8(entry(0) + offset_of!(Entry, inflight)), 1);
    assert_eq!(bytes.u16(entry(0) + offset_of!(Entry, last)), 1);
    assert_eq!(bytes.u16(entry(0) + offset_of!(Entry, num)), 2);
    assert_eq!(bytes.u64(entry(0) + offset_of!(Entry, counter)), 0);
    assert_eq!(bytes.u16(entry(1) + offset_of!(Entry, id)), 7);
    assert_eq!(bytes.u16(entry(1) + offset_of!(Entry, flags)), 0x8081);
    assert_eq!(bytes.u32(entry(1) + offset_of!(Entry, len)), 0x99aa_bbcc);
    assert_eq!(bytes.u64(entry(1) + offset_of!(Entry, addr)), 0x1122_3344_5566_7788);

    record.before_publication(0, Position { slot: 1, wrap: false });
    assert_eq!(positions(), ([0, 2], [1, 3], [0, 1]));
    assert_eq!([0, 1].map(next), [1, 2]);
    record.after_publication();
    assert_eq!(positions(), ([0, 0], [1, 1], [0, 0]));
    assert_eq!(bytes.u8(entry(0) + offset_of!(Entry, inflight)), 0);
    assert_eq!(bytes.u8(entry(0) + offset_of!(Entry, padding)), 0);
    assert_eq!(bytes.get(offset_of!(Region, padding)), [0; 7]);
    assert_eq!(bytes.u64(offset_of!(Region, features)), 0);
}
