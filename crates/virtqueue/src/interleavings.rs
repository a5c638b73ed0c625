//! Loom checks that no wake-up is lost: the notification code of both halves and formats, under all interleavings and
//! reorderings that the memory model allows.
//!
//! One side works until nothing is left, requests a notification and sleeps. The other adds work and notifies if
//! requested. A lost wake-up is a deadlock, and loom finds it. Each check has two mutants that must fail: one without
//! the full fences, one that sleeps without a second check.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use loom::sync::Notify;
use loom::sync::atomic::{AtomicU64, fence};
use rstest::rstest;

use crate::layout::Descriptor;
use crate::layout::packed::Position;
use crate::words::Words;
use crate::{driver, packed, split};

/// Chains that pass; the second may find the sleeper in any state.
const CHAINS: u16 = 2;
/// Queue size.
const SIZE: u16 = 2;

/// Preemptions a run; waiting and ending are none.
const PREEMPTIONS: usize = 4;

/// Memory in loom's model. Each word is one of its atomics: no two words of a ring overlap.
#[derive(Debug)]
struct Modelled<const FENCE: bool>(Arc<Vec<(usize, AtomicU64)>>);

impl<const FENCE: bool> Modelled<FENCE> {
    fn new(offsets: &[usize]) -> Self {
        Modelled(Arc::new(
            offsets.iter().map(|&offset| (offset, AtomicU64::new(0))).collect(),
        ))
    }

    /// The same memory, for the other half.
    fn share(&self) -> Self {
        Modelled(Arc::clone(&self.0))
    }

    fn at(&self, offset: usize) -> &AtomicU64 {
        &self
            .0
            .iter()
            .find(|(at, _)| *at == offset)
            .expect("an offset of the layout")
            .1
    }
}

impl<const FENCE: bool> Words for Modelled<FENCE> {
    fn load_u16(&self, offset: usize, order: Ordering) -> u16 {
        self.at(offset).load(order) as u16
    }

    fn store_u16(&self, offset: usize, value: u16, order: Ordering) {
        self.at(offset).store(value.into(), order);
    }

    fn load_u32(&self, offset: usize, order: Ordering) -> u32 {
        self.at(offset).load(order) as u32
    }

    fn store_u32(&self, offset: usize, value: u32, order: Ordering) {
        self.at(offset).store(value.into(), order);
    }

    fn load_u64(&self, offset: usize, order: Ordering) -> u64 {
        self.at(offset).load(order)
    }

    fn store_u64(&self, offset: usize, value: u64, order: Ordering) {
        self.at(offset).store(value, order);
    }

    fn fence() {
        if FENCE {
            fence(Ordering::SeqCst);
        }
    }
}

/// The side that sleeps.
trait Sleeper {
    /// Takes the next chain, which must be number `which` with all its bytes, if there is one.
    fn take(&mut self, which: u16) -> bool;
    fn disarm(&mut self);
    fn arm(&mut self) -> bool;
}

/// The side that adds work.
trait Waker {
    fn add(&mut self, which: u16);
    fn wanted(&mut self) -> bool;
}

/// Waits for kicks.
impl<W: Words> Sleeper for split::Rings<W> {
    fn take(&mut self, which: u16) -> bool {
        let head = self.head().expect("an honest driver");
        assert!(
            head.is_none_or(|head| head == which),
            "an index was seen without its entry"
        );
        self.advance(u16::from(head.is_some()));
        head.is_some()
    }

    fn disarm(&mut self) {
        self.disarm_kick();
    }

    fn arm(&mut self) -> bool {
        self.arm_kick()
    }
}

/// Waits for kicks.
impl<W: Words> Sleeper for packed::Slots<W> {
    fn take(&mut self, which: u16) -> bool {
        let Some(head) = self.head() else { return false };
        assert_eq!(
            (head.link, head.address),
            (which, address(which)),
            "flags were seen without their descriptor"
        );
        self.advance(1);
        true
    }

    fn disarm(&mut self) {
        self.disarm_kick(false);
    }

    fn arm(&mut self) -> bool {
        self.arm_kick()
    }
}

