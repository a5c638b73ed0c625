//! Hostile drivers: a violation is a value that ends the queue once, and nothing else.

use guestmem::{CursorError, Memory, OutOfMemory};
use rstest::rstest;
use virtqueue::{Chain, Queue, QueueConfig, Violation};

use crate::world::{self, BUFFERS};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// Packed: available on the first lap.
const AVAILABLE: u16 = 1 << 7;
const SIZE: u16 = 4;
const TABLE: u64 = BUFFERS + 0x1000;
const NOWHERE: u64 = 1 << 40;

/// Address, length, flags, link (the id of a packed descriptor is 7 plus the link).
type Descriptor = (u64, u32, u16, u16);

/// A readable buffer at a good place.
const GOOD: Descriptor = (BUFFERS, 16, 0, 0);

fn write_descriptors(memory: &Memory, config: &QueueConfig, at: u64, list: &[Descriptor]) {
    for (index, &(address, length, flags, link)) in (0..).zip(list) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        let (third, fourth) = if config.packed {
            (link + 7, flags)
        } else {
            (flags, link)
        };
        bytes[12..14].copy_from_slice(&third.to_le_bytes());
        bytes[14..].copy_from_slice(&fourth.to_le_bytes());
        memory.write(at + 16 * index, &bytes).expect("a place for descriptors");
    }
}

/// A queue whose ring starts with these descriptors, and an indirect table with those.
fn forge(config: &QueueConfig, ring: &[Descriptor], table: &[Descriptor]) -> (Memory, Queue) {
    let (memory, _file) = world::memory();
    let available = if config.packed { AVAILABLE } else { 0 };
    let ring: Vec<_> = ring
        .iter()
        .map(|&(at, length, flags, link)| (at, length, flags | available, link))
        .collect();
    write_descriptors(&memory, config, config.descriptor, &ring);
    write_descriptors(&memory, config, TABLE, table);
    if !config.packed {
        memory
            .write(config.driver + 2, &1u16.to_le_bytes())
            .expect("the available index");
    }
    let queue = config.start(&memory).expect("a good configuration");
    (memory, queue)
}

/// Serves, counting and completing all chains.
fn serve(queue: &mut Queue) -> (u32, Result<bool, Violation>) {
    let mut count = 0;
    let each = |chain: Chain<'_>| {
        count += 1;
        chain.done(0)
    };
    let result = queue.serve(100_000, each).map(|served| served.more);
    (count, result)
}

#[track_caller]
fn expect(config: &QueueConfig, ring: &[Descriptor], table: &[Descriptor], violation: Violation) {
    let (memory, mut queue) = forge(config, ring, table);
    assert_eq!(serve(&mut queue), (0, Err(violation)));
    assert!(queue.is_retired());
    // A later good chain changes nothing: the queue stays empty.
    write_descriptors(
        &memory,
        config,
        config.descriptor,
        &[(GOOD.0, GOOD.1, if config.packed { AVAILABLE } else { 0 }, 0)],
    );
    assert_eq!(serve(&mut queue), (0, Ok(false)));
    // The memory can serve a new queue.
    assert_eq!(
        serve(&mut config.start(&memory).expect("a good configuration")).1,
        Ok(false)
    );
}

/// It may be a window that nobody told of, so that the driver need not be wrong.
#[rstest]
fn a_buffer_outside_memory_fails_its_request_only(
    #[values(false, true)] packed: bool,
    #[values(0, WRITE)] flags: u16,
    #[values(false, true)] indirect: bool,
    #[values((NOWHERE, 1), (u64::MAX, 2), (u64::MAX - 15, u32::MAX - 16), (BUFFERS, u32::MAX - 16))] buffer: (u64, u32),
) {
    let list = [(GOOD.0, GOOD.1, NEXT | flags, 1), (buffer.0, buffer.1, flags, 0)];
    let config = world::config(packed, SIZE);
    let (_memory, mut queue) = if indirect {
        forge(&config, &[(TABLE, 32, INDIRECT, 0)], &list)
    } else {
        forge(&config, &list, &[])
    };
    let mut served = 0;
    let each = |mut chain: Chain<'_>| {
        served += 1;
        let (run, fault) = if flags & WRITE == 0 {
            let good = chain.reader.read_to_vec(16).map(drop);
            (good, chain.reader.read_exact(&mut [0]))
        } else {
            let good = chain.writer.write_all(&[1; 16]);
            (good, chain.writer.write_all(&[1]))
        };
        assert_eq!((run, fault), (Ok(()), Err(CursorError::Fault)));
        chain.done(16)
    };
    assert!(!queue.serve(10, each).unwrap().more);
    assert_eq!(served, 1);
    assert!(!queue.is_retired());
}

