//! The bodies of the fuzz targets on random bytes, biased so that they resemble rings often enough.

use std::cell::Cell;

use proptest::prelude::*;
use rstest::rstest;

use crate::arbitrary;

/// Flags of an end of a chain, mostly, so that most chains are short enough to be right.
fn flags() -> impl Strategy<Value = u16> {
    prop_oneof![6 => Just(0), 6 => Just(2), 3 => Just(1), 2 => Just(4), 1 => 0u16..8, 1 => any::<u16>()]
}

/// A descriptor that often makes sense in this format.
fn descriptor(packed: bool) -> impl Strategy<Value = Vec<u8>> {
    let address = prop_oneof![20 => 0u64..0xe00, 1 => any::<u64>()];
    let length = prop_oneof![20 => (1u32..8).prop_map(|count| count * 16), 1 => any::<u32>()];
    let link = prop_oneof![20 => 0u16..8, 1 => any::<u16>()];
    (address, length, flags(), link, any::<bool>()).prop_map(move |(address, length, flags, link, available)| {
        let lap = if available { 0x80 } else { 0x8000 };
        let (third, fourth) = if packed { (link, flags | lap) } else { (flags, link) };
        [
            &address.to_le_bytes()[..],
            &length.to_le_bytes(),
            &third.to_le_bytes(),
            &fourth.to_le_bytes(),
        ]
        .concat()
    })
}

/// Rings where `arbitrary` has them, and tables behind: what the driver writes in one turn.
fn memory(packed: bool) -> impl Strategy<Value = Vec<u8>> {
    let descriptors = |count| proptest::collection::vec(descriptor(packed), count).prop_map(|list| list.concat());
    let available = proptest::collection::vec(0u16..6, arbitrary::DESCRIPTORS as usize / 2);
    let available = available.prop_map(|words| words.into_iter().flat_map(u16::to_le_bytes).collect::<Vec<_>>());
    (available, descriptors(32), descriptors(200))
        .prop_map(|(available, ring, tables)| [available, ring, tables].concat())
}

#[rstest]
fn arbitrary_memory_never_breaks_the_device(#[values(false, true)] packed: bool) {
    let turns = proptest::collection::vec(memory(packed), 4);
    let head = (any::<u8>(), any::<u8>(), 0u8..3, any::<u8>());
    let served = Cell::new(0);
    let config = || ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(1000)
    };
    proptest!(config(), |((size, features, base, plan) in head, turns in turns)| {
        // Tables are mostly allowed, and the limit is mostly high enough for them.
        let head = [size, features | 0x41, base, plan];
        served.set(served.get() + arbitrary::run(packed, &[&head[..], &turns.concat()].concat()));
    });
    let served = served.into_inner();
    assert!(
        served > 300,
        "only {served} chains were good: the bytes are too random to show anything"
    );
    proptest!(config(), |(bytes in proptest::collection::vec(any::<u8>(), 0..5000))| {
        arbitrary::run(packed, &bytes);
    });
}
