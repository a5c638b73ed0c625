//! Arbitrary bytes as messages of a vhost-user session with a file system device.
#![no_main]

#[path = "../../../crates/fuse/tests/arbitrary/requests/bytes.rs"]
mod bytes;
#[path = "../../../crates/devices/tests/arbitrary/daemon.rs"]
mod daemon;
#[path = "../../../crates/devices/tests/common/resources.rs"]
mod resources;
/// The body lives with the tests of devices, which run it on pseudo-random bytes.
#[path = "../../../crates/devices/tests/arbitrary/session/mod.rs"]
mod session;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    session::run(bytes);
});
