//! A guest's memory with one queue in it.

use std::fs::File;
use std::os::fd::OwnedFd;

use guestmem::{Memory, RegionConfig};
use virtqueue::{Buffer, DriverQueue, Queue, QueueConfig};

/// Where buffers may lie, behind the largest ring.
pub(crate) const BUFFERS: u64 = 0x10_0000;
/// Room for the buffers of one chain.
pub(crate) const ARENA: u64 = 0x1000;
/// Where their indirect tables may lie.
const TABLES: u64 = 0x40_0000;
/// Room for the indirect table of one chain.
const TABLE: u64 = 0x100;
const SIZE: u64 = 0x80_0000;

/// Features and place of a queue; the rest follows from the size.
pub(crate) fn config(packed: bool, size: u16) -> QueueConfig {
    QueueConfig {
        packed,
        size,
        descriptor: 0,
        driver: 0x8_0000,
        device: 0x9_1000,
        base: QueueConfig::fresh_base(packed),
        indirect: true,
        event_idx: true,
        in_order: false,
        chain_limit: QueueConfig::CHAIN_LIMIT,
    }
}

/// Memory, and the file of it.
pub(crate) fn memory() -> (Memory, OwnedFd) {
    Memory::memfd("guest", SIZE, 0).expect("a memfd")
}

/// Memory whose file can be shortened.
pub(crate) fn shrinkable_memory() -> (Memory, File) {
    shrinkable_region(&Memory::empty(), 0)
}

/// `memory` and one more region, whose file can be shortened.
pub(crate) fn shrinkable_region(memory: &Memory, guest_address: u64) -> (Memory, File) {
    let file = tempfile::tempfile().expect("a temporary file");
    file.set_len(SIZE).expect("room for it");
    let region = RegionConfig {
        guest_address,
        size: SIZE,
        user_address: guest_address,
        file: file.try_clone().expect("a descriptor").into(),
        file_offset: 0,
    };
    (memory.with_region(region).expect("a good region"), file)
}

/// Both halves of a queue that is fresh, or has gone as far as the configuration says.
pub(crate) fn start(config: &QueueConfig) -> (Memory, DriverQueue, Queue) {
    let (memory, _file) = memory();
    let driver = config.drive(&memory).expect("a good configuration");
    if config.packed && config.base >> 15 & 1 == 0 {
        leave_a_lap(&memory, config);
    }
    let queue = config.start(&memory).expect("a good configuration");
    (memory, driver, queue)
}

/// Writes what a ring holds whose first lap is over: descriptors that were used.
fn leave_a_lap(memory: &Memory, config: &QueueConfig) {
    const AVAILABLE_AND_USED: u16 = 1 << 7 | 1 << 15;
    for slot in 0..u64::from(config.size) {
        let flags = config.descriptor + 16 * slot + 14;
        memory
            .write(flags, &AVAILABLE_AND_USED.to_le_bytes())
            .expect("in memory");
    }
}

/// Cuts arena `number` into buffers of these lengths.
pub(crate) fn buffers(number: u64, lengths: &[u32]) -> Vec<Buffer> {
    let mut address = BUFFERS + number * ARENA;
    let mut cut = |&length: &u32| {
        let buffer = Buffer { address, length };
        address += u64::from(length);
        buffer
    };
    lengths.iter().map(&mut cut).collect()
}

/// The place of an indirect table.
pub(crate) fn table(number: u64) -> u64 {
    TABLES + number * TABLE
}
