//! Random drivers and devices against a model of a queue's guarantees. Every chain arrives once, in order, with its
//! bytes; every completion comes back once, with its length and its bytes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use guestmem::Memory;
use proptest::prelude::*;
use rstest::rstest;
use virtqueue::{Buffer, DriverQueue, Early, Pending, Queue, QueueConfig, Token};

use crate::world::{self, buffers, table};

/// Chains outstanding at a time, as many as there are arenas.
const ARENAS: u64 = 64;

#[derive(Debug, Clone)]
enum Step {
    Post {
        readable: Vec<u32>,
        writable: Vec<u32>,
        indirect: bool,
    },
    Serve {
        budget: u32,
        plans: Vec<Plan>,
        early: bool,
    },
    Complete {
        which: usize,
        plan: Plan,
    },
    Reap {
        most: usize,
    },
    /// Both ends of `GET_VRING_BASE` and `SET_VRING_BASE`.
    Restart,
}

#[derive(Debug, Clone, Copy)]
enum Plan {
    Fill,
    Write(u32),
    Keep,
    PutBack,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lengths = || proptest::collection::vec(1u32..80, 0..5);
    let plan = || {
        prop_oneof![
            3 => Just(Plan::Fill),
            3 => (0u32..300).prop_map(Plan::Write),
            3 => Just(Plan::Keep),
            1 => Just(Plan::PutBack),
        ]
    };
    let step = prop_oneof![
        6 => (lengths(), lengths(), any::<bool>())
            .prop_map(|(readable, writable, indirect)| Step::Post { readable, writable, indirect }),
        3 => (1u32..6, proptest::collection::vec(plan(), 6), any::<bool>())
            .prop_map(|(budget, plans, early)| Step::Serve { budget, plans, early }),
        3 => (any::<usize>(), plan()).prop_map(|(which, plan)| Step::Complete { which, plan }),
        2 => (1usize..8).prop_map(|most| Step::Reap { most }),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..120)
}

/// A chain, as the model follows it.
#[derive(Debug)]
struct Posted {
    serial: u64,
    token: Token,
    arena: u64,
    readable: Vec<Buffer>,
    writable: Vec<Buffer>,
    /// Bytes the device wrote, once it is done.
    written: Option<u32>,
}

impl Posted {
    fn space(&self) -> u32 {
        self.writable.iter().map(|buffer| buffer.length).sum()
    }
}

struct World {
    config: QueueConfig,
    memory: Memory,
    driver: DriverQueue,
    queue: Queue,
    serial: u64,
    arenas: Vec<u64>,
    /// Posted and not seen by the device.
    fresh: VecDeque<Posted>,
    /// Taken by the device, by serial number; done or not.
    taken: BTreeMap<u64, Posted>,
    kept: Vec<(u64, Pending)>,
    /// Serial numbers in the order of completion.
    done: VecDeque<u64>,
}

/// What a chain carries in one direction: any byte at the wrong place shows.
fn pattern(serial: u64, answer: bool, length: usize) -> Vec<u8> {
    let start = serial.wrapping_mul(31).wrapping_add(if answer { 128 } else { 0 });
    (0..length as u64)
        .map(|index| (start.wrapping_add(index * 7) % 251) as u8)
        .collect()
}

fn scatter(memory: &Memory, buffers: &[Buffer], bytes: &[u8]) {
    let mut rest = bytes;
    for buffer in buffers {
        let (now, later) = rest.split_at(buffer.length as usize);
        memory.write(buffer.address, now).expect("a buffer");
        rest = later;
    }
}

fn gather(memory: &Memory, buffers: &[Buffer], length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for buffer in buffers {
        let mut part = vec![0; buffer.length as usize];
        memory.read(buffer.address, &mut part).expect("a buffer");
        bytes.extend(part);
    }
    bytes.truncate(length);
    bytes
}

