//! Requests that wait for the source or for the rate: they delay nothing else, lose no byte and keep no processor
//! busy.

use std::io::Write;
use std::time::{Duration, Instant};

use devices::rng::RngOptions;
use rstest::rstest;
use tracing::Level;

use crate::driver::{Client, Daemon, Origin, options};
use crate::log;

/// What takes longer hangs.
const LIMIT: Duration = Duration::from_secs(20);

/// Returns once the lane sleeps, which one that is woken again and again never does.
fn await_sleep() {
    let started = Instant::now();
    let is_awake = |task: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
        // The thread's name stands in parentheses, its state behind them.
        stat.contains("(lane-0)") && !stat.contains(") S ")
    };
    while std::fs::read_dir("/proc/self/task").unwrap().any(is_awake) {
        assert!(started.elapsed() < LIMIT, "the lane does not sleep");
        std::thread::yield_now();
    }
}

/// Requests that wait at a FIFO.
struct Waiting {
    client: Client,
    daemon: Daemon,
    origin: Origin,
}

impl Waiting {
    fn new(packed: bool, requests: u32) -> Self {
        let origin = Origin::fifo();
        let daemon = origin.serve();
        let mut client = daemon.connect(&options(packed));
        for _ in 0..requests {
            client.submit(100);
        }
        client.assert_waits();
        Self { client, daemon, origin }
    }

    fn give(&self, bytes: &[u8]) {
        self.origin.writer().write_all(bytes).unwrap();
    }
}

#[rstest]
fn a_request_waits_for_bytes_and_gets_what_came(#[values(false, true)] packed: bool) {
    let mut waiting = Waiting::new(packed, 1);
    for text in ["a", "few", "bytes"] {
        await_sleep();
        waiting.give(text.as_bytes());
        assert_eq!(waiting.client.wait(), text.as_bytes());
        waiting.client.submit(100);
        waiting.client.assert_waits();
    }
    waiting.give(&[b'x'; 130]);
    assert_eq!(waiting.client.wait(), [b'x'; 100]);
    assert_eq!(waiting.client.ask(100), [b'x'; 30]);
}

#[rstest]
fn a_pause_loses_no_request_and_no_byte(#[values(false, true)] packed: bool) {
    let mut waiting = Waiting::new(packed, 20);
    for round in 0..20_u8 {
        waiting.client.assert_waits();
        let base = waiting.client.0.stop(0).unwrap();
        waiting.give(&[round; 3]);
        assert_eq!(waiting.client.poll(), None, "the queue is stopped");
        waiting.client.0.start(0, base).unwrap();
        assert_eq!(waiting.client.wait(), [round; 3]);
    }
    waiting.client.assert_waits();
}

#[rstest]
fn a_disabled_ring_takes_no_byte_and_no_processor(#[values(false, true)] packed: bool) {
    let mut waiting = Waiting::new(packed, 1);
    let enable = |client: &mut Client, on| client.0.frontend().set_vring_enable(0, on).unwrap();
    enable(&mut waiting.client, false);
    waiting.give(b"later");
    // Another command, so that the lane has certainly been woken by then.
    enable(&mut waiting.client, false);
    await_sleep();
    assert_eq!(waiting.client.poll(), None);
    enable(&mut waiting.client, true);
    assert_eq!(waiting.client.wait(), b"later");
}

#[rstest]
fn memory_can_change_meanwhile(#[values(false, true)] packed: bool) {
    let mut waiting = Waiting::new(packed, 1);
    waiting.client.0.take_memory_away().unwrap();
    waiting.give(b"later");
    assert_eq!(waiting.client.poll(), None, "there is no memory to write to");
    waiting.client.0.give_memory_back().unwrap();
    assert_eq!(waiting.client.wait(), b"later");
}