#[rstest]
fn a_table_outside_memory(
    #[values(false, true)] packed: bool,
    #[values((NOWHERE, 16), (u64::MAX, 16), (u64::MAX - 15, 32), (BUFFERS, u32::MAX - 15))] table: (u64, u32),
) {
    let violation = Violation::OutOfMemory(OutOfMemory {
        guest_address: table.0,
        length: table.1.into(),
    });
    expect(
        &world::config(packed, SIZE),
        &[(table.0, table.1, INDIRECT, 0)],
        &[],
        violation,
    );
}

#[rstest]
fn a_readable_buffer_behind_a_writable_one(#[values(false, true)] packed: bool, #[values(0, 16)] length: u32) {
    let list = [(BUFFERS, length, WRITE | NEXT, 1), (BUFFERS, 16, 0, 0)];
    expect(
        &world::config(packed, SIZE),
        &list,
        &[],
        Violation::ReadableBehindWritable,
    );
    expect(
        &world::config(packed, SIZE),
        &[(TABLE, 32, INDIRECT, 0)],
        &list,
        Violation::ReadableBehindWritable,
    );
}

#[rstest]
fn indirect_tables_that_were_not_negotiated(#[values(false, true)] packed: bool) {
    let config = QueueConfig {
        indirect: false,
        ..world::config(packed, SIZE)
    };
    expect(
        &config,
        &[(TABLE, 16, INDIRECT, 0)],
        &[GOOD],
        Violation::IndirectNotNegotiated,
    );
}

#[rstest]
fn indirect_tables_of_odd_lengths(#[values(false, true)] packed: bool, #[values(0, 1, 15, 17, u32::MAX)] length: u32) {
    let violation = Violation::IndirectLength { length };
    expect(
        &world::config(packed, SIZE),
        &[(TABLE, length, INDIRECT, 0)],
        &[GOOD; 2],
        violation,
    );
}

#[rstest]
fn an_indirect_table_with_a_chain_behind_it(#[values(false, true)] packed: bool) {
    let list = [(TABLE, 16, INDIRECT | NEXT, 1), GOOD];
    // A packed ring takes the head's `NEXT` for the same mistake.
    expect(
        &world::config(packed, SIZE),
        &list,
        &[GOOD],
        Violation::IndirectMisplaced,
    );
}

#[test]
fn an_indirect_table_inside_a_split_one() {
    let table = [(TABLE, 16, INDIRECT, 0)];
    expect(
        &world::config(false, SIZE),
        &[(TABLE, 16, INDIRECT, 0)],
        &table,
        Violation::IndirectMisplaced,
    );
}

#[test]
fn an_indirect_table_inside_a_packed_list() {
    let list = [(BUFFERS, 16, NEXT, 0), (TABLE, 16, INDIRECT, 0)];
    expect(&world::config(true, SIZE), &list, &[GOOD], Violation::IndirectMisplaced);
}

#[test]
fn a_split_chain_that_loops_ends_at_the_limit() {
    let violation = Violation::ChainTooLong { limit: 1024 };
    expect(&world::config(false, SIZE), &[(BUFFERS, 1, NEXT, 0)], &[], violation);
    expect(
        &world::config(false, SIZE),
        &[(BUFFERS, 1, NEXT, 1), (BUFFERS, 1, NEXT, 0)],
        &[],
        violation,
    );
    expect(
        &world::config(false, SIZE),
        &[(TABLE, 16, INDIRECT, 0)],
        &[(BUFFERS, 1, NEXT, 0)],
        violation,
    );
}

#[test]
fn a_packed_list_all_around_the_ring() {
    expect(
        &world::config(true, SIZE),
        &[(BUFFERS, 1, NEXT, 0); 4],
        &[],
        Violation::TooManyAvailable { size: SIZE },
    );
}