impl World {
    fn new(config: QueueConfig) -> World {
        let (memory, driver, queue) = world::start(&config);
        let (arenas, fresh, taken) = ((0..ARENAS).collect(), VecDeque::new(), BTreeMap::new());
        World {
            config,
            memory,
            driver,
            queue,
            serial: 0,
            arenas,
            fresh,
            taken,
            kept: Vec::new(),
            done: VecDeque::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Post {
                readable,
                writable,
                indirect,
            } => self.post(readable, writable, *indirect),
            Step::Serve { budget, plans, early } => self.serve(*budget, plans, *early),
            Step::Complete { which, plan } => self.complete(*which, *plan),
            Step::Reap { most } => self.reap(*most),
            Step::Restart => self.restart(),
        }
    }

    fn post(&mut self, readable: &[u32], writable: &[u32], indirect: bool) {
        let (count, size) = (readable.len() + writable.len(), self.config.size as usize);
        let indirect = indirect && self.config.indirect;
        let needed = if indirect { 1 } else { count };
        if count == 0 || count > size || needed > self.driver.free() as usize {
            return;
        }
        let Some(arena) = self.arenas.pop() else { return };
        let mut all = buffers(arena, &[readable, writable].concat());
        let writable = all.split_off(readable.len());
        let length = all.iter().map(|buffer| buffer.length as usize).sum();
        scatter(&self.memory, &all, &pattern(self.serial, false, length));
        let token = if indirect {
            self.driver.post_indirect(table(arena), &all, &writable)
        } else {
            self.driver.post(&all, &writable)
        };
        let token = token.expect("there was room");
        let serial = self.serial;
        self.serial += 1;
        self.fresh.push_back(Posted {
            serial,
            token,
            arena,
            readable: all,
            writable,
            written: None,
        });
    }

    fn serve(&mut self, budget: u32, plans: &[Plan], early: bool) {
        let (mut served, mut put_back) = (0, false);
        let available = self.fresh.len();
        let World {
            fresh,
            taken,
            kept,
            done,
            ..
        } = self;
        if early {
            self.driver.arm_interrupt();
        }
        let mut interrupt = || {};
        let early = Early {
            start: std::time::Instant::now(),
            end: &AtomicBool::new(false),
            after: if early { Duration::ZERO } else { Duration::MAX },
            interrupt: &mut interrupt,
        };
        let result = self.queue.serve_early(budget, early, |mut chain| {
            let mut posted = fresh.pop_front().expect("no chain that was not posted");
            let plan = plans[served % plans.len()];
            let length: u32 = posted.readable.iter().map(|buffer| buffer.length).sum();
            assert_eq!(chain.writer.remaining(), posted.space() as usize);
            assert_eq!(chain.reader.remaining(), length as usize);
            let half = length as usize / 2;
            let mut bytes = chain.reader.read_to_vec(half).expect("these bytes");
            if matches!(plan, Plan::PutBack) {
                put_back = true;
                fresh.push_front(posted);
                return chain.put_back();
            }
            served += 1;
            if matches!(plan, Plan::Keep) {
                let (pending, outcome) = chain.keep();
                let (mut reader, _) = pending.open();
                bytes.extend(reader.read_to_vec(reader.remaining()).expect("the other half"));
                assert_eq!(bytes, pattern(posted.serial, false, length as usize));
                kept.push((posted.serial, pending));
                taken.insert(posted.serial, posted);
                return outcome;
            }
            bytes.extend(
                chain
                    .reader
                    .read_to_vec(length as usize - half)
                    .expect("the other half"),
            );
            assert_eq!(bytes, pattern(posted.serial, false, length as usize));
            let written = posted
                .space()
                .min(if let Plan::Write(most) = plan { most } else { u32::MAX });
            chain
                .writer
                .write_all(&pattern(posted.serial, true, written as usize))
                .expect("room");
            posted.written = Some(written);
            done.push_back(posted.serial);
            taken.insert(posted.serial, posted);
            chain.done(written)
        });
        let result = result.expect("an honest driver");
        assert_eq!(
            served,
            available
                .min(budget as usize)
                .min(if put_back { served } else { usize::MAX })
        );
        assert_eq!(
            result.more,
            served == budget as usize,
            "more chains may wait only if the budget is used up"
        );
        assert_eq!(self.queue.in_flight() as usize, self.kept.len());
    }

