//! Random drivers and devices. The ring and the record survive a cut, all else of the device is lost.

use std::cell::Cell;
use std::collections::BTreeMap;

use guestmem::Memory;
use proptest::prelude::*;
use rstest::rstest;

use super::run;
use crate::inflight::InflightRecord;
use crate::{Buffer, DriverQueue, Outcome, Pending, Queue, QueueConfig, Token};

/// Where the buffers and tables of chains lie, and the room for those of one.
const ARENAS: u64 = 0x4000;
const ARENA: u64 = 0x400;
const TABLE: u64 = 0x200;
const OUTSTANDING_MOST: u64 = 16;

#[derive(Debug, Clone)]
enum Step {
    /// A request in so many descriptors, and its answer in so many.
    Post {
        readable: u32,
        writable: u32,
        indirect: bool,
    },
    Serve {
        budget: u32,
        plans: Vec<Plan>,
    },
    /// Completes one of the kept chains.
    Complete {
        which: usize,
    },
    /// Completes the oldest of the kept chains, so many of them, so that the driver sees all or none.
    CompleteTogether {
        count: usize,
    },
    /// Takes chains, finds them too few, and puts them back.
    Return {
        budget: u32,
    },
    Reap,
    /// GET_VRING_BASE, and a start where the queue was.
    Restart,
}

#[derive(Debug, Clone, Copy)]
enum Plan {
    Done,
    Keep,
    PutBack,
}

#[derive(Debug, Clone, Copy)]
struct Kind {
    packed: bool,
    size: u16,
    in_order: bool,
    event_idx: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let plan = || prop_oneof![3 => Just(Plan::Done), 4 => Just(Plan::Keep), 1 => Just(Plan::PutBack)];
    let step = prop_oneof![
        6 => (1u32..4, 1u32..3, any::<bool>())
            .prop_map(|(readable, writable, indirect)| Step::Post { readable, writable, indirect }),
        4 => (1u32..5, proptest::collection::vec(plan(), 5)).prop_map(|(budget, plans)| Step::Serve { budget, plans }),
        4 => any::<usize>().prop_map(|which| Step::Complete { which }),
        2 => (1usize..4).prop_map(|count| Step::CompleteTogether { count }),
        1 => (1u32..4).prop_map(|budget| Step::Return { budget }),
        2 => Just(Step::Reap),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..40)
}

fn answer(request: u64) -> u64 {
    !request.rotate_left(17)
}

/// The driver, and the memory that the device shares with it and with its successors.
struct World {
    config: QueueConfig,
    memory: Memory,
    record: Memory,
    driver: DriverQueue,
    /// Chains that are not reaped yet: request and arena.
    outstanding: BTreeMap<Token, (u64, u64)>,
    arenas: Vec<u64>,
    next_request: u64,
}

/// One life of the device.
struct Life {
    queue: Queue,
    kept: Vec<(u64, Pending)>,
    /// The last request that it took.
    latest: Option<u64>,
}

impl World {
    fn new(kind: Kind) -> World {
        let Kind {
            packed,
            size,
            in_order,
            event_idx,
        } = kind;
        let config = QueueConfig {
            packed,
            size,
            descriptor: 0,
            driver: 0x1000,
            device: 0x2000,
            base: QueueConfig::fresh_base(packed),
            indirect: true,
            event_idx,
            in_order,
            chain_limit: QueueConfig::CHAIN_LIMIT,
        };
        let (memory, _) = Memory::memfd("guest", ARENAS + OUTSTANDING_MOST * ARENA, 0).unwrap();
        let (record, _) = Memory::memfd("record", InflightRecord::bytes(packed, size) as u64, 0).unwrap();
        World {
            driver: config.drive(&memory).unwrap(),
            config,
            memory,
            record,
            outstanding: BTreeMap::new(),
            arenas: (0..OUTSTANDING_MOST).map(|number| ARENAS + number * ARENA).collect(),
            next_request: 1,
        }
    }

    /// What QEMU sends after the backend's process has ended: the used index of a split ring, and for a packed ring the base of the
    /// last stop, which is older.
    fn base_after_a_cut(&self) -> u32 {
        if self.config.packed {
            return QueueConfig::fresh_base(true);
        }
        let mut used = [0; 2];
        self.memory.read(self.config.device + 2, &mut used).unwrap();
        u16::from_le_bytes(used).into()
    }

    fn start(&self, base: u32) -> Life {
        let size = InflightRecord::bytes(self.config.packed, self.config.size);
        let record = InflightRecord::new(self.record.area(0, size).unwrap(), self.config.size);
        let config = QueueConfig {
            base,
            ..self.config.clone()
        };
        Life {
            queue: config.start_tracked(&self.memory, record).unwrap(),
            kept: Vec::new(),
            latest: None,
        }
    }