/// Waits for interrupts.
impl<W: Words> Sleeper for driver::Rings<W> {
    fn take(&mut self, which: u16) -> bool {
        let Some(element) = self.used().expect("an honest device") else {
            return false;
        };
        assert_eq!(
            element,
            (which.into(), written(which)),
            "an index was seen without its element"
        );
        self.consume();
        true
    }

    fn disarm(&mut self) {
        self.disarm_interrupt();
    }

    fn arm(&mut self) -> bool {
        self.arm_interrupt()
    }
}

/// Waits for interrupts.
impl<W: Words> Sleeper for driver::Slots<W> {
    fn take(&mut self, which: u16) -> bool {
        let Some(used) = self.used() else { return false };
        assert_eq!(used, (which.into(), written(which)));
        self.consume(1);
        true
    }

    fn disarm(&mut self) {
        self.disarm_interrupt();
    }

    fn arm(&mut self) -> bool {
        self.arm_interrupt()
    }
}

/// Kicks.
impl<W: Words> Waker for driver::Rings<W> {
    fn add(&mut self, which: u16) {
        self.publish(which);
    }

    fn wanted(&mut self) -> bool {
        self.kick_wanted()
    }
}

/// Kicks.
impl<W: Words> Waker for driver::Slots<W> {
    fn add(&mut self, which: u16) {
        self.publish(
            &[Descriptor {
                address: address(which),
                length: 1,
                flags: 0,
                link: 0,
            }],
            which,
        );
    }

    fn wanted(&mut self) -> bool {
        self.kick_wanted()
    }
}

/// Interrupts.
impl<W: Words> Waker for split::Rings<W> {
    fn add(&mut self, which: u16) {
        self.push_used(which, written(which), 1);
    }

    fn wanted(&mut self) -> bool {
        self.interrupt_wanted()
    }
}

/// Interrupts.
impl<W: Words> Waker for packed::Slots<W> {
    fn add(&mut self, which: u16) {
        self.push_used(which, written(which), 1);
    }

    fn wanted(&mut self) -> bool {
        self.interrupt_wanted()
    }
}

/// A device that also interrupts in the middle of a batch. The decision at its end is all that may be relied on.
struct Early<R> {
    ring: R,
    left: u16,
}

impl<R: Waker + Device> Waker for Early<R> {
    fn add(&mut self, which: u16) {
        self.ring.add(which);
        self.left -= 1;
    }

    fn wanted(&mut self) -> bool {
        (self.left == 0 || self.ring.is_awaited()) && self.ring.wanted()
    }
}

trait Device {
    fn is_awaited(&self) -> bool;
}

impl<W: Words> Device for split::Rings<W> {
    fn is_awaited(&self) -> bool {
        self.is_awaited(0)
    }
}

impl<W: Words> Device for packed::Slots<W> {
    fn is_awaited(&self) -> bool {
        self.is_awaited(0)
    }
}

/// What chain `which` has in its descriptor.
fn address(which: u16) -> u64 {
    0x1000 + u64::from(which)
}

/// What chain `which` has in its used element.
fn written(which: u16) -> u32 {
    7 + u32::from(which)
}

/// Both halves of a fresh split queue.
fn split<const FENCE: bool>(event_idx: bool) -> (driver::Rings<Modelled<FENCE>>, split::Rings<Modelled<FENCE>>) {
    let available = Modelled::new(&[0, 2, 4, 6, 8]);
    let used = Modelled::new(&[0, 2, 4, 8, 12, 16, 20]);
    let driver = driver::Rings::new(available.share(), used.share(), SIZE, event_idx, 0);
    (driver, split::Rings::new(available, used, SIZE, event_idx, 0))
}

/// Both halves of a fresh packed queue.
fn packed<const FENCE: bool>(event_idx: bool) -> (driver::Slots<Modelled<FENCE>>, packed::Slots<Modelled<FENCE>>) {
    let areas = [Modelled::new(&[0, 8, 16, 24]), Modelled::new(&[0]), Modelled::new(&[0])];
    let shared = [areas[0].share(), areas[1].share(), areas[2].share()];
    let start = Position { slot: 0, wrap: true };
    let driver = driver::Slots::new(shared, SIZE, event_idx, start, start);
    (driver, packed::Slots::new(areas, SIZE, event_idx, start, start))
}