    fn complete(&mut self, which: usize, plan: Plan) {
        if self.kept.is_empty() {
            return;
        }
        let (serial, pending) = self.kept.swap_remove(which % self.kept.len());
        let posted = self.taken.get_mut(&serial).expect("taken");
        let written = posted
            .space()
            .min(if let Plan::Write(most) = plan { most } else { u32::MAX });
        let (_, mut writer) = pending.open();
        writer
            .write_all(&pattern(serial, true, written as usize))
            .expect("room");
        posted.written = Some(written);
        self.done.push_back(serial);
        self.queue.complete(pending, written);
        self.queue.interrupt_wanted();
    }

    fn reap(&mut self, most: usize) {
        for _ in 0..most {
            let expected = if self.config.in_order {
                self.taken
                    .first_key_value()
                    .filter(|(_, posted)| posted.written.is_some())
                    .map(|(serial, _)| *serial)
            } else {
                self.done.pop_front()
            };
            let reaped = self.driver.reap().expect("an honest device");
            let Some(serial) = expected else {
                assert_eq!(reaped, None, "nothing is done");
                return;
            };
            let posted = self.taken.remove(&serial).expect("taken");
            let written = posted.written.expect("done");
            assert_eq!(reaped, Some((posted.token, written)), "chain {serial}");
            let bytes = gather(&self.memory, &posted.writable, written as usize);
            assert_eq!(bytes, pattern(serial, true, written as usize));
            self.arenas.push(posted.arena);
        }
    }

    fn restart(&mut self) {
        let Ok(position) = self.queue.position() else {
            assert!(!self.kept.is_empty());
            return;
        };
        assert!(self.kept.is_empty());
        self.config.base = position;
        self.queue = self.config.start(&self.memory).expect("its own position");
        assert!(
            self.queue.interrupt_wanted(),
            "a predecessor may have ended before its interrupt"
        );
    }

    /// Everything posted comes back, and the queue is as empty as at first.
    fn finish(mut self) {
        while !self.kept.is_empty() {
            self.complete(0, Plan::Fill);
        }
        self.serve(ARENAS as u32 + 1, &[Plan::Fill], false);
        self.reap(usize::MAX);
        assert!(self.taken.is_empty() && self.fresh.is_empty());
        assert_eq!(self.driver.free(), self.config.size);
        assert_eq!(self.arenas.len() as u64, ARENAS);
    }
}

/// A position so close to the end of the ring or of its counters that most runs cross it.
fn late_base(packed: bool, size: u16, back: u16) -> u32 {
    if packed {
        let position = u32::from(size - 1 - back % size) | if back.is_multiple_of(2) { 0x8000 } else { 0 };
        position | position << 16
    } else {
        u32::from(u16::MAX - back)
    }
}

#[rstest]
fn every_chain_goes_there_and_back_once(
    #[values((false, 1), (false, 2), (false, 256), (false, 32768), (true, 1), (true, 2), (true, 3), (true, 5), (true, 256), (true, 32768))]
    (packed, size): (bool, u16),
    #[values(false, true)] event_idx: bool,
    #[values(false, true)] in_order: bool,
) {
    proptest!(ProptestConfig::with_cases(200), |(steps in steps(), back in 0u16..9, indirect: bool)| {
        let base = late_base(packed, size, back);
        let mut world = World::new(QueueConfig { base, event_idx, in_order, indirect, ..world::config(packed, size) });
        for step in &steps {
            world.step(step);
        }
        world.finish();
    });
}