    fn post(&mut self, readable: u32, writable: u32, indirect: bool) {
        let Some(arena) = self.arenas.pop() else { return };
        let request = self.next_request;
        self.memory.write(arena, &request.to_le_bytes()).unwrap();
        let (readable, writable) = (cut(arena, readable), cut(arena + 8, writable));
        let posted = if indirect {
            self.driver.post_indirect(arena + TABLE, &readable, &writable)
        } else {
            self.driver.post(&readable, &writable)
        };
        match posted {
            Ok(token) => {
                self.next_request += 1;
                assert!(self.outstanding.insert(token, (request, arena)).is_none());
            }
            Err(_full) => self.arenas.push(arena),
        }
    }

    /// Everything that is used: each chain once, with its answer.
    fn reap(&mut self) {
        while let Some((token, written)) = self.driver.reap().expect("a chain is used once") {
            let (request, arena) = self.outstanding.remove(&token).expect("a chain in flight");
            let mut bytes = [0; 8];
            self.memory.read(arena + 8, &mut bytes).unwrap();
            assert_eq!((u64::from_le_bytes(bytes), written), (answer(request), 8));
            self.arenas.push(arena);
        }
    }

    fn is_outstanding(&self, request: u64) -> bool {
        self.outstanding.values().any(|(of, _)| *of == request)
    }
}

/// Eight bytes in so many buffers.
fn cut(address: u64, pieces: u32) -> Vec<Buffer> {
    let piece = |index| Buffer {
        address: address + u64::from(index),
        length: if index + 1 < pieces { 1 } else { 9 - pieces },
    };
    (0..pieces).map(piece).collect()
}

impl Life {
    fn serve(&mut self, world: &World, budget: u32, plans: &[Plan]) {
        let Life { queue, kept, latest } = self;
        let mut plans = plans.iter();
        let served = queue.serve(budget, |mut chain| -> Outcome {
            let mut bytes = [0; 8];
            chain.reader.read_exact(&mut bytes).unwrap();
            let request = u64::from_le_bytes(bytes);
            assert!(world.is_outstanding(request), "request {request} was answered before");
            let plan = plans.next().copied().unwrap_or(Plan::Done);
            if matches!(plan, Plan::PutBack) {
                return chain.put_back();
            }
            assert!(
                latest.is_none_or(|latest| latest < request),
                "{request} after {latest:?}"
            );
            *latest = Some(request);
            if matches!(plan, Plan::Done) {
                chain.writer.write_all(&answer(request).to_le_bytes()).unwrap();
                return chain.done(8);
            }
            let (pending, outcome) = chain.keep();
            kept.push((request, pending));
            outcome
        });
        let _interrupted_or_not = served.unwrap();
    }

    fn complete(&mut self, which: usize) {
        if self.kept.is_empty() {
            return;
        }
        let (request, pending) = self.kept.swap_remove(which % self.kept.len());
        pending.open().1.write_all(&answer(request).to_le_bytes()).unwrap();
        self.queue.complete(pending, 8);
        let _interrupted_or_not = self.queue.interrupt_wanted();
    }

    fn complete_together(&mut self, count: usize) {
        self.kept.sort_by_key(|(request, _)| *request);
        let count = count.min(self.kept.len());
        let chosen: Vec<(Pending, u32)> = self
            .kept
            .drain(..count)
            .map(|(request, pending)| {
                pending.open().1.write_all(&answer(request).to_le_bytes()).unwrap();
                (pending, 8)
            })
            .collect();
        self.queue.complete_together(&chosen);
        let _interrupted_or_not = self.queue.interrupt_wanted();
    }

    fn take_and_return(&mut self, world: &World, budget: u32) {
        let (latest, before) = (self.latest, std::mem::take(&mut self.kept));
        self.serve(world, budget, &[Plan::Keep; 4]);
        let taken = std::mem::replace(&mut self.kept, before);
        let taken: Vec<Pending> = taken.into_iter().map(|(_, pending)| pending).collect();
        let _behind = self.queue.put_back(&taken);
        self.latest = latest;
    }

    fn stop(mut self) -> u32 {
        while !self.kept.is_empty() {
            self.complete(0);
        }
        self.queue.position().unwrap()
    }
}

