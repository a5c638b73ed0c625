//! The bodies of the fuzz targets on random bytes, biased so that they look like rings often enough.

use proptest::prelude::*;
use rstest::rstest;

use crate::arbitrary;

/// A descriptor that often makes sense; the last two numbers are flags and link, or id and flags.
fn descriptor() -> impl Strategy<Value = Vec<u8>> {
    let address = prop_oneof![4 => 0u64..0x1100, 1 => any::<u64>()];
    let length = prop_oneof![4 => (0u32..20).prop_map(|count| count * 16), 1 => any::<u32>()];
    let flags = prop_oneof![4 => (0u16..8).prop_map(|flags| flags | 0x80), 2 => 0u16..8, 1 => any::<u16>()];
    let link = prop_oneof![4 => 0u16..8, 2 => (0u16..8).prop_map(|flags| flags | 0x80), 1 => any::<u16>()];
    (address, length, flags, link).prop_map(|(address, length, flags, link)| {
        [
            &address.to_le_bytes()[..],
            &length.to_le_bytes(),
            &flags.to_le_bytes(),
            &link.to_le_bytes(),
        ]
        .concat()
    })
}

fn memory() -> impl Strategy<Value = Vec<u8>> {
    let ring = proptest::collection::vec(descriptor(), 32).prop_map(|list| list.concat());
    let available = proptest::collection::vec(0u16..18, 64)
        .prop_map(|words| words.into_iter().flat_map(u16::to_le_bytes).collect());
    let tables = proptest::collection::vec(descriptor(), 200).prop_map(|list| list.concat());
    (ring, available, tables)
        .prop_map(|(ring, available, tables): (Vec<u8>, Vec<u8>, Vec<u8>)| [ring, available, tables].concat())
}

#[rstest]
fn arbitrary_memory_never_breaks_the_device(#[values(false, true)] packed: bool) {
    let turns = proptest::collection::vec(memory(), 4);
    proptest!(ProptestConfig::with_cases(1000), |(head: [u8; 4], turns in turns)| {
        let head = if packed { head } else { [head[0], head[1], head[2] % 4, head[3]] };
        arbitrary::run(packed, &[&head[..], &turns.concat()].concat());
    });
    proptest!(ProptestConfig::with_cases(1000), |(bytes in proptest::collection::vec(any::<u8>(), 0..5000))| {
        arbitrary::run(packed, &bytes);
    });
}