#[rstest]
fn a_full_ring_of_any_size_passes_for_several_laps(
    #[values((false, 1), (false, 2), (false, 256), (false, 32768), (true, 1), (true, 2), (true, 3), (true, 5), (true, 256), (true, 32768))]
    (packed, size): (bool, u16),
    #[values(false, true)] in_order: bool,
) {
    let (_memory, mut driver, mut queue) = world::start(&QueueConfig {
        in_order,
        ..world::config(packed, size)
    });
    let [buffer] = buffers(0, &[8])[..] else {
        unreachable!("one length, one buffer")
    };
    for _ in 0..5 {
        while driver.free() > 0 {
            driver.post(&[], &[buffer]).expect("room");
        }
        driver.post(&[], &[buffer]).expect_err("the ring is full");
        let mut count = 0u32;
        let mut each = |chain: virtqueue::Chain<'_>| {
            count += 1;
            chain.done(if count.is_multiple_of(2) { 8 } else { 3 })
        };
        assert!(
            !queue
                .serve(u32::from(size) + 1, &mut each)
                .expect("an honest driver")
                .more
        );
        assert_eq!(count, u32::from(size));
        for index in 1..=count {
            let (_, written) = driver
                .reap()
                .expect("an honest device")
                .expect("as many as were served");
            assert_eq!(written, if index % 2 == 0 { 8 } else { 3 });
        }
        assert_eq!(driver.reap(), Ok(None));
    }
}

#[rstest]
fn a_chain_of_exactly_the_ring_passes_at_every_offset(
    #[values((false, 1), (false, 2), (false, 8), (true, 1), (true, 2), (true, 3), (true, 5), (true, 8))] (packed, size): (bool, u16),
) {
    let (memory, mut driver, mut queue) = world::start(&world::config(packed, size));
    let all = buffers(0, &vec![3; size as usize]);
    for round in 0..3 * u64::from(size) {
        scatter(&memory, &all, &pattern(round, false, 3 * size as usize));
        let token = driver.post(&all, &[]).expect("room for exactly this");
        let serve = queue.serve(9, |mut chain| {
            let bytes = chain.reader.read_to_vec(3 * size as usize).expect("all bytes");
            assert_eq!(bytes, pattern(round, false, bytes.len()));
            chain.done(0)
        });
        assert!(!serve.expect("an honest driver").more);
        assert_eq!(driver.reap(), Ok(Some((token, 0))));
        // One more descriptor, so that the next long chain starts a slot further.
        driver.post(&all[..1], &[]).expect("room");
        assert!(!queue.serve(9, |chain| chain.done(0)).expect("an honest driver").more);
        driver.reap().expect("an honest device").expect("served");
    }
}

#[rstest]
fn in_order_batches_use_one_element_for_filled_chains_alone(#[values(false, true)] packed: bool) {
    let config = QueueConfig {
        in_order: true,
        ..world::config(packed, 8)
    };
    let (memory, mut driver, mut queue) = world::start(&config);
    let [buffer] = buffers(0, &[8])[..] else {
        unreachable!("one length, one buffer")
    };
    let tokens: Vec<_> = (0..6).map(|_| driver.post(&[], &[buffer]).expect("room")).collect();
    // Filled, filled, partial, filled, filled, filled: elements for the third and for the sixth chain.
    let mut writes = [8, 8, 5, 8, 8, 8].into_iter();
    let served = queue
        .serve(9, |chain| chain.done(writes.next().expect("six chains")))
        .expect("an honest driver");
    assert!(served.interrupt, "the first interrupt");
    let ids: Vec<u16> = [0u64, 3]
        .iter()
        .map(|slot| {
            let (address, length) = if packed {
                (slot * 16 + 12, 2)
            } else {
                (config.device + 4 + slot * 8, 2)
            };
            let mut bytes = [0; 2];
            memory.read(address, &mut bytes[..length]).expect("ring memory");
            u16::from_le_bytes(bytes)
        })
        .collect();
    assert_eq!(ids, [tokens[2].0, tokens[5].0]);
    let reaped: Vec<_> = std::iter::from_fn(|| driver.reap().expect("an honest device")).collect();
    assert_eq!(reaped, tokens.into_iter().zip([8, 8, 5, 8, 8, 8]).collect::<Vec<_>>());
}