/// Passes all chains from one thread to another that sleeps whenever it finds none; without `look_again` it sleeps
/// although it was told that one has slipped in.
fn pass(mut waker: impl Waker + 'static, mut sleeper: impl Sleeper, look_again: bool) {
    let bell = Arc::new(Notify::new());
    let ring = Arc::clone(&bell);
    let other = loom::thread::spawn(move || {
        for which in 0..CHAINS {
            waker.add(which);
            if waker.wanted() {
                ring.notify();
            }
        }
    });
    let mut taken = 0;
    loop {
        sleeper.disarm();
        while sleeper.take(taken) {
            taken += 1;
        }
        if taken == CHAINS {
            break;
        }
        if sleeper.arm() || !look_again {
            bell.wait();
        }
    }
    other.join().expect("the waker does not panic");
}

/// Tries every run in which threads are preempted at most as often as it takes to see every mutant fail, and then some;
/// unbounded, the longest of these takes minutes.
fn explore(run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(run);
}

/// The driver posts and kicks, the device sleeps.
fn kicks<const FENCE: bool>(is_packed: bool, event_idx: bool, look_again: bool) {
    explore(move || {
        if is_packed {
            let (driver, device) = packed::<FENCE>(event_idx);
            pass(driver, device, look_again);
        } else {
            let (driver, device) = split::<FENCE>(event_idx);
            pass(driver, device, look_again);
        }
    });
}

/// The device has taken all chains, and now uses them and interrupts; the driver sleeps.
fn interrupts<const FENCE: bool>(is_packed: bool, event_idx: bool, early: bool, look_again: bool) {
    explore(move || {
        if is_packed {
            let (mut driver, mut device) = packed::<FENCE>(event_idx);
            (0..CHAINS).for_each(|which| driver.add(which));
            device.advance(CHAINS);
            assert!(
                device.interrupt_wanted(),
                "the first decision is always yes and would hide the others"
            );
            deliver(device, driver, early, look_again);
        } else {
            let (mut driver, mut device) = split::<FENCE>(event_idx);
            (0..CHAINS).for_each(|which| driver.add(which));
            device.advance(CHAINS);
            assert!(
                device.interrupt_wanted(),
                "the first decision is always yes and would hide the others"
            );
            deliver(device, driver, early, look_again);
        }
    });
}

fn deliver(device: impl Waker + Device + 'static, driver: impl Sleeper, early: bool, look_again: bool) {
    if early {
        let (ring, left) = (device, CHAINS);
        pass(Early { ring, left }, driver, look_again);
    } else {
        pass(device, driver, look_again);
    }
}

#[rstest]
fn no_kick_is_lost(#[values(false, true)] packed: bool, #[values(false, true)] event_idx: bool) {
    kicks::<true>(packed, event_idx, true);
}

#[rstest]
fn no_interrupt_is_lost(
    #[values(false, true)] packed: bool,
    #[values(false, true)] event_idx: bool,
    #[values(false, true)] early: bool,
) {
    interrupts::<true>(packed, event_idx, early, true);
}

#[rstest]
#[should_panic(expected = "deadlock")]
fn a_kick_is_lost_without_fences(#[values(false, true)] packed: bool, #[values(false, true)] event_idx: bool) {
    kicks::<false>(packed, event_idx, true);
}

#[rstest]
#[should_panic(expected = "deadlock")]
fn an_interrupt_is_lost_without_fences(
    #[values(false, true)] packed: bool,
    #[values(false, true)] event_idx: bool,
    #[values(false, true)] early: bool,
) {
    interrupts::<false>(packed, event_idx, early, true);
}

#[rstest]
#[should_panic(expected = "deadlock")]
fn a_kick_is_lost_without_a_second_look(#[values(false, true)] packed: bool, #[values(false, true)] event_idx: bool) {
    kicks::<true>(packed, event_idx, false);
}

#[rstest]
#[should_panic(expected = "deadlock")]
fn an_interrupt_is_lost_without_a_second_look(
    #[values(false, true)] packed: bool,
    #[values(false, true)] event_idx: bool,
    #[values(false, true)] early: bool,
) {
    interrupts::<true>(packed, event_idx, early, false);
}
