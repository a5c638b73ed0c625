//! One virtual machine after another on the same socket, and hiprio beside blocked requests.

use std::fs;
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use driver::fs::{ROOT, field_u64};
use fuse::fs::{Caller, Errno, FileSystem, Handle, NodeId, Result};
use fuse::wire;
use rstest::rstest;
use vhost_user::frontend::Frontend;

use crate::daemon::{Daemon, options};

#[rstest]
fn the_next_guest_starts_anew(#[values(false, true)] packed: bool) {
    let daemon = Daemon::sharing(1);
    fs::write(daemon.share().join("file"), "contents").unwrap();
    // Split and packed take turns: nothing of the former guest's format remains.
    for packed in [packed, !packed, packed] {
        let mut client = daemon.connect(&options(packed, 1));
        let early = client.ask(|requests| requests.getattr(ROOT));
        assert!(early.is_err(), "no session was begun, and none is left over");
        client.init();
        let node = field_u64(&client.ask(|requests| requests.lookup(ROOT, b"file")).unwrap(), 0);
        let handle = field_u64(&client.ask(|requests| requests.open(node, 0)).unwrap(), 0);
        assert_eq!(
            client.ask(|requests| requests.read(node, handle, 0, 100)).unwrap(),
            b"contents"
        );
        // Gone with an open file, and with requests on their way.
        for _ in 0..20 {
            let request = client.requests.read(node, handle, 0, 4096);
            client.guest.queues[1]
                .submit(&request.readable, request.reply_space)
                .unwrap();
        }
    }
}

#[test]
fn a_second_guest_waits_for_the_first_to_go() {
    let daemon = Daemon::sharing(1);
    let mut first = daemon.connect(&options(false, 1));
    first.init();
    let socket = daemon.socket();
    let second = std::thread::spawn(move || driver::Guest::connect(&socket, &options(true, 1)).map(drop));
    first.assert_served();
    drop(first);
    second.join().unwrap().unwrap();
}

#[test]
fn a_connection_without_handshake_is_refused_and_the_next_one_served() {
    // QEMU's file system device does this after its backend went away: no handshake, no memory table.
    let daemon = Daemon::sharing(1);
    let stream = UnixStream::connect(daemon.socket()).unwrap();
    let mut frontend = Frontend::new(stream, Some(Duration::from_secs(30)));
    frontend.set_vring_enable(1, false).unwrap();
    assert_eq!(frontend.vring_base(1).unwrap(), 0);
    frontend.set_vring_num(1, 128).unwrap();
    frontend.set_vring_kick(1, None).unwrap();
    assert_eq!(frontend.vring_base(1).unwrap(), 0, "the connection goes on");
    drop(frontend);
    let mut client = daemon.connect(&options(true, 1));
    client.init();
    client.assert_served();
}

/// Its GETATTR waits until some node is forgotten.
#[derive(Default)]
struct Waiting {
    forgotten: Mutex<bool>,
    changed: Condvar,
}

impl FileSystem for Waiting {
    fn wants(&self, _: wire::InitFlags) -> wire::InitFlags {
        wire::InitFlags::empty()
    }

    fn getattr(&self, _: &Caller, _: NodeId, _: Option<Handle>) -> Result<(wire::Attr, Duration)> {
        let limit = Duration::from_secs(30);
        let guard = self.forgotten.lock().unwrap();
        let (_guard, waited) = self
            .changed
            .wait_timeout_while(guard, limit, |forgotten| !*forgotten)
            .unwrap();
        if waited.timed_out() {
            Err(Errno::EIO)
        } else {
            Err(Errno::EPERM)
        }
    }

    fn forget(&self, _: NodeId, _: u64) -> bool {
        *self.forgotten.lock().unwrap() = true;
        self.changed.notify_all();
        true
    }
}

#[rstest]
fn hiprio_is_served_while_requests_wait(#[values(false, true)] packed: bool) {
    let daemon = Daemon::of(Waiting::default());
    let mut client = daemon.connect(&options(packed, 1));
    client.init();
    let waiting = client.requests.getattr(ROOT);
    client.guest.queues[1]
        .submit(&waiting.readable, waiting.reply_space)
        .unwrap();
    let forget = client.requests.forget(2, 1);
    client.guest.queues[0].call(&forget.readable, 0).unwrap();
    let (_, written, bytes) = client.guest.queues[1].wait().unwrap();
    let reply = driver::fs::reply(&waiting, written, &bytes).unwrap();
    assert_eq!(reply, Err(libc::EPERM), "EIO: it was not woken by the FORGET");
}
