//! Daemons that are killed in the middle of their work: the next one completes it (vhost-user's in-flight tracking).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::stdin;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use backend::Session;
use driver::{Guest, Options};
use rstest::rstest;
use rustix::event::{EventfdFlags, eventfd};
use virtqueue::features::{EVENT_IDX, IN_ORDER, INDIRECT_DESC};

use crate::counted::{Counted, QUEUES};

/// The upper half of each request.
const TAG: u64 = 0xfeed_beef;

/// The daemon that is killed: its standard input is the socket, its standard output the log.
#[test]
#[ignore = "another test starts it in a process of its own"]
fn victim() {
    let log = std::io::stdout().as_fd().try_clone_to_owned().unwrap();
    let socket = stdin().as_fd().try_clone_to_owned().unwrap();
    let never = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let device = Counted { log };
    Session::new(socket, &device, backend::Options::default())
        .run(never.as_fd())
        .unwrap();
}

/// A daemon, and a connection to it.
fn start(log: &File) -> (Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed::victim", "--ignored", "--nocapture"])
        .stdin(OwnedFd::from(theirs))
        .stdout(log.try_clone().unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    (child, ours)
}

/// The requests that the daemons have executed, in whatever order. The test harness writes to the same file.
fn executed(log: &Path, requests: u64) -> BTreeSet<u64> {
    let bytes = std::fs::read(log).unwrap();
    let numbers = bytes
        .windows(8)
        .map(|number| u64::from_le_bytes(number.try_into().unwrap()));
    let tagged = numbers.filter(|number| number >> 32 == TAG);
    tagged
        .map(|number| number & 0xffff_ffff)
        .filter(|&number| number < requests)
        .collect()
}

#[rstest]
fn every_request_is_answered_once(
    #[values(false, true)] packed: bool,
    #[values(false, true)] indirect: bool,
    #[values(0, IN_ORDER)] in_order: u64,
) {
    const LIVES: u64 = 12;
    const REQUESTS_A_LIFE: u64 = 300;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let log = File::options().append(true).create(true).open(&path).unwrap();
    let (mut child, stream) = start(&log);
    let options = Options {
        queues: QUEUES,
        packed,
        queue_size: 16,
        features: INDIRECT_DESC | EVENT_IDX | in_order,
        indirect,
        // Request and answer have two descriptors each.
        descriptor_bytes: 5,
        place_size: 4096,
        ..Options::default()
    };
    let mut guest = Guest::attach(stream, &options).unwrap();
    assert!(guest.inflight().is_some());
    let mut waiting = BTreeMap::new();
    let (mut sent, mut answered) = (0, 0);
    for life in 0..LIVES {
        let goal = answered + REQUESTS_A_LIFE;
        let last = life + 1 == LIVES;
        while answered < goal || last && !waiting.is_empty() {
            for (index, queue) in guest.queues.iter_mut().enumerate() {
                while answered < goal && queue.ring().free() >= 4 {
                    let request = TAG << 32 | sent;
                    let ticket = queue.submit(&request.to_le_bytes(), 8).unwrap();
                    assert!(waiting.insert((index, ticket), request).is_none());
                    sent += 1;
                }
                while let Some((ticket, written, bytes)) = queue.poll().unwrap() {
                    let request = waiting.remove(&(index, ticket)).expect("one answer to a request");
                    assert_eq!((written, &bytes[..]), (8, &(request + 1).to_le_bytes()[..]));
                    answered += 1;
                }
            }
            std::thread::yield_now();
        }
        if !last {
            child.kill().unwrap();
            child.wait().unwrap();
            let stream;
            (child, stream) = start(&log);
            guest.reconnect(stream).unwrap();
        }
    }
    assert_eq!(answered, sent);
    drop(guest);
    assert!(child.wait().unwrap().success());
    assert_eq!(executed(&path, sent), (0..sent).collect());
}
