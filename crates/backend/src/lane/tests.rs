//! A lane with polling, and one without, against the driver half.

use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;

use rstest::rstest;
use rustix::event::{EventfdFlags, eventfd};
use virtqueue::{Buffer, DriverQueue, QueueConfig};

use super::*;
use crate::Lanes;
use crate::waker::signal;

/// Longer than any test.
const FOR_EVER: Duration = Duration::from_secs(100_000);
const BUFFER: Buffer = Buffer {
    address: 0x8000,
    length: 8,
};

/// Completes every chain, and counts how often it is asked to.
struct Counting {
    turns: Arc<AtomicUsize>,
    rest: Duration,
    /// How long a chain takes.
    work: Duration,
}

impl Lane for Counting {
    fn serve(&mut self, index: u16, queues: &mut Queues) {
        self.turns.fetch_add(1, SeqCst);
        queues.serve(index, |chain| {
            thread::sleep(self.work);
            chain.done(8)
        });
    }

    fn rest(&self) -> Duration {
        self.rest
    }
}

/// A lane at work, and its driver.
struct World {
    driver: DriverQueue,
    kick: OwnedFd,
    lane: Port,
    _handle: LaneHandle,
    turns: Arc<AtomicUsize>,
}

impl World {
    fn new(packed: bool, event_idx: bool, poll: Duration) -> World {
        World::with_rest(packed, event_idx, poll, Duration::ZERO)
    }

    fn with_rest(packed: bool, event_idx: bool, poll: Duration, rest: Duration) -> World {
        World::with_work(packed, event_idx, poll, rest, Duration::ZERO)
    }

    fn with_work(packed: bool, event_idx: bool, poll: Duration, rest: Duration, work: Duration) -> World {
        let (memory, _file) = Memory::memfd("guest", 0x1_0000, 0).unwrap();
        let config = QueueConfig {
            packed,
            size: 8,
            descriptor: 0,
            driver: 0x2000,
            device: 0x3000,
            base: QueueConfig::fresh_base(packed),
            indirect: true,
            event_idx,
            in_order: false,
            chain_limit: QueueConfig::CHAIN_LIMIT,
        };
        let driver = config.drive(&memory).unwrap();
        let kick = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let turns = Arc::new(AtomicUsize::new(0));
        let mut lanes = Lanes::default();
        let counting = Counting {
            turns: Arc::clone(&turns),
            rest,
            work,
        };
        lanes.add(&[0], |_| counting).unwrap();
        let mut handle = LaneHandle::new(
            lanes.0.remove(0),
            Options {
                poll,
                ..Options::default()
            },
        );
        let queue = config.start(&memory).unwrap();
        let mut ring = Ring::new(0, queue, memory.clone(), kick.try_clone().unwrap(), Arc::default());
        ring.enabled = true;
        let lane = handle.start(ring).unwrap();
        World {
            driver,
            kick,
            lane,
            _handle: handle,
            turns,
        }
    }

    /// Posts a chain; whether the lane wants a kick for it.
    fn post(&mut self) -> bool {
        self.driver.post(&[], &[BUFFER]).unwrap();
        self.driver.kick_wanted()
    }

    /// Waits until the lane has served one.
    fn reap(&mut self) {
        while self.driver.reap().unwrap().is_none() {
            thread::yield_now();
        }
    }

    /// Has so many chains served, one after another. Gives how many of them took a kick.
    fn pass(&mut self, chains: usize) -> usize {
        let mut kicks = 0;
        for _ in 0..chains {
            if self.post() {
                signal(&self.kick);
                kicks += 1;
            }
            self.reap();
        }
        kicks
    }

    /// Turns of the lane, once there are no more of them, for longer than a busy machine keeps a thread waiting.
    fn turns_at_rest(&self) -> usize {
        let mut turns = self.turns.load(SeqCst);
        let mut looks_alike = 0;
        while looks_alike < 5 {
            thread::sleep(Duration::from_millis(20));
            let before = std::mem::replace(&mut turns, self.turns.load(SeqCst));
            looks_alike = if turns == before { looks_alike + 1 } else { 0 };
        }
        turns
    }
}

