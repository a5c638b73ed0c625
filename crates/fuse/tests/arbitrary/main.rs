//! The body of the fuzz target `requests` on pseudo-random bytes. It counts the descriptors of the process, so that
//! it runs alone in it.

mod requests;

use std::os::unix::fs::MetadataExt;

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};

/// The next of a sequence of numbers that only look random (splitmix64), so that a failure repeats.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut number = *state;
    number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// What the body looks for after each request is seen if it is there.
fn the_oracle_sees_an_open_fifo() {
    let directory = tempfile::tempdir().unwrap();
    let device = directory.path().metadata().unwrap().dev();
    let path = directory.path().join("fifo");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let seen = |flags| {
        let _open = open(&path, flags | OFlags::CLOEXEC, Mode::empty()).unwrap();
        std::panic::catch_unwind(|| requests::oracle::no_special_file_is_open(device)).is_err()
    };
    assert!(seen(OFlags::RDWR));
    assert!(!seen(OFlags::PATH));
}

#[test]
fn no_sequence_of_requests_breaks_server_or_share() {
    the_oracle_sees_an_open_fifo();
    let mut state = 1;
    let mut total = requests::Outcome::default();
    for input in 0..60 {
        let words = 30 + next(&mut state) % 300;
        let mut bytes: Vec<u8> = (0..words).flat_map(|_| next(&mut state).to_le_bytes()).collect();
        // As many with two threads as with one.
        bytes[0] = if input % 2 == 0 { 0 } else { bytes[0] | 1 };
        total += requests::run(&bytes);
    }
    assert!(
        total.granted > 500 && total.nodes > 100 && total.handles > 20,
        "the requests are too random to show anything: {total:?}"
    );
}