#[rstest]
fn a_table_longer_than_the_limit(#[values(false, true)] packed: bool) {
    let config = QueueConfig {
        chain_limit: 5,
        ..world::config(packed, SIZE)
    };
    let table: Vec<Descriptor> = (1..=6)
        .map(|next| (BUFFERS, 1, if next < 6 { NEXT } else { 0 }, next))
        .collect();
    expect(
        &config,
        &[(TABLE, 96, INDIRECT, 0)],
        &table,
        Violation::ChainTooLong { limit: 5 },
    );
    let (_memory, mut queue) = forge(
        &QueueConfig {
            chain_limit: 6,
            ..config
        },
        &[(TABLE, 96, INDIRECT, 0)],
        &table,
    );
    assert_eq!(serve(&mut queue), (1, Ok(false)));
}

#[rstest]
fn a_chain_of_more_than_four_gibibytes(#[values(false, true)] packed: bool) {
    // 1023 times the same 4.1 MiB.
    let table: Vec<Descriptor> = (1..1024)
        .map(|next| (BUFFERS, 0x42_0000, if next < 1023 { NEXT } else { 0 }, next))
        .collect();
    expect(
        &world::config(packed, SIZE),
        &[(TABLE, 1023 * 16, INDIRECT, 0)],
        &table,
        Violation::TooManyBytes,
    );
}

#[test]
fn heads_and_links_outside_the_split_table() {
    let config = world::config(false, SIZE);
    let violation = Violation::NoSuchDescriptor { index: 4, entries: 4 };
    expect(&config, &[(BUFFERS, 1, NEXT, 4)], &[], violation);
    let violation = Violation::NoSuchDescriptor { index: 2, entries: 2 };
    expect(
        &config,
        &[(TABLE, 32, INDIRECT, 0)],
        &[(BUFFERS, 1, NEXT, 2), GOOD],
        violation,
    );
    let (memory, mut queue) = forge(&config, &[GOOD], &[]);
    memory
        .write(config.driver + 4, &u16::MAX.to_le_bytes())
        .expect("the first entry");
    let violation = Violation::NoSuchDescriptor {
        index: u16::MAX,
        entries: 4,
    };
    assert_eq!(serve(&mut queue), (0, Err(violation)));
}

#[test]
fn an_available_index_that_jumps() {
    let config = world::config(false, SIZE);
    for index in [SIZE + 1, 0x8000, u16::MAX] {
        let (memory, mut queue) = forge(&config, &[GOOD], &[]);
        memory
            .write(config.driver + 2, &index.to_le_bytes())
            .expect("the available index");
        assert_eq!(serve(&mut queue), (0, Err(Violation::TooManyAvailable { size: SIZE })));
    }
}

#[rstest]
fn more_chains_than_the_device_has_given_back(
    #[values(false, true)] packed: bool,
    #[values(false, true)] in_order: bool,
) {
    // Packed: each slot is made available again, for the next lap, although the device has not used it.
    let config = QueueConfig {
        in_order,
        ..world::config(packed, SIZE)
    };
    let (memory, mut queue) = forge(&config, &[GOOD; SIZE as usize], &[]);
    let mut kept = Vec::new();
    let mut keep = |chain: Chain<'_>| {
        let (pending, outcome) = chain.keep();
        kept.push(pending);
        outcome
    };
    memory
        .write(config.driver + 2, &if packed { 0 } else { SIZE }.to_le_bytes())
        .expect("the available index");
    assert!(!queue.serve(100, &mut keep).expect("as many as the ring holds").more);
    let again = (GOOD.0, GOOD.1, 1 << 15, 0);
    if packed {
        write_descriptors(&memory, &config, config.descriptor, &[again]);
    } else {
        memory
            .write(config.driver + 2, &(SIZE + 1).to_le_bytes())
            .expect("the available index");
    }
    assert_eq!(
        queue.serve(100, &mut keep),
        Err(Violation::TooManyAvailable { size: SIZE })
    );
    assert_eq!((kept.len(), queue.in_flight()), (SIZE as usize, u32::from(SIZE)));
    // Completions of a retired queue reach nobody and break nothing.
    kept.into_iter().for_each(|pending| queue.complete(pending, 16));
    assert_eq!(queue.in_flight(), 0);
}

