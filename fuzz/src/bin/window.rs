//! Arbitrary bytes as mappings in a DAX window whose front end refuses some.
#![no_main]

#[expect(dead_code, reason = "the other targets use all of it")]
#[path = "../../../crates/fuse/tests/arbitrary/requests/bytes.rs"]
mod bytes;
#[path = "../../../crates/devices/tests/arbitrary/daemon.rs"]
mod daemon;
#[path = "../../../crates/devices/tests/common/resources.rs"]
mod resources;
/// The body lives with the tests of devices, which run it on pseudo-random bytes.
#[path = "../../../crates/devices/tests/arbitrary/window/mod.rs"]
mod window;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    window::run(bytes);
});
