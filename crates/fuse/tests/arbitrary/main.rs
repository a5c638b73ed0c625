//! The body of the fuzz target `requests` on pseudo-random bytes. It counts the descriptors of the process, so that
//! it runs alone in it.

mod numbers;
mod requests;

use std::os::unix::fs::MetadataExt;

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};

use numbers::Numbers;

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
    let mut numbers = Numbers(1);
    let mut total = requests::Outcome::default();
    for input in 0..60 {
        let words = 30 + numbers.next() % 300;
        let mut bytes = numbers.bytes(words);
        // As many with two threads as with one.
        bytes[0] = if input % 2 == 0 { 0 } else { bytes[0] | 1 };
        total += requests::run(&bytes);
    }
    assert!(
        total.granted > 500 && total.nodes > 100 && total.handles > 20,
        "the requests are too random to show anything: {total:?}"
    );
}
