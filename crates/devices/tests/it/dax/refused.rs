//! Refused mappings: the guest gets an errno for that request, and everything else continues.

use std::fs::{self, File};
use std::path::Path;

use driver::fs::field_u32;
use driver::{Answers, Options, RangeError};
use fuse::passthrough;
use rstest::rstest;
use rustix::io::Errno;
use vhost_user::ProtocolFeatures;

use super::{PAGE, PIECE, Terms, begin, begin_with, pattern, start};
use crate::daemon::{Daemon, options};

#[rstest]
fn ranges_off_the_alignment_or_the_window_are_refused(#[values(false, true)] packed: bool) {
    let (daemon, mut client) = start(1, packed);
    fs::write(daemon.share().join("file"), pattern(PIECE, 1)).unwrap();
    let node = client.node("file");
    let top = u64::MAX - (PAGE - 1);
    for (file_offset, offset, length) in [
        (1, 0, PAGE),
        (512, 0, PAGE),
        (0, 1, PAGE),
        (0, 0, PAGE - 1),
        (0, 0, 0),
        (0, PIECE, PAGE),
        (0, PAGE, PIECE),
        (0, top, PAGE),
        (0, PAGE, top),
        (top, 0, PAGE),
        (1 << 63, 0, PAGE),
        ((1 << 63) - PAGE, 0, 2 * PAGE),
    ] {
        let refused = client.map(node, file_offset, offset, length, true);
        assert_eq!(refused, Err(libc::EINVAL), "{file_offset} {offset} {length}");
    }
    let mut request = client.requests.set_up_mapping(node, 0, 0, PAGE, true);
    request.readable[driver::fs::IN_HEADER + 24] = 4; // an unknown flag
    assert_eq!(client.ask_on(1, &request), Err(libc::EINVAL));
    assert_eq!(client.window().asked(), 0, "the front end hears nothing of it");
    client.map(node, PAGE, PIECE - PAGE, PAGE, true).unwrap();
}

#[rstest]
fn a_read_only_share_is_mapped_for_reading_alone(#[values(false, true)] packed: bool) {
    let read_only = passthrough::Options {
        readonly: true,
        ..passthrough::Options::default()
    };
    let daemon = Daemon::with_window_and(PIECE, read_only);
    fs::write(daemon.share().join("file"), pattern(PIECE, 1)).unwrap();
    let mut client = begin(&daemon, packed);
    let node = client.node("file");
    assert_eq!(client.map(node, 0, 0, PIECE, true), Err(libc::EROFS));
    assert_eq!(client.window().asked(), 0);
    client.map(node, 0, 0, PIECE, false).unwrap();
    assert_eq!(client.load(0, PIECE), pattern(PIECE, 1));
    let refused = client.memory().store(0, b"store");
    assert_eq!(refused, Err(RangeError::ReadOnly { offset: 0 }));
    assert_eq!(client.map(node, 0, 0, PIECE, true), Err(libc::EROFS));
    assert_eq!(client.load(0, 8), pattern(8, 1), "still there");
}

#[rstest]
fn what_cannot_be_mapped_is_refused_as_by_mmap(#[values(false, true)] packed: bool) {
    let (daemon, mut client) = start(1, packed);
    fs::create_dir(daemon.share().join("directory")).unwrap();
    fs::write(daemon.share().join("empty"), "").unwrap();
    fs::write(daemon.share().join("file"), pattern(PAGE, 1)).unwrap();
    let node = client.node("directory");
    assert_eq!(client.map(node, 0, 0, PAGE, false), Err(libc::ENODEV));
    // A front end would make it longer.
    let node = client.node("empty");
    assert_eq!(client.map(node, 0, 0, PAGE, false), Err(libc::EIO));
    assert!(client.map(4711, 0, 0, PAGE, false).is_err(), "no such node");
    assert_eq!(client.window().asked(), 0);
    let node = client.node("file");
    client.map(node, 0, 0, PAGE, false).unwrap();
}

