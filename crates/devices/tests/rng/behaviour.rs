//! A driver gets bytes of the source, in part if necessary, and correct lengths.

use std::io::Write;

use devices::rng::{Error, REQUEST_MAX, RngDevice, RngOptions};
use rstest::rstest;
use tracing::Level;
use virtqueue::Buffer;
use virtqueue::features::{IN_ORDER, TRANSPORT};

use crate::driver::{Client, Daemon, Origin, options};
use crate::log;

/// What lies in guest memory before a request.
const OLD: u8 = 0;

/// Bytes without 0, which never repeat where it would matter.
fn known(count: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let step = |_| {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 56) as u8 | 1
    };
    (0..count).map(step).collect()
}

/// VIRTIO 1.1 5.4.3 and 5.4.4: there are none.
#[rstest]
fn there_are_no_features_and_no_configuration(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new(RngOptions::default());
    let mut client = daemon.connect(&::driver::Options {
        features: u64::MAX >> 8 & !(1 << 30),
        ..options(packed)
    });
    assert_eq!(
        client.0.features() & !TRANSPORT & !(1 << 34) & !(1 << 28 | 1 << 29 | 1 << 35),
        0
    );
    assert_eq!(client.0.device_config(8).unwrap(), [0; 8]);
}

#[rstest]
fn the_host_gives_bytes_that_differ(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new(RngOptions::default());
    let mut client = daemon.connect(&options(packed));
    let answers: Vec<_> = (0..100).map(|_| client.ask(32)).collect();
    for (index, answer) in answers.iter().enumerate() {
        assert_eq!(answer.len(), 32);
        assert!(!answers[..index].contains(answer));
    }
}

#[rstest]
fn a_regular_file_is_handed_out_from_front_to_back(
    #[values(false, true)] packed: bool,
    #[values(0, IN_ORDER)] features: u64,
    #[values(50, 1 << 16)] descriptor_bytes: u32,
) {
    let bytes = known(50_000);
    let origin = Origin::file(&bytes);
    let daemon = origin.serve();
    let mut given = Vec::new();
    // The next guest goes on where the last one stopped.
    for spaces in [[1, 64, 4096, 333], [5000, 2, 63, 1500]] {
        let mut options = options(packed);
        options.features |= features;
        options.descriptor_bytes = descriptor_bytes;
        let mut client = daemon.connect(&options);
        for space in spaces {
            let answer = client.ask(space);
            assert_eq!(answer.len(), space as usize);
            given.extend(answer);
        }
    }
    assert_eq!(given, bytes[..given.len()]);
}

/// VIRTIO 1.1 5.4.6: one byte would be enough.
#[rstest]
fn a_request_gets_no_more_than_the_bound(#[values(false, true)] packed: bool) {
    let bytes = known(3 * REQUEST_MAX);
    let origin = Origin::file(&bytes);
    let daemon = origin.serve();
    let mut client = daemon.connect(&options(packed));
    for part in bytes.chunks(REQUEST_MAX).take(2) {
        assert_eq!(client.ask(3 * REQUEST_MAX as u32), part);
    }
}

#[rstest]
fn buffers_are_filled_in_their_order_and_nothing_behind_them(#[values(false, true)] packed: bool) {
    let bytes = known(1008);
    let origin = Origin::file(&bytes);
    let daemon = origin.serve();
    let mut client = daemon.connect(&options(packed));
    let queue = &mut client.0.queues[0];
    let places: [u64; 3] = std::array::from_fn(|_| queue.take_place().unwrap());
    // The last one has more space than there are bytes.
    let lengths = [1, 1000, 20];
    let buffers: Vec<_> = std::iter::zip(places, lengths)
        .map(|(address, length)| Buffer { address, length })
        .collect();
    let ticket = queue.ring().post(&[], &buffers).unwrap();
    queue.kick().unwrap();
    let (answered, written, _) = queue.wait().unwrap();
    assert_eq!((answered, written), (ticket, 1008));
    let read = |place| {
        let mut read = [0xff; 1020];
        client.0.memory().read(place, &mut read).unwrap();
        read
    };
    let mut rest = &bytes[..];
    for (place, filled) in std::iter::zip(places, [1, 1000, 7]) {
        let (now, later) = rest.split_at(filled);
        assert_eq!(read(place)[..filled], *now);
        assert!(read(place)[filled..].iter().all(|byte| *byte == OLD));
        rest = later;
    }
}

#[rstest]
fn readable_parts_mean_nothing(#[values(false, true)] packed: bool) {
    let bytes = known(20);
    let origin = Origin::file(&bytes);
    let daemon = origin.serve();
    let mut client = daemon.connect(&options(packed));
    let queue = &mut client.0.queues[0];
    assert_eq!(queue.call(b"no space at all", 0).unwrap(), (0, Vec::new()));
    assert_eq!(queue.call(b"some", 20).unwrap(), (20, bytes));
}

fn ask_for_the_end(client: &mut Client) {
    client.submit(100);
    for _ in 0..5 {
        client.0.queues[0].kick().unwrap();
        client.assert_waits();
    }
}

/// Zeros are no entropy.
#[rstest]
fn at_the_end_of_the_source_requests_wait_until_it_grows(#[values(false, true)] packed: bool) {
    log::keep();
    let origin = Origin::file(b"ten bytes.");
    let path = origin.path().display().to_string();
    let daemon = origin.serve();
    let mut client = daemon.connect(&options(packed));
    assert_eq!(client.ask(100), b"ten bytes.");
    assert_eq!(log::count(Level::ERROR, &path), 0);
    ask_for_the_end(&mut client);
    assert_eq!(log::count(Level::ERROR, &path), 1, "once, however often it is read");
    origin.writer().write_all(b"more").unwrap();
    assert_eq!(client.wait(), b"more");
    ask_for_the_end(&mut client);
    assert_eq!(log::count(Level::ERROR, &path), 2, "once for each time");
    assert_eq!(log::count(Level::INFO, &path), 1);
}

#[rstest]
fn a_source_that_fails_is_reported_once_and_answers_nothing(#[values(false, true)] packed: bool) {
    log::keep();
    // Address 0 of this process is not mapped: EIO.
    let path = "/proc/self/mem";
    let daemon = Daemon::new(RngOptions {
        source: path.into(),
        rate: None,
    });
    let before = log::count(Level::ERROR, path);
    let mut client = daemon.connect(&options(packed));
    ask_for_the_end(&mut client);
    assert!(log::count(Level::ERROR, path) > before);
}

#[test]
fn options_that_give_no_entropy_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |source, rate| RngDevice::new(RngOptions { source, rate }).unwrap_err();
    let missing = refused(directory.path().join("missing"), None);
    assert!(matches!(missing, Error::Open { .. }), "{missing}");
    let folder = refused(directory.path().into(), None);
    assert!(matches!(folder, Error::Directory { .. }), "{folder}");
    let rate = refused("/dev/urandom".into(), Some(0));
    assert!(matches!(rate, Error::Rate), "{rate}");
}