#[test]
fn ordinary_descriptors_may_come_before_a_split_table() {
    let config = world::config(false, SIZE);
    let ring = [
        (BUFFERS, 3, NEXT, 2),
        GOOD,
        (BUFFERS, 4, NEXT, 3),
        (TABLE, 32, INDIRECT | WRITE, 0),
    ];
    let (_memory, mut queue) = forge(&config, &ring, &[(BUFFERS, 5, NEXT, 1), (BUFFERS, 6, WRITE, 0)]);
    let mut seen = None;
    let look = |chain: Chain<'_>| {
        seen = Some((chain.reader.remaining(), chain.writer.remaining()));
        chain.done(0)
    };
    assert!(!queue.serve(9, look).expect("allowed").more);
    assert_eq!(seen, Some((12, 6)));
}

#[test]
fn flags_and_ids_that_mean_nothing_in_packed_rings_are_ignored() {
    // In a table only WRITE counts, and the pointer's WRITE does not; of a list only the last id counts.
    let config = world::config(true, SIZE);
    let table = [
        (BUFFERS, 5, NEXT | INDIRECT | 0xff00, 99),
        (BUFFERS, 6, WRITE | NEXT, 1),
    ];
    let (memory, mut queue) = forge(&config, &[(TABLE, 32, INDIRECT | WRITE, 0x7000)], &table);
    assert_eq!(serve(&mut queue), (1, Ok(false)));
    let mut id = [0; 2];
    memory.read(12, &mut id).expect("the used descriptor");
    assert_eq!(
        u16::from_le_bytes(id),
        0x7007,
        "an id is the driver's and goes back as it came"
    );
}

#[rstest]
#[case::reserved(3 << 16, true)]
#[case::position_outside_the_ring(2 << 16 | 0x7fff, true)]
#[case::position_without_the_feature(2 << 16 | 3, false)]
fn event_structures_that_make_no_sense_ask_for_every_interrupt(#[case] event: u32, #[case] event_idx: bool) {
    let config = QueueConfig {
        event_idx,
        ..world::config(true, SIZE)
    };
    let (memory, mut queue) = forge(&config, &[GOOD], &[]);
    assert!(queue.interrupt_wanted(), "the first decision is always yes");
    memory
        .write(config.driver, &event.to_le_bytes())
        .expect("the event structure");
    assert!(
        queue
            .serve(9, |chain| chain.done(0))
            .expect("an honest chain")
            .interrupt
    );
    write_descriptors(&memory, &config, 16, &[(GOOD.0, GOOD.1, AVAILABLE, 0)]);
    memory
        .write(config.driver, &(1u32 << 16).to_le_bytes())
        .expect("the event structure");
    assert!(
        !queue
            .serve(9, |chain| chain.done(0))
            .expect("an honest chain")
            .interrupt,
        "and this asks for none"
    );
}

#[rstest]
#[case::no_entries(false, 0)]
#[case::no_power_of_two(false, 3)]
#[case::too_large(false, 32769)]
#[case::no_slots(true, 0)]
#[case::too_many_slots(true, 32769)]
fn sizes_that_no_ring_has(#[case] packed: bool, #[case] size: u16) {
    let (memory, _file) = world::memory();
    assert!(world::config(packed, size).start(&memory).is_err());
}

#[rstest]
fn parts_askew_or_outside_memory_and_bases_outside_the_ring(#[values(false, true)] packed: bool) {
    let (memory, _file) = world::memory();
    let good = world::config(packed, SIZE);
    assert!(good.start(&memory).is_ok());
    for bad in [
        QueueConfig {
            descriptor: 8,
            ..good.clone()
        },
        QueueConfig {
            driver: good.driver + 1,
            ..good.clone()
        },
        QueueConfig {
            device: good.device + 2,
            ..good.clone()
        },
        QueueConfig {
            descriptor: NOWHERE,
            ..good.clone()
        },
        QueueConfig {
            driver: NOWHERE,
            ..good.clone()
        },
        QueueConfig {
            device: u64::MAX - 3,
            ..good.clone()
        },
        QueueConfig {
            base: if packed { 0x8000_8004 } else { 0x1_0000 },
            ..good.clone()
        },
        QueueConfig {
            base: 0x8004_8000,
            ..good.clone()
        },
    ] {
        assert!(bad.start(&memory).is_err(), "{bad:x?}");
    }
}
