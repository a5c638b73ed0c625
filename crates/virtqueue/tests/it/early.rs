//! Interrupts in the middle of a batch, only for a driver that waits.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rstest::rstest;
use virtqueue::{DriverQueue, Early, Queue, QueueConfig};

use crate::world::{self, buffers};

/// Chains of a batch.
const CHAINS: usize = 5;

/// A queue beyond its first interrupt, which comes in any case, with a batch in it; the driver waits for its first chain.
fn start(config: &QueueConfig) -> (DriverQueue, Queue) {
    let (_memory, mut driver, mut queue) = world::start(config);
    assert!(queue.interrupt_wanted(), "the first interrupt");
    for _ in 0..CHAINS {
        driver.post(&[], &buffers(0, &[8])).expect("room");
    }
    assert!(driver.arm_interrupt(), "nothing is used yet");
    (driver, queue)
}

/// Serves the batch. Gives the early interrupts there were before each chain and at the end, and whether one is wanted then.
fn serve(queue: &mut Queue, after: Duration, mut on_interrupt: impl FnMut()) -> (Vec<u32>, bool) {
    let interrupts = Cell::new(0);
    let mut seen = Vec::new();
    let mut interrupt = || {
        interrupts.set(interrupts.get() + 1);
        on_interrupt();
    };
    let early = Early {
        start: std::time::Instant::now(),
        end: &AtomicBool::new(false),
        after,
        interrupt: &mut interrupt,
    };
    let served = queue.serve_early(CHAINS as u32 + 1, early, |chain| {
        seen.push(interrupts.get());
        chain.done(8)
    });
    seen.push(interrupts.get());
    (seen, served.expect("an honest driver").interrupt)
}

fn config(packed: bool, in_order: bool) -> QueueConfig {
    QueueConfig {
        in_order,
        ..world::config(packed, 8)
    }
}

#[rstest]
fn a_driver_that_waits_is_interrupted_at_its_chain_and_not_again(
    #[values(false, true)] packed: bool,
    #[values(false, true)] in_order: bool,
) {
    let (driver, mut queue) = start(&config(packed, in_order));
    let driver = RefCell::new(driver);
    let reaped = Cell::new(0);
    let (interrupts, at_the_end) = serve(&mut queue, Duration::ZERO, || {
        while driver.borrow_mut().reap().expect("an honest device").is_some() {
            reaped.set(reaped.get() + 1);
        }
    });
    assert_eq!(interrupts, [0, 1, 1, 1, 1, 1]);
    assert_eq!(reaped.get(), 1, "the chain is there when the interrupt comes");
    assert!(!at_the_end, "it asked for no other");
}

#[rstest]
fn a_driver_that_waits_again_is_interrupted_again(
    #[values(false, true)] packed: bool,
    #[values(false, true)] in_order: bool,
) {
    let (mut driver, mut queue) = start(&config(packed, in_order));
    let (interrupts, at_the_end) = serve(&mut queue, Duration::ZERO, || {
        while driver.reap().expect("an honest device").is_some() {}
        assert!(driver.arm_interrupt(), "nothing more is used");
    });
    assert_eq!(interrupts, [0, 1, 2, 3, 4, 5]);
    assert!(!at_the_end, "nothing was used since the last");
}

#[rstest]
fn a_driver_that_waits_while_the_batch_is_served_is_interrupted_at_the_end(#[values(false, true)] packed: bool) {
    let (_driver, mut queue) = start(&config(packed, false));
    let (interrupts, at_the_end) = serve(&mut queue, Duration::MAX, || {});
    assert_eq!(interrupts, [0; CHAINS + 1], "a batch may last for ever");
    assert!(at_the_end);
}

#[rstest]
fn a_driver_that_does_not_wait_is_left_alone(#[values(false, true)] packed: bool) {
    let (mut driver, mut queue) = start(&config(packed, false));
    driver.disarm_interrupt();
    let (interrupts, at_the_end) = serve(&mut queue, Duration::ZERO, || {});
    assert_eq!(interrupts, [0; CHAINS + 1]);
    assert!(!at_the_end);
}

#[rstest]
fn a_driver_that_cannot_tell_what_it_waits_for_gets_one_interrupt_a_batch(#[values(false, true)] packed: bool) {
    let (_driver, mut queue) = start(&QueueConfig {
        event_idx: false,
        ..world::config(packed, 8)
    });
    let (interrupts, at_the_end) = serve(&mut queue, Duration::ZERO, || {});
    assert_eq!(interrupts, [0; CHAINS + 1]);
    assert!(at_the_end);
}

#[rstest]
fn a_batch_that_is_ended_goes_on_with_the_next_call(
    #[values(false, true)] packed: bool,
    #[values(false, true)] in_order: bool,
) {
    let (_driver, mut queue) = start(&config(packed, in_order));
    let end = AtomicBool::new(false);
    let early = Early {
        start: std::time::Instant::now(),
        end: &end,
        after: Duration::MAX,
        interrupt: &mut || {},
    };
    let mut served = 0;
    let batch = queue.serve_early(CHAINS as u32 + 1, early, |chain| {
        served += 1;
        end.store(served == 2, Ordering::Relaxed);
        chain.done(8)
    });
    let batch = batch.expect("an honest driver");
    assert!(batch.more, "no kick will come");
    assert!(batch.interrupt, "for what is done");
    assert_eq!(served, 2);
    let rest = queue.serve(CHAINS as u32 + 1, |chain| {
        served += 1;
        chain.done(8)
    });
    assert!(!rest.expect("an honest driver").more);
    assert_eq!(served, CHAINS);
}