/// Follows the steps, with a cut after so many stores, and others after so many more. Gives how many cuts there were.
fn follow(kind: Kind, steps: &[Step], cuts: &[u32]) -> usize {
    let mut world = World::new(kind);
    let mut cuts_to_come = cuts.iter().copied();
    let mut happened = 0;
    let mut left = cuts_to_come.next();
    let mut base = world.config.base;
    let mut life = None;
    // At last everything is answered.
    for step in steps.iter().map(Some).chain([None]) {
        match step {
            Some(Step::Post {
                readable,
                writable,
                indirect,
            }) => {
                world.post(*readable, *writable, *indirect);
                continue;
            }
            Some(Step::Reap) => {
                world.reap();
                continue;
            }
            None => left = None,
            Some(_) => {}
        }
        let before: Option<Life> = life.take();
        let shared = &world;
        let survived = run(&mut left, || {
            let mut device = before.unwrap_or_else(|| shared.start(base));
            match step {
                Some(Step::Serve { budget, plans }) => device.serve(shared, *budget, plans),
                Some(Step::Complete { which }) => device.complete(*which),
                Some(Step::CompleteTogether { count }) => device.complete_together(*count),
                Some(Step::Return { budget }) => device.take_and_return(shared, *budget),
                Some(Step::Restart) => return shared.start(device.stop()),
                _ => {
                    while device.queue.has_available() {
                        device.serve(shared, 1000, &[]);
                    }
                    return shared.start(device.stop());
                }
            }
            device
        });
        if survived.is_none() {
            happened += 1;
            left = cuts_to_come.next();
            base = world.base_after_a_cut();
        }
        life = survived;
    }
    world.reap();
    assert!(world.outstanding.is_empty(), "lost: {:?}", world.outstanding);
    let mut device = life.expect("no cut at last");
    assert!(!device.queue.has_available());
    device.serve(&world, 10, &[]);
    assert_eq!(device.latest, None, "a request that nobody waits for");
    happened
}

/// Cuts in front of each store of a run in turn; then again, with further cuts soon after, while the successor finds its place.
/// Gives how many stores there were.
fn cut_everywhere(kind: Kind, steps: &[Step]) -> u32 {
    let mut cut = 0;
    while follow(kind, steps, &[cut]) == 1 {
        follow(kind, steps, &[cut, cut % 11, cut % 5]);
        cut += 1;
    }
    cut
}

#[rstest]
fn every_request_is_answered_once_wherever_the_device_is_cut_off(
    #[values((false, 2), (false, 4), (false, 8), (true, 2), (true, 3), (true, 5), (true, 8))] form: (bool, u16),
    #[values(false, true)] in_order: bool,
) {
    let (packed, size) = form;
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(64)
    };
    let cuts = Cell::new(0);
    proptest!(config, |(event_idx in any::<bool>(), steps in steps())| {
        let kind = Kind { packed, size, in_order, event_idx };
        cuts.set(cuts.get() + cut_everywhere(kind, &steps));
    });
    assert!(cuts.get() > 200, "only {} places to be cut off", cuts.get());
}

/// A packed ring shows what was begun of a batch once its first slot is used.
#[rstest]
fn a_batch_that_was_begun_is_not_seen(#[values(false, true)] packed: bool) {
    let kind = Kind {
        packed,
        size: 8,
        in_order: false,
        event_idx: true,
    };
    let post = Step::Post {
        readable: 1,
        writable: 1,
        indirect: true,
    };
    let serve = |plan, budget| Step::Serve {
        budget,
        plans: vec![plan; 5],
    };
    let batch = [
        post.clone(),
        post.clone(),
        post,
        serve(Plan::Keep, 3),
        Step::CompleteTogether { count: 3 },
        serve(Plan::Done, 1),
        Step::Reap,
    ];
    assert!(cut_everywhere(kind, &batch) > 10);
}

/// Used index and available index pass 65535; slots and wrap counters go around many times.
#[rstest]
fn positions_wrap_around(#[values((false, 4), (true, 3))] form: (bool, u16)) {
    let kind = Kind {
        packed: form.0,
        size: form.1,
        in_order: false,
        event_idx: true,
    };
    let post = Step::Post {
        readable: 1,
        writable: 1,
        indirect: true,
    };
    let serve = |plan| Step::Serve {
        budget: 2,
        plans: vec![plan; 2],
    };
    let mut steps = Vec::new();
    for _ in 0..32_600 {
        steps.extend([post.clone(), post.clone(), serve(Plan::Done), Step::Reap]);
    }
    for _ in 0..400 {
        steps.extend([post.clone(), post.clone(), serve(Plan::Keep)]);
        steps.extend([Step::Complete { which: 1 }, Step::Complete { which: 0 }, Step::Reap]);
    }
    let rare = std::iter::repeat_n(1009, 400);
    let cuts: Vec<u32> = rare.chain((0..1000).map(|cut| cut % 23)).collect();
    assert!(follow(kind, &steps, &cuts) > 400);
}
