//! Reads that wait for data do not delay the requests behind them, but do delay the end of their queue or session.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use devices::fs::Deferral;
use driver::Ticket;
use driver::fs::{self, ROOT, Requests};
use fuse::fs::{Caller, FileSystem, Handle, NodeId, RestOfRead, Result};
use fuse::wire::{self, InitFlags};
use guestmem::Writer;
use rstest::rstest;
use virtqueue::features::IN_ORDER;

use crate::daemon::{Client, Daemon, options};

const AT_ONCE: &[u8] = b"what is there at once, ";
const LATE: &[u8] = b"and what is not";

/// A file system with one file, the end of which comes only when the gate opens.
#[derive(Clone, Default)]
struct Slow(Arc<State>);

#[derive(Default)]
struct State {
    open: Mutex<bool>,
    news: Condvar,
    /// Reads that wait or have waited.
    begun: AtomicUsize,
    /// Reads left and not finished.
    left: AtomicUsize,
    /// The session ended with a read under way.
    broken: AtomicBool,
}

/// Counts a read until the end of its life, wherever that is.
struct Left(Slow);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.0.left.fetch_sub(1, SeqCst);
    }
}

impl Slow {
    fn open(&self) {
        *self.0.open.lock().unwrap() = true;
        self.0.news.notify_all();
    }

    fn is_open(&self) -> bool {
        *self.0.open.lock().unwrap()
    }

    /// Opens the gate after a while, in which a device that does not wait gives itself away.
    fn open_later(&self) -> thread::JoinHandle<()> {
        let slow = self.clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            slow.open();
        })
    }

    fn wait_until_begun(&self, reads: usize) {
        while self.0.begun.load(SeqCst) < reads {
            thread::yield_now();
        }
    }
}

impl FileSystem for Slow {
    fn wants(&self, _offered: InitFlags) -> InitFlags {
        InitFlags::empty()
    }

    fn destroy(&self) {
        if self.0.left.load(SeqCst) > 0 {
            self.0.broken.store(true, SeqCst);
        }
    }

    fn getattr(&self, _by: &Caller, _node: NodeId, _handle: Option<Handle>) -> Result<(wire::Attr, Duration)> {
        Ok((wire::Attr::default(), Duration::ZERO))
    }

    fn read(&self, _node: NodeId, _handle: Handle, _offset: u64, _len: u32, out: &mut Writer<'_>) -> Result<()> {
        out.write_all(AT_ONCE)?;
        Ok(out.write_all(LATE)?)
    }

    fn read_at_once(
        &self,
        _node: NodeId,
        _handle: Handle,
        _offset: u64,
        _len: u32,
        out: &mut Writer<'_>,
    ) -> Result<Option<RestOfRead>> {
        out.write_all(AT_ONCE)?;
        self.0.left.fetch_add(1, SeqCst);
        let left = Left(self.clone());
        Ok(Some(Box::new(move |out| {
            let Left(Slow(state)) = &left;
            state.begun.fetch_add(1, SeqCst);
            let open = state.open.lock().unwrap();
            drop(state.news.wait_while(open, |open| !*open).unwrap());
            Ok(out.write_all(LATE)?)
        })))
    }
}

/// A guest in a session with it.
struct World {
    slow: Slow,
    client: Client,
    // Behind its client, so that it is dropped after it.
    _daemon: Daemon,
}

impl World {
    fn new(packed: bool) -> World {
        World::with_features(packed, 0)
    }

    fn with_features(packed: bool, features: u64) -> World {
        World::with(packed, features, Deferral::default())
    }

    fn deferring(packed: bool, threads: u16, reads_per_queue: u16) -> World {
        let deferral = Deferral {
            threads,
            reads_per_queue,
        };
        World::with(packed, 0, deferral)
    }

