//! Records that a front end has changed: they cost the queue, and nothing else.

use guestmem::Memory;
use proptest::prelude::*;
use rstest::rstest;

use crate::inflight::{InflightError, InflightRecord};
use crate::{Buffer, ConfigError, QueueConfig};

const SIZE: u16 = 8;

fn config(packed: bool) -> QueueConfig {
    QueueConfig {
        packed,
        size: SIZE,
        descriptor: 0,
        driver: 0x1000,
        device: 0x2000,
        base: QueueConfig::fresh_base(packed),
        indirect: true,
        event_idx: true,
        in_order: false,
        chain_limit: QueueConfig::CHAIN_LIMIT,
    }
}

fn record(memory: &Memory, packed: bool) -> InflightRecord {
    let area = memory.area(0, InflightRecord::bytes(packed, SIZE)).unwrap();
    InflightRecord::new(area, SIZE)
}

/// Guest memory and a record: of three chains two are in flight, and one was used.
fn left_behind(packed: bool) -> (Memory, Memory) {
    let (memory, _) = Memory::memfd("guest", 0x8000, 0).unwrap();
    let (shared, _) = Memory::memfd("record", InflightRecord::bytes(packed, SIZE) as u64, 0).unwrap();
    let config = config(packed);
    let mut driver = config.drive(&memory).unwrap();
    let buffer = |address| Buffer { address, length: 16 };
    for _ in 0..3 {
        driver.post(&[buffer(0x4000)], &[buffer(0x5000)]).unwrap();
    }
    let mut queue = config.start_tracked(&memory, record(&shared, packed)).unwrap();
    let mut kept = Vec::new();
    let _served = queue
        .serve(10, |chain| {
            let (pending, outcome) = chain.keep();
            kept.push(pending);
            outcome
        })
        .unwrap();
    queue.complete(kept.remove(1), 16);
    (memory, shared)
}

fn start(packed: bool, memory: &Memory, shared: &Memory) -> Result<u32, ConfigError> {
    let mut queue = config(packed).start_tracked(memory, record(shared, packed))?;
    let mut chains = 0;
    for _ in 0..10 {
        let _violated_or_not = queue.serve(10, |chain| {
            chains += 1;
            chain.done(16)
        });
    }
    Ok(chains)
}

fn refused(packed: bool, at: u64, value: u16) -> InflightError {
    let (memory, shared) = left_behind(packed);
    shared.write(at, &value.to_le_bytes()).unwrap();
    match start(packed, &memory, &shared) {
        Err(ConfigError::Inflight(error)) => error,
        other => panic!("{other:?} with {value} at {at}"),
    }
}

#[rstest]
fn an_unchanged_record_resumes_what_is_in_flight(#[values(false, true)] packed: bool) {
    let (memory, shared) = left_behind(packed);
    assert_eq!(start(packed, &memory, &shared), Ok(2));
}

#[rstest]
fn no_change_of_a_record_breaks_the_device(#[values(false, true)] packed: bool) {
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(1000)
    };
    let length = InflightRecord::bytes(packed, SIZE) as u64;
    let value = || prop_oneof![3 => 0u16..10, 1 => any::<u16>()];
    // Version and number of entries stay: otherwise the record is refused.
    let change = (12..length - 1, value());
    proptest!(config, |(changes in proptest::collection::vec(change, 1..6))| {
        let (memory, shared) = left_behind(packed);
        for (at, value) in changes {
            shared.write(at, &value.to_le_bytes()).unwrap();
        }
        let chains = start(packed, &memory, &shared).unwrap_or(0);
        prop_assert!(chains <= 2 * u32::from(SIZE), "{chains} chains");
    });
}

#[rstest]
fn lies_are_named(#[values(false, true)] packed: bool) {
    assert_eq!(refused(packed, 8, 2), InflightError::Version(2));
    let entries = InflightError::Entries {
        found: 4,
        expected: SIZE,
    };
    assert_eq!(refused(packed, 10, 4), entries);
    let lies: &[(u64, u16)] = if packed {
        // Positions, then link, last entry and count of the first chain.
        &[(14, 3), (16, 8), (18, 8), (34, 0), (36, 6), (38, 0), (38, 9)]
    } else {
        &[(14, 100)]
    };
    for &(at, value) in lies {
        let error = refused(packed, at, value);
        assert!(
            matches!(error, InflightError::Inconsistent(_)),
            "{error}: {value} at {at}"
        );
    }
}

#[test]
fn the_last_batch_of_a_split_record_names_descriptors() {
    let (memory, shared) = left_behind(false);
    // One element was published since, whose head is none.
    shared.write(12, &[9, 0, 0, 0]).unwrap();
    let error = InflightError::Inconsistent("last batch");
    assert_eq!(start(false, &memory, &shared), Err(error.into()));
}

#[rstest]
fn a_record_that_is_too_small_is_refused(#[values(false, true)] packed: bool) {
    let (memory, shared) = left_behind(packed);
    let bytes = InflightRecord::bytes(packed, SIZE);
    for (length, entries) in [(bytes - 16, SIZE), (bytes, SIZE - 1)] {
        let record = InflightRecord::new(shared.area(0, length).unwrap(), entries);
        let refused = config(packed).start_tracked(&memory, record).unwrap_err();
        let too_small = matches!(refused, ConfigError::Inflight(InflightError::TooSmall { .. }));
        assert!(too_small, "{refused}");
    }
}