#[rstest]
fn a_lane_that_polls_needs_no_kicks(#[values(false, true)] packed: bool, #[values(false, true)] event_idx: bool) {
    let mut world = World::new(packed, event_idx, FOR_EVER);
    let kicks = world.pass(40);
    // The first wakes it; it may have been about to ask for another meanwhile.
    assert!((1..10).contains(&kicks), "{kicks} kicks");
    assert_eq!(world.pass(40), 0, "a kick would be in vain");
    // A command ends the poll; else this would never return.
    world.lane.stop().unwrap();
}

#[rstest]
fn a_command_is_obeyed_and_polling_goes_on(#[values(false, true)] packed: bool) {
    let mut world = World::new(packed, true, FOR_EVER);
    world.pass(40);
    for _ in 0..10 {
        world.lane.enable(false);
        let turns = world.turns.load(SeqCst);
        assert!(!world.post());
        assert!(world.driver.reap().unwrap().is_none(), "the ring is disabled");
        assert_eq!(world.turns.load(SeqCst), turns);
        world.lane.enable(true);
        world.reap();
        assert_eq!(world.pass(3), 0);
    }
}

#[rstest]
fn a_command_waits_for_a_chain_and_not_for_a_batch(#[values(false, true)] packed: bool) {
    const WORK: Duration = Duration::from_millis(50);
    let mut world = World::with_work(packed, true, Duration::ZERO, Duration::ZERO, WORK);
    for _ in 0..8 {
        world.post();
    }
    signal(&world.kick);
    world.reap();
    world.lane.enable(false);
    let mut served = 1;
    while world.driver.reap().unwrap().is_some() {
        served += 1;
    }
    assert!(served < 8, "the whole batch was served first");
    world.lane.enable(true);
    for _ in served..8 {
        world.reap();
    }
}

#[rstest]
fn a_lane_that_has_nothing_to_do_sleeps(#[values(false, true)] packed: bool, #[values(false, true)] event_idx: bool) {
    let mut world = World::new(packed, event_idx, Duration::from_millis(1));
    for _ in 0..3 {
        world.pass(5);
        let turns = world.turns_at_rest();
        thread::sleep(Duration::from_millis(20));
        assert_eq!(world.turns.load(SeqCst), turns, "nothing woke it");
        assert!(world.post(), "it has asked for a kick");
        signal(&world.kick);
        world.reap();
    }
}

#[rstest]
fn without_polling_every_sleep_ends_with_a_kick(#[values(false, true)] packed: bool) {
    let mut world = World::new(packed, true, Duration::ZERO);
    for _ in 0..20 {
        world.turns_at_rest();
        assert!(world.post());
        signal(&world.kick);
        world.reap();
    }
}

#[rstest]
fn a_lane_that_rests_serves_what_comes_meanwhile_without_kicks(
    #[values(false, true)] packed: bool,
    #[values(false, true)] event_idx: bool,
) {
    let mut world = World::with_rest(packed, event_idx, FOR_EVER, Duration::from_secs(2));
    world.turns_at_rest();
    assert!(world.post());
    signal(&world.kick);
    world.reap();
    let turns = world.turns.load(SeqCst);
    for _ in 0..5 {
        assert!(!world.post(), "it will look by itself");
    }
    for _ in 0..5 {
        world.reap();
    }
    // None more if all came before the lane had left its first batch.
    assert!(world.turns.load(SeqCst) <= turns + 1, "all at once");
    // A command is obeyed within a rest as well.
    world.lane.stop().unwrap();
}

#[rstest]
fn a_rest_that_nothing_comes_in_is_the_last(#[values(false, true)] packed: bool) {
    let mut world = World::with_rest(packed, true, FOR_EVER, Duration::from_millis(1));
    for _ in 0..3 {
        let turns = world.turns_at_rest();
        thread::sleep(Duration::from_millis(20));
        assert_eq!(world.turns.load(SeqCst), turns, "nothing woke it");
        assert!(world.post(), "it has asked for a kick");
        signal(&world.kick);
        world.reap();
    }
}

#[rstest]
fn a_disabled_lane_does_not_wake_from_rests(#[values(false, true)] packed: bool) {
    let mut world = World::with_rest(packed, true, FOR_EVER, Duration::from_millis(1));
    world.turns_at_rest();
    assert!(world.post());
    signal(&world.kick);
    world.reap();
    world.lane.enable(false);
    let turns = world.turns.load(SeqCst);
    world.post();
    thread::sleep(Duration::from_millis(20));
    assert_eq!(world.turns.load(SeqCst), turns);
    world.lane.enable(true);
    world.reap();
}