    fn with(packed: bool, features: u64, deferral: Deferral) -> World {
        let slow = Slow::default();
        let daemon = Daemon::deferring(slow.clone(), deferral);
        let mut options = options(packed, 1);
        options.features |= features;
        let mut client = daemon.connect(&options);
        client.init();
        World {
            slow,
            client,
            _daemon: daemon,
        }
    }

    fn submit_read(&mut self) -> Ticket {
        let request = self.client.requests.read(ROOT, 1, 0, 4096);
        self.client.guest.queues[1]
            .submit(&request.readable, request.reply_space)
            .unwrap()
    }

    /// The next answer is that of this read, and whole.
    fn assert_read(&mut self, ticket: Ticket) {
        let answer = self.client.guest.queues[1].wait().unwrap();
        self.assert_is_read(answer, ticket);
    }

    fn assert_is_read(&self, (answered, written, bytes): (Ticket, u32, Vec<u8>), ticket: Ticket) {
        assert_eq!(answered, ticket);
        assert_eq!((written, fs::field_u32(&bytes, 0)), (bytes.len() as u32, written));
        assert_eq!(fs::field_u32(&bytes, 4), 0, "errno");
        assert_eq!(bytes[16..], [AT_ONCE, LATE].concat());
    }
}

impl Drop for World {
    /// A failed test must not wait for ever.
    fn drop(&mut self) {
        self.slow.open();
    }
}

#[rstest]
fn a_getattr_behind_a_read_that_waits_is_answered_first(#[values(false, true)] packed: bool) {
    let mut world = World::new(packed);
    let read = world.submit_read();
    for _ in 0..200 {
        world.client.assert_served();
    }
    assert!(world.client.guest.queues[1].poll().unwrap().is_none());
    world.slow.open();
    world.assert_read(read);
    world.client.assert_served();
}

/// More than there are threads for.
#[rstest]
fn many_reads_wait_at_once_and_all_are_answered(#[values(false, true)] packed: bool) {
    let mut world = World::new(packed);
    let mut reads: Vec<_> = (0..31).map(|_| world.submit_read()).collect();
    world.client.assert_served();
    world.slow.open();
    while !reads.is_empty() {
        let answer = world.client.guest.queues[1].wait().unwrap();
        let index = reads.iter().position(|ticket| *ticket == answer.0);
        let ticket = reads.swap_remove(index.expect("an answer to one of the reads, once"));
        world.assert_is_read(answer, ticket);
    }
    assert!(world.client.guest.queues[1].poll().unwrap().is_none());
}

/// [`Slow`] has all of its data at once for a read on the lane.
#[rstest]
fn reads_beyond_the_limit_are_served_on_the_thread_of_their_queue(#[values(false, true)] packed: bool) {
    let mut world = World::deferring(packed, 16, 2);
    let mut left = vec![world.submit_read(), world.submit_read()];
    for _ in 0..10 {
        let read = world.submit_read();
        world.assert_read(read);
    }
    world.slow.wait_until_begun(2);
    assert_eq!(world.slow.0.left.load(SeqCst), 2);
    world.slow.open();
    while !left.is_empty() {
        let answer = world.client.guest.queues[1].wait().unwrap();
        let index = left.iter().position(|ticket| *ticket == answer.0);
        let ticket = left.swap_remove(index.expect("an answer to one of the first reads"));
        world.assert_is_read(answer, ticket);
    }
}

#[rstest]
fn without_helper_threads_no_read_leaves_its_queue(#[values(false, true)] packed: bool) {
    let mut world = World::deferring(packed, 0, 256);
    for _ in 0..10 {
        let read = world.submit_read();
        world.assert_read(read);
    }
    assert_eq!(world.slow.0.begun.load(SeqCst), 0);
}

#[rstest]
fn no_more_reads_wait_on_the_disk_than_there_are_helper_threads(#[values(false, true)] packed: bool) {
    let mut world = World::deferring(packed, 1, 256);
    let mut left: Vec<_> = (0..3).map(|_| world.submit_read()).collect();
    world.client.assert_served();
    world.slow.wait_until_begun(1);
    assert_eq!(
        (world.slow.0.begun.load(SeqCst), world.slow.0.left.load(SeqCst)),
        (1, 3)
    );
    world.slow.open();
    // One thread keeps their order.
    for ticket in left.drain(..) {
        world.assert_read(ticket);
    }
}