#[rstest]
fn files_of_procfs_are_read_but_not_mapped(#[values(false, true)] packed: bool) {
    let daemon = Daemon::over(Path::new("/proc/self"), PIECE);
    let mut client = begin(&daemon, packed);
    let node = client.node("status");
    assert_eq!(client.map(node, 0, 0, PAGE, false), Err(libc::ENODEV));
    assert_eq!(client.window().asked(), 0);
    let handle = client.open(node, libc::O_RDONLY);
    let read = client.ask(|requests| requests.read(node, handle, 0, 4096)).unwrap();
    assert!(read.starts_with(b"Name:"));
}

#[rstest]
fn a_front_end_that_refuses_costs_that_request(#[values(false, true)] packed: bool) {
    let (daemon, mut client) = start(1, packed);
    for (seed, name) in (1..).zip(["a", "b"]) {
        fs::write(daemon.share().join(name), pattern(4 * PAGE, seed)).unwrap();
    }
    let (a, b) = (client.node("a"), client.node("b"));
    client.window().answer(Answers::RefuseMap(Errno::MFILE));
    assert_eq!(client.map(a, 0, 0, 4 * PAGE, true), Err(libc::ENOMEM));
    client.window().answer(Answers::Serve);
    client.map(a, 0, 0, 4 * PAGE, true).unwrap();

    // What had to go for it is put back.
    client.window().answer(Answers::RefuseNextMap(Errno::NOMEM));
    assert_eq!(client.map(b, 0, 0, 4 * PAGE, true), Err(libc::ENOMEM));
    assert_eq!(client.load(0, 4 * PAGE), pattern(4 * PAGE, 1));
    client.map(b, 0, 0, 4 * PAGE, true).unwrap();
    assert_eq!(client.load(0, 4 * PAGE), pattern(4 * PAGE, 2));

    // A front end that cannot even do that: the guest hears of the failure, and can try again.
    client.window().answer(Answers::RefuseMap(Errno::NOMEM));
    assert_eq!(client.map(a, 0, 0, 4 * PAGE, true), Err(libc::ENOMEM));
    client.window().answer(Answers::Serve);
    client.map(a, 0, 0, 4 * PAGE, true).unwrap();
    assert_eq!(client.load(0, 4 * PAGE), pattern(4 * PAGE, 1));
    client.unmap(&[(0, PIECE)]).unwrap();
    assert_eq!(client.memory().count(), 0);
}

#[rstest]
fn dax_is_off_where_the_front_end_lacks_what_it_takes(
    #[values(false, true)] packed: bool,
    #[values(
        ProtocolFeatures::REPLY_ACK,
        ProtocolFeatures::SHMEM,
        ProtocolFeatures::BACKEND_REQ,
        ProtocolFeatures::BACKEND_SEND_FD,
        // Nothing is missing but the channel.
        ProtocolFeatures::empty()
    )]
    missing: ProtocolFeatures,
) {
    let daemon = Daemon::with_window(PIECE);
    File::create(daemon.share().join("file"))
        .unwrap()
        .set_len(PIECE)
        .unwrap();
    let mut client = daemon.connect(&Options {
        protocol_features: ProtocolFeatures::all() - missing,
        window: !missing.is_empty(),
        ..options(packed, 1)
    });
    let off = Terms {
        alignment: None,
        inode_dax: false,
    };
    assert_eq!(client.init_dax(), off);
    let entry = client
        .ask(|requests| requests.lookup(driver::fs::ROOT, b"file"))
        .unwrap();
    assert_eq!(field_u32(&entry, 124), 0, "FUSE_ATTR_DAX");
    let node = client.node("file");
    assert_eq!(client.map(node, 0, 0, PIECE, false), Err(libc::ENOSYS));
    assert_eq!(client.unmap(&[(0, PIECE)]), Err(libc::ENOSYS));
    client.assert_served();
    drop(client);
    // The next front end has it all.
    let mut client = begin_with(&daemon, &options(packed, 1));
    let node = client.node("file");
    client.map(node, 0, 0, PIECE, false).unwrap();
}
