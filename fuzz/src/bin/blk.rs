//! Arbitrary bytes as requests, chains and commands of a guest with a block device.
#![no_main]

/// The body lives with the tests of devices, which run it on pseudo-random bytes.
#[path = "../../../crates/devices/tests/blk/arbitrary.rs"]
mod arbitrary;
#[expect(dead_code, reason = "other targets use the rest")]
#[path = "../../../crates/fuse/tests/arbitrary/requests/bytes.rs"]
mod bytes;
#[expect(dead_code, reason = "the tests use all of it")]
#[path = "../../../crates/devices/tests/blk/driver.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    arbitrary::run(bytes);
});
