//! Arbitrary bytes as the memory of a packed ring, against the device half.
#![no_main]

/// The body lives with the tests of virtqueue, which run it on random bytes.
#[path = "../../../crates/virtqueue/tests/it/arbitrary.rs"]
mod arbitrary;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    arbitrary::run(true, bytes);
});
