//! The guest's loads and stores, the guest's requests and the host's reads and writes use the same pages.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use rstest::rstest;

use super::{MAP_ALIGNMENT, PAGE, PIECE, Terms, begin, pattern, start};
use crate::daemon::Daemon;

#[rstest]
fn the_window_is_announced_and_files_are_marked_for_it(#[values(false, true)] packed: bool) {
    let daemon = Daemon::with_window(3 * PIECE);
    for (name, length) in [("whole", PIECE), ("odd", PIECE + 1)] {
        File::create(daemon.share().join(name))
            .unwrap()
            .set_len(length)
            .unwrap();
    }
    let mut client = begin(&daemon, packed);
    assert_eq!(client.guest.frontend().shared_memory().unwrap()[0], 3 * PIECE);
    assert_eq!(client.memory().size(), 3 * PIECE);
    let both = Terms {
        alignment: Some(PAGE),
        inode_dax: true,
    };
    assert_eq!(client.init_dax(), both);
    let dax_of = |client: &mut crate::daemon::Client, name: &str| {
        let entry = client
            .ask(|requests| requests.lookup(driver::fs::ROOT, name.as_bytes()))
            .unwrap();
        // `attr.flags`, the last field of the entry, of which 2 is FUSE_ATTR_DAX.
        driver::fs::field_u32(&entry, 124) & 2 != 0
    };
    assert!(dax_of(&mut client, "whole"));
    assert!(!dax_of(&mut client, "odd"), "not without views");
    // A guest that did not ask for the second word of flags has no DAX by inode.
    let body = client.ask(|requests| requests.init(45, MAP_ALIGNMENT)).unwrap();
    assert_eq!(driver::fs::field_u32(&body, 28) >> 16, 12, "log2 of the alignment");
    assert!(!dax_of(&mut client, "whole"));
}

#[rstest]
fn mapped_bytes_are_the_files(#[values(false, true)] packed: bool) {
    let (daemon, mut client) = start(4, packed);
    let contents = pattern(3 * PIECE, 1);
    fs::write(daemon.share().join("file"), &contents).unwrap();
    let node = client.node("file");
    // In another order than in the file, with a hole, and no open handle.
    for (file_piece, piece) in [(2, 0), (0, 1), (1, 3)] {
        client
            .map(node, file_piece * PIECE, piece * PIECE, PIECE, false)
            .unwrap();
    }
    for (file_piece, piece) in [(2, 0), (0, 1), (1, 3)] {
        let expected = &contents[(file_piece * PIECE) as usize..][..PIECE as usize];
        assert!(client.load(piece * PIECE, PIECE) == expected, "piece {file_piece}");
    }
    assert!(client.memory().load(2 * PIECE, &mut [0]).is_err(), "the hole");
    assert_eq!((client.window().mapped(), client.window().unmapped()), (3, 0));
}

#[rstest]
fn stores_are_seen_at_once_on_both_sides(#[values(false, true)] packed: bool) {
    let (daemon, mut client) = start(1, packed);
    let path = daemon.share().join("file");
    fs::write(&path, pattern(PIECE, 2)).unwrap();
    let on_host = File::options().read(true).write(true).open(&path).unwrap();
    let node = client.node("file");
    let handle = client.open(node, libc::O_RDWR);
    client.map(node, 0, 0, PIECE, true).unwrap();
    for round in 0..100_u64 {
        let at = round * 20_011 % (PIECE - 8);
        let (by_guest, by_host, by_request) = (round, round << 20, round << 40);

        client.memory().store(at, &by_guest.to_le_bytes()).unwrap();
        let mut seen = [0; 8];
        on_host.read_exact_at(&mut seen, at).unwrap();
        assert_eq!(u64::from_le_bytes(seen), by_guest, "a store, read by the host");
        let seen = client.ask(|requests| requests.read(node, handle, at, 8)).unwrap();
        assert_eq!(seen, by_guest.to_le_bytes(), "a store, read by a request");

        on_host.write_all_at(&by_host.to_le_bytes(), at).unwrap();
        assert_eq!(client.load(at, 8), by_host.to_le_bytes(), "a write of the host");

        let data = by_request.to_le_bytes();
        client.ask(|requests| requests.write(node, handle, at, &data)).unwrap();
        assert_eq!(client.load(at, 8), data, "a write by a request");
    }
    assert_eq!(client.window().asked(), 1, "nobody was asked again");
}

#[rstest]
fn two_guests_see_each_others_stores(#[values(false, true)] packed: bool) {
    let (daemon, mut first) = start(1, packed);
    let other = Daemon::over(&daemon.share(), PIECE);
    let mut second = begin(&other, !packed);
    fs::write(daemon.share().join("file"), vec![0; PIECE as usize]).unwrap();
    for client in [&mut first, &mut second] {
        let node = client.node("file");
        client.map(node, 0, 0, PIECE, true).unwrap();
    }
    for (at, (from, to)) in (0_u64..).zip([(&first, &second), (&second, &first)]) {
        from.memory().store(at * PAGE + 5, b"from the other").unwrap();
        assert_eq!(to.load(at * PAGE + 5, 14), b"from the other");
    }
}

#[rstest]
fn what_the_host_cuts_off_is_gone_and_what_it_appends_is_there(#[values(false, true)] packed: bool) {
    let (daemon, mut client) = start(1, packed);
    let path = daemon.share().join("file");
    fs::write(&path, pattern(4 * PAGE, 3)).unwrap();
    let node = client.node("file");
    // More than the file has, as Linux asks.
    client.map(node, 0, 0, PIECE, true).unwrap();
    assert_eq!(client.load(0, 4 * PAGE), pattern(4 * PAGE, 3));
    let on_host = File::options().write(true).open(&path).unwrap();
    on_host.set_len(PAGE + 10).unwrap();
    let mut expected = pattern(PAGE + 10, 3);
    expected.resize(2 * PAGE as usize, 0);
    assert_eq!(client.load(0, 2 * PAGE), expected);
    on_host.set_len(PIECE).unwrap();
    expected.resize(PIECE as usize, 0);
    assert_eq!(client.load(0, PIECE), expected, "zeros, and not what was there before");
    client.memory().store(PIECE - 4, b"tail").unwrap();
    assert_eq!(&fs::read(&path).unwrap()[PIECE as usize - 4..], b"tail");
}
