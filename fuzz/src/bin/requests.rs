//! Arbitrary bytes as a sequence of FUSE requests to a shared directory.
#![no_main]

/// The body lives with the tests of fuse, which run it on pseudo-random bytes.
#[path = "../../../crates/fuse/tests/arbitrary/requests/mod.rs"]
mod requests;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    requests::run(bytes);
});