#[rstest]
fn interrupts_and_kicks_come_when_asked_for_and_only_then(
    #[values(false, true)] packed: bool,
    #[values(false, true)] event_idx: bool,
) {
    let (_memory, mut driver, mut queue) = world::start(&QueueConfig {
        event_idx,
        ..world::config(packed, 8)
    });
    let mut round = |armed: bool, chains: usize| {
        for chain in 0..chains {
            driver.post(&[], &buffers(0, &[8])).expect("room");
            // The device asks for the first chain; by flags alone it cannot say that it wants no more.
            assert_eq!(driver.kick_wanted(), chain == 0 || !event_idx, "chain {chain}");
            assert!(!driver.kick_wanted(), "nothing was posted since");
        }
        if armed {
            assert!(driver.arm_interrupt(), "nothing is used yet");
        } else {
            driver.disarm_interrupt();
        }
        let served = queue.serve(9, |chain| chain.done(8)).expect("an honest driver");
        assert!(!queue.interrupt_wanted(), "nothing was used since");
        while driver.reap().expect("an honest device").is_some() {}
        served.interrupt
    };
    assert!(
        round(true, 0),
        "a fresh queue always interrupts once, and asks for kicks"
    );
    for chains in [1, 3, 2, 8, 1, 5, 7] {
        assert!(round(true, chains));
        assert!(!round(true, 0));
        assert!(!round(false, chains));
    }
}

#[rstest]
fn a_queue_that_is_polled_asks_for_no_kick_until_it_is_no_more(
    #[values(false, true)] packed: bool,
    #[values(false, true)] event_idx: bool,
) {
    let (_memory, mut driver, mut queue) = world::start(&QueueConfig {
        event_idx,
        ..world::config(packed, 4)
    });
    let serve = |queue: &mut Queue| {
        let served = queue.serve(9, |chain| chain.done(8)).expect("an honest driver");
        assert!(!served.more && !served.put_back);
    };
    for _ in 0..10 {
        queue.set_polled(true);
        serve(&mut queue);
        // Several laps.
        for chain in 0..30 {
            assert!(!queue.has_available());
            driver.post(&[], &buffers(0, &[8])).expect("room");
            assert!(queue.has_available());
            // A split ring with EVENT_IDX still has the index of the last time.
            let left_over = chain == 0 && event_idx && !packed;
            assert!(!driver.kick_wanted() || left_over, "chain {chain}");
            serve(&mut queue);
            driver.reap().expect("an honest device").expect("served");
        }
        queue.set_polled(false);
        serve(&mut queue);
        driver.post(&[], &buffers(0, &[8])).expect("room");
        assert!(driver.kick_wanted());
        serve(&mut queue);
        driver.reap().expect("an honest device").expect("served");
    }
}

#[rstest]
fn a_chain_that_was_put_back_is_told_of(#[values(false, true)] packed: bool) {
    let (_memory, mut driver, mut queue) = world::start(&world::config(packed, 4));
    driver.post(&[], &buffers(0, &[8])).expect("room");
    let served = queue.serve(9, |chain| chain.put_back()).expect("an honest driver");
    assert!(served.put_back && !served.more);
    assert!(queue.has_available());
    let served = queue.serve(9, |chain| chain.done(8)).expect("an honest driver");
    assert!(!served.put_back);
}

#[rstest]
fn a_length_beyond_the_space_is_never_told_to_the_driver(#[values(false, true)] packed: bool) {
    let (_memory, mut driver, mut queue) = world::start(&world::config(packed, 4));
    let token = driver.post(&[], &buffers(0, &[8, 4])).expect("room");
    let served = queue.serve(1, |chain| chain.done(u32::MAX)).expect("an honest driver");
    assert!(served.more, "budget used up");
    assert_eq!(driver.reap(), Ok(Some((token, 12))));
}

#[rstest]
fn a_chain_of_a_stopped_queue_does_not_complete_in_its_successor(#[values(false, true)] packed: bool) {
    let config = world::config(packed, 4);
    let (memory, mut driver, mut queue) = world::start(&config);
    driver.post(&[], &buffers(0, &[8])).expect("room");
    let mut kept = None;
    let keep = |chain: virtqueue::Chain<'_>| {
        let (pending, outcome) = chain.keep();
        kept = Some(pending);
        outcome
    };
    let served = queue.serve(4, keep).expect("an honest driver");
    assert!(served.interrupt, "the first interrupt");
    assert_eq!(queue.position().map_err(|refused| refused.chains), Err(1));
    let mut successor = config.start(&memory).expect("a good configuration");
    successor.complete(kept.expect("kept"), 8);
    assert_eq!(driver.reap(), Ok(None));
}

