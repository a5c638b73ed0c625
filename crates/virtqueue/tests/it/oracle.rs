//! The device half of a split ring against rust-vmm's `virtio-queue`. Given the same driver, both must see the same
//! chains, leave the same bytes in the rings, and interrupt at the same times.

use std::fs::File;

use guestmem::Memory;
use proptest::prelude::*;
use rstest::rstest;
use virtio_queue::{Queue as OtherQueue, QueueT as _};
use virtqueue::{DriverQueue, Queue, QueueConfig};
use vm_memory::{Bytes as _, FileOffset, GuestAddress, GuestMemoryMmap};

use crate::world::{self, buffers, table};

/// Behind the last byte of the rings.
const RINGS: usize = 0xe_0000;
/// Chains outstanding at a time.
const OUTSTANDING: u64 = 16;

#[derive(Debug, Clone)]
enum Step {
    Post {
        readable: Vec<u32>,
        writable: Vec<u32>,
        indirect: bool,
    },
    Serve {
        written: Vec<u32>,
    },
    Reap {
        most: usize,
        arm: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lengths = || proptest::collection::vec(1u32..80, 0..4);
    let step = prop_oneof![
        4 => (lengths(), lengths(), any::<bool>())
            .prop_map(|(readable, writable, indirect)| Step::Post { readable, writable, indirect }),
        2 => proptest::collection::vec(0u32..200, 1..5).prop_map(|written| Step::Serve { written }),
        2 => (1usize..6, any::<bool>()).prop_map(|(most, arm)| Step::Reap { most, arm }),
    ];
    proptest::collection::vec(step, 1..100)
}

/// What a device sees of a chain: the bytes to read, and the space to write.
type Seen = (Vec<u8>, u32);

trait Device {
    /// Serves everything; what was seen, and whether to interrupt.
    fn serve(&mut self, written: &[u32]) -> (Vec<Seen>, bool);
}

impl Device for Queue {
    fn serve(&mut self, written: &[u32]) -> (Vec<Seen>, bool) {
        let mut seen = Vec::new();
        let served = Queue::serve(self, u32::MAX, |mut chain| {
            let space = chain.writer.remaining() as u32;
            let written = written[seen.len() % written.len()].min(space);
            seen.push((
                chain.reader.read_to_vec(chain.reader.remaining()).expect("all bytes"),
                space,
            ));
            chain.done(written)
        });
        (seen, served.expect("an honest driver").interrupt)
    }
}

struct Other {
    memory: GuestMemoryMmap,
    queue: OtherQueue,
}

impl Device for Other {
    fn serve(&mut self, written: &[u32]) -> (Vec<Seen>, bool) {
        let Other { memory, queue } = self;
        let mut seen = Vec::new();
        loop {
            queue.disable_notification(memory).expect("ring memory");
            while let Some(chain) = queue.pop_descriptor_chain(&*memory) {
                let head = chain.head_index();
                let mut bytes = Vec::new();
                for part in chain.clone().readable() {
                    let mut buffer = vec![0; part.len() as usize];
                    memory.read_slice(&mut buffer, part.addr()).expect("a buffer");
                    bytes.extend(buffer);
                }
                let space = chain.writable().map(|part| part.len()).sum();
                let written = written[seen.len() % written.len()].min(space);
                seen.push((bytes, space));
                queue.add_used(memory, head, written).expect("ring memory");
            }
            if !queue.enable_notification(memory).expect("ring memory") {
                break;
            }
        }
        (seen, queue.needs_notification(memory).expect("ring memory"))
    }
}

struct World<D> {
    memory: Memory,
    driver: DriverQueue,
    device: D,
    posted: u64,
    outstanding: u64,
}

impl World<Queue> {
    fn ours(config: &QueueConfig) -> Self {
        let (memory, driver, mut device) = world::start(config);
        // Ours interrupts once more, after the start, for what a predecessor may have left.
        assert!(device.interrupt_wanted());
        World {
            memory,
            driver,
            device,
            posted: 0,
            outstanding: 0,
        }
    }
}

impl World<Other> {
    fn theirs(config: &QueueConfig) -> Self {
        let (memory, file) = world::memory();
        let driver = config.drive(&memory).expect("a good configuration");
        let file = File::from(file);
        let size = file.metadata().expect("its length").len() as usize;
        let ranges = [(GuestAddress(0), size, Some(FileOffset::new(file, 0)))];
        let other = GuestMemoryMmap::from_ranges_with_files(ranges).expect("the same memory");
        let mut queue = OtherQueue::new(config.size).expect("a power of two");
        queue
            .try_set_desc_table_address(GuestAddress(config.descriptor))
            .expect("aligned");
        queue
            .try_set_avail_ring_address(GuestAddress(config.driver))
            .expect("aligned");
        queue
            .try_set_used_ring_address(GuestAddress(config.device))
            .expect("aligned");
        queue.set_event_idx(config.event_idx);
        queue.set_next_avail(config.base as u16);
        queue.set_next_used(config.base as u16);
        queue.set_ready(true);
        assert!(queue.is_valid(&other));
        World {
            memory,
            driver,
            device: Other { memory: other, queue },
            posted: 0,
            outstanding: 0,
        }
    }
}

impl<D: Device> World<D> {
    /// Does the step; everything that can be seen of it.
    fn step(&mut self, step: &Step, size: u16) -> (String, Vec<u8>) {
        let event = match step {
            Step::Post {
                readable,
                writable,
                indirect,
            } => {
                let (count, arena) = (readable.len() + writable.len(), self.posted % OUTSTANDING);
                if count == 0 || count > size.into() || self.outstanding == OUTSTANDING {
                    return Default::default();
                }
                let mut all = buffers(arena, &[&readable[..], writable].concat());
                let writable = all.split_off(readable.len());
                for buffer in &all {
                    let bytes: Vec<u8> = (0..buffer.length)
                        .map(|index| (u64::from(index) * 7 + self.posted) as u8)
                        .collect();
                    self.memory.write(buffer.address, &bytes).expect("a buffer");
                }
                let post = if *indirect {
                    self.driver.post_indirect(table(arena), &all, &writable)
                } else {
                    self.driver.post(&all, &writable)
                };
                self.posted += u64::from(post.is_ok());
                self.outstanding += u64::from(post.is_ok());
                format!("{post:?} kick {}", self.driver.kick_wanted())
            }
            Step::Serve { written } => format!("{:?}", self.device.serve(written)),
            Step::Reap { most, arm } => {
                let reap = || self.driver.reap().expect("an honest device");
                let reaped: Vec<_> = std::iter::from_fn(reap).take(*most).collect();
                self.outstanding -= reaped.len() as u64;
                format!("{reaped:?} quiet {}", *arm && self.driver.arm_interrupt())
            }
        };
        let mut rings = vec![0; RINGS];
        self.memory.read(0, &mut rings).expect("the rings");
        (event, rings)
    }
}

#[rstest]
fn split_devices_agree_on_chains_rings_and_interrupts(#[values(1, 2, 4, 256)] size: u16) {
    proptest!(ProptestConfig::with_cases(150), |(steps in steps(), back in 0u16..12)| {
        // `virtio-queue` interrupts every time without `EVENT_IDX`, so that interrupts are compared with it.
        let base = u32::from(u16::MAX - back);
        let config = QueueConfig { base, event_idx: true, ..world::config(false, size) };
        let (mut ours, mut theirs) = (World::ours(&config), World::theirs(&config));
        for step in &steps {
            let (event, rings) = ours.step(step, size);
            let (other_event, other_rings) = theirs.step(step, size);
            assert_eq!(event, other_event, "{step:?}");
            assert!(rings == other_rings, "the rings differ after {step:?}");
        }
        assert_eq!(ours.device.position(), Ok(theirs.device.queue.next_avail().into()));
    });
}