/// VIRTIO 1.1 6: the driver was promised that order.
#[rstest]
fn in_order_a_getattr_waits_for_the_read_before_it(#[values(false, true)] packed: bool) {
    let mut world = World::with_features(packed, IN_ORDER);
    let read = world.submit_read();
    let getattr = world.client.requests.getattr(ROOT);
    let getattr = world.client.guest.queues[1]
        .submit(&getattr.readable, getattr.reply_space)
        .unwrap();
    world.slow.wait_until_begun(1);
    assert!(world.client.guest.queues[1].poll().unwrap().is_none());
    world.slow.open();
    world.assert_read(read);
    assert_eq!(world.client.guest.queues[1].wait().unwrap().0, getattr);
}

#[rstest]
fn a_queue_stops_only_when_its_reads_are_answered(#[values(false, true)] packed: bool) {
    let mut world = World::new(packed);
    let read = world.submit_read();
    world.slow.wait_until_begun(1);
    let opener = world.slow.open_later();
    let base = world.client.guest.stop(1).unwrap();
    assert!(world.slow.is_open(), "the read still writes into memory of the guest");
    let answer = world.client.guest.queues[1].poll().unwrap();
    world.assert_is_read(answer.expect("published before the stop"), read);
    world.client.guest.start(1, base).unwrap();
    world.client.assert_served();
    opener.join().unwrap();
}

#[rstest]
fn memory_goes_only_when_nothing_is_written_there_any_more(#[values(false, true)] packed: bool) {
    let mut world = World::new(packed);
    let read = world.submit_read();
    world.slow.wait_until_begun(1);
    let opener = world.slow.open_later();
    world.client.guest.take_memory_away().unwrap();
    assert!(world.slow.is_open(), "the read still writes into memory of the guest");
    world.client.guest.give_memory_back().unwrap();
    world.assert_read(read);
    world.client.assert_served();
    opener.join().unwrap();
}

#[rstest]
fn a_disabled_ring_completes_what_it_has_taken(#[values(false, true)] packed: bool) {
    let mut world = World::new(packed);
    let read = world.submit_read();
    world.slow.wait_until_begun(1);
    world.client.guest.frontend().set_vring_enable(1, false).unwrap();
    world.slow.open();
    world.assert_read(read);
    world.client.guest.frontend().set_vring_enable(1, true).unwrap();
    world.client.assert_served();
}

#[rstest]
fn a_session_ends_only_when_its_reads_have(#[values(false, true)] packed: bool) {
    let mut world = World::new(packed);
    let read = world.submit_read();
    world.slow.wait_until_begun(1);
    let opener = world.slow.open_later();
    let ended = world.client.ask(Requests::destroy);
    assert!(ended.is_ok() && world.slow.is_open());
    assert!(!world.slow.0.broken.load(SeqCst), "the session went from under a read");
    world.assert_read(read);
    opener.join().unwrap();
}

#[rstest]
fn a_guest_that_goes_leaves_no_read_behind(#[values(false, true)] packed: bool) {
    let slow = Slow::default();
    let daemon = Daemon::of(slow.clone());
    let mut client = daemon.connect(&options(packed, 1));
    client.init();
    let read = client.requests.read(ROOT, 1, 0, 4096);
    client.guest.queues[1].submit(&read.readable, read.reply_space).unwrap();
    slow.wait_until_begun(1);
    let opener = slow.open_later();
    drop(client);
    let mut client = daemon.connect(&options(packed, 1));
    client.init();
    client.assert_served();
    assert!(slow.is_open());
    assert!(!slow.0.broken.load(SeqCst), "the session went from under a read");
    opener.join().unwrap();
}