#[rstest]
fn positions_go_on_after_the_memory_table_was_replaced(#[values(false, true)] packed: bool) {
    let config = world::config(packed, 4);
    let (memory, mut driver, mut queue) = world::start(&config);
    for round in 0..10 {
        let token = driver.post(&[], &buffers(0, &[8])).expect("room");
        let served = queue.serve(4, |chain| chain.done(8)).expect("an honest driver");
        assert!(!served.more, "nothing is left");
        assert_eq!(driver.reap(), Ok(Some((token, 8))), "round {round}");
        queue.replace_memory(&memory.clone()).expect("the same memory");
    }
    assert!(
        queue.replace_memory(&Memory::empty()).is_err(),
        "the rings are not in there"
    );
}

/// Whether the device sees what the driver has posted, in order, and the driver what the device has used.
fn pass(driver: &mut virtqueue::DriverQueue, queue: &mut virtqueue::Queue, chains: &[virtqueue::Token]) {
    let mut served = 0;
    let mut done = |chain: virtqueue::Chain<'_>| {
        served += 1;
        chain.done(8)
    };
    let _interrupt = queue.serve(u32::MAX, &mut done).expect("an honest driver");
    assert_eq!(served, chains.len());
    for token in chains {
        assert_eq!(driver.reap(), Ok(Some((*token, 8))));
    }
}

/// User-Mode Linux announces rings of both formats with 0.
#[rstest]
fn a_fresh_ring_starts_at_0_too(
    #[values(false, true)] packed: bool,
    #[values(2, 8)] size: u16,
    #[values(false, true)] posted_before: bool,
) {
    let config = world::config(packed, size);
    let (memory, _file) = world::memory();
    let mut driver = config.drive(&memory).expect("a good configuration");
    let mut post = |count: u16| -> Vec<_> {
        (0..count)
            .map(|number| driver.post(&[], &buffers(number.into(), &[8])).expect("room"))
            .collect()
    };
    let before = post(if posted_before { size - 1 } else { 0 });
    let announced = QueueConfig { base: 0, ..config };
    let mut queue = announced.start(&memory).expect("a good configuration");
    pass(&mut driver, &mut queue, &before);
    for _ in 0..3 * size {
        let token = driver.post(&[], &buffers(0, &[8])).expect("room");
        pass(&mut driver, &mut queue, &[token]);
    }
}

/// After one lap, position 0 of a packed ring is where it goes on, with both wrap counters 0.
#[rstest]
fn a_ring_goes_on_after_exactly_one_lap(
    #[values(false, true)] packed: bool,
    #[values(1, 2, 8)] size: u16,
    #[values(1, 2, 4)] span: u16,
    #[values(false, true)] in_order: bool,
    #[values(0, 1, 8)] waiting: u16,
) {
    if span > size {
        return;
    }
    let config = QueueConfig {
        in_order,
        ..world::config(packed, size)
    };
    let (memory, mut driver, mut queue) = world::start(&config);
    let chains: Vec<_> = (0..size / span)
        .map(|number| {
            let buffers = buffers(number.into(), &vec![8; span.into()]);
            driver.post(&[], &buffers).expect("room")
        })
        .collect();
    pass(&mut driver, &mut queue, &chains);
    let base = queue.position().expect("nothing is in flight");
    assert_eq!(base, if packed { 0 } else { u32::from(size / span) });

    let chains: Vec<_> = (0..waiting.min(size))
        .map(|number| driver.post(&[], &buffers(number.into(), &[8])).expect("room"))
        .collect();
    let resumed = QueueConfig { base, ..config };
    let mut queue = resumed.start(&memory).expect("its own position");
    pass(&mut driver, &mut queue, &chains);
}