#[rstest]
fn a_reset_ends_the_wait(#[values(false, true)] packed: bool) {
    let mut waiting = Waiting::new(packed, 1);
    let base = waiting.client.0.stop(0).unwrap();
    waiting.client.0.start(0, base).unwrap();
    waiting.client.0.frontend().reset_device().unwrap();
    waiting.give(b"later");
    assert_eq!(waiting.client.poll(), None, "all rings are stopped");
    waiting.client.0.start(0, base).unwrap();
    assert_eq!(waiting.client.wait(), b"later");
}

#[rstest]
fn a_guest_that_goes_leaves_the_bytes_to_the_next(#[values(false, true)] packed: bool) {
    let Waiting { client, daemon, origin } = Waiting::new(packed, 5);
    drop(client);
    let mut next = daemon.connect(&options(packed));
    origin.writer().write_all(b"later").unwrap();
    assert_eq!(next.ask(100), b"later");
}

/// Each writer of this test leaves as soon as it has written.
#[rstest]
fn a_fifo_outlasts_its_writers(#[values(false, true)] packed: bool) {
    log::keep();
    let mut waiting = Waiting::new(packed, 3);
    for _ in 0..3 {
        drop(waiting.origin.writer());
        waiting.client.assert_waits();
        await_sleep();
        waiting.give(b"later");
        assert_eq!(waiting.client.wait(), b"later");
    }
    let path = waiting.origin.path().display().to_string();
    assert_eq!(log::count(Level::ERROR, &path), 0, "that is no end of the source");
}

#[rstest]
fn at_the_end_of_a_file_the_lane_sleeps(#[values(false, true)] packed: bool) {
    let origin = Origin::file(b"");
    let daemon = origin.serve();
    let mut client = daemon.connect(&options(packed));
    client.submit(100);
    client.assert_waits();
    await_sleep();
}

/// A guest of a device that gives so many bytes a second.
fn limited(packed: bool, rate: u64) -> (Client, Daemon) {
    let daemon = Daemon::new(RngOptions {
        rate: Some(rate),
        ..RngOptions::default()
    });
    (daemon.connect(&options(packed)), daemon)
}

#[rstest]
fn a_limited_guest_waits_and_gets_what_it_asked_for(#[values(false, true)] packed: bool) {
    let (mut client, _daemon) = limited(packed, 2000);
    assert_eq!(client.ask(10_000).len(), 2000, "one second's worth at a time");
    assert_eq!(client.ask(500).len(), 500);
    assert_eq!(client.ask(1).len(), 1);
}

/// A device that waits for its chains would take 30 seconds, and answer all of them before it pauses.
#[rstest]
fn a_limited_guest_can_be_paused_and_go(#[values(false, true)] packed: bool) {
    let (mut client, daemon) = limited(packed, 1);
    for _ in 0..30 {
        client.submit(1);
    }
    assert_eq!(client.wait().len(), 1);
    for _ in 0..10 {
        client.pause();
    }
    client.0.take_memory_away().unwrap();
    client.0.give_memory_back().unwrap();
    await_sleep();
    let base = client.0.stop(0).unwrap();
    let paused = std::iter::from_fn(|| client.poll()).count();
    assert!(paused < 29, "nobody waited for the others");
    client.0.start(0, base).unwrap();
    assert_eq!(client.wait().len(), 1);
    drop(client);
    drop(daemon);
}

#[rstest]
fn a_reset_is_no_way_around_the_rate(#[values(false, true)] packed: bool) {
    let rate = 3;
    let started = Instant::now();
    let (mut client, _daemon) = limited(packed, rate);
    for _ in 0..30 {
        client.submit(1);
    }
    for _ in 0..10 {
        client.pause();
        let base = client.0.stop(0).unwrap();
        client.0.frontend().reset_device().unwrap();
        client.0.start(0, base).unwrap();
    }
    client.0.stop(0).unwrap();
    let given = std::iter::from_fn(|| client.poll()).count() as u64;
    let allowed = rate * (started.elapsed().as_secs() + 1) + rate;
    assert!((1..=allowed).contains(&given), "{given} bytes, {allowed} allowed");
}
