//! Cost of a ring to a device: nanoseconds per chain for our split and packed rings and for rust-vmm's
//! `virtio-queue`.
//!
//! All contenders serve the same work: batches of 32 chains, each with 16 bytes to read and 8 to write. The same
//! driver half posts them outside the measured time. The contenders take turns, so that a busy machine affects all of
//! them, and the result is the median of the rounds. `virtio-queue` runs twice: with its own `Reader` and `Writer`
//! (which our chains offer too), and without any convenience.
//!
//! `cargo bench -p virtqueue`; fails if ours is not 1.5 times as fast on split rings, or packed slower than split.

use std::fs::File;
use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use guestmem::{Memory, RegionConfig};
use virtio_queue::{Queue as OtherQueue, QueueT as _};
use virtqueue::{Buffer, Chain, DriverQueue, Outcome, Queue, QueueConfig};
use vm_memory::{Bytes as _, FileOffset, GuestAddress, GuestMemoryMmap};

const SIZE: u16 = 256;
const BATCH: u16 = 32;
const BATCHES: u32 = 4000;
const ROUNDS: usize = 21;

/// Guest memory in two regions, below and above the hole under 4 GiB, as a guest of QEMU has it: rings in the lower,
/// buffers in the upper.
const REGIONS: [(u64, u64); 2] = [(0, 0x10_0000), (0x1_0000_0000, 0x10_0000)];

type Chainwise<'a> = Box<dyn FnMut() + 'a>;

fn main() -> ExitCode {
    let mut split = World::new(false);
    let mut packed = World::new(true);
    let mut other = World::new(false);
    let mut lean = World::new(false);
    let mut split_queue = split.config.start(&split.memory).expect("a good configuration");
    let mut packed_queue = packed.config.start(&packed.memory).expect("a good configuration");
    let (other_memory, mut other_queue) = other.other();
    let (lean_memory, mut lean_queue) = lean.other();
    let contenders: [(&str, &mut World, Chainwise<'_>); 4] = [
        ("innkeeper split", &mut split, Box::new(|| serve(&mut split_queue))),
        ("innkeeper packed", &mut packed, Box::new(|| serve(&mut packed_queue))),
        (
            "virtio-queue split, lean",
            &mut lean,
            Box::new(|| serve_lean(&mut lean_queue, &lean_memory)),
        ),
        (
            "virtio-queue split, reader/writer",
            &mut other,
            Box::new(|| serve_other(&mut other_queue, &other_memory)),
        ),
    ];
    let rounds = measure(contenders);
    report(&rounds)
}

/// Lets the contenders take turns; gives each one's rounds in nanoseconds a chain, sorted.
fn measure<const N: usize>(
    mut contenders: [(&'static str, &mut World, Chainwise<'_>); N],
) -> [(&'static str, Vec<f64>); N] {
    let mut rounds = [const { Vec::new() }; N];
    for round in 0..=ROUNDS {
        for ((_, world, serve), results) in contenders.iter_mut().zip(&mut rounds) {
            let time = world.round(serve);
            // The first round fills caches and is not counted.
            if round > 0 {
                results.push(time.as_secs_f64() * 1e9 / f64::from(BATCHES * u32::from(BATCH)));
            }
        }
    }
    let mut names = contenders.iter().map(|(name, ..)| *name);
    rounds.map(|mut results| {
        results.sort_by(f64::total_cmp);
        (names.next().unwrap_or_default(), results)
    })
}

fn report(rounds: &[(&str, Vec<f64>); 4]) -> ExitCode {
    let median = |which: usize| rounds[which].1[ROUNDS / 2];
    println!("ns per chain, {ROUNDS} rounds of {BATCHES} batches of {BATCH} chains, 16 B read and 8 B written each");
    println!("{:36}{:>8}{:>8}{:>8}{:>10}", "", "median", "best", "worst", "vs split");
    for (which, (name, results)) in rounds.iter().enumerate() {
        let (best, worst) = (results[0], results[ROUNDS - 1]);
        println!(
            "{name:36}{:8.1}{best:8.1}{worst:8.1}{:9.2}x",
            median(which),
            median(which) / median(0)
        );
    }
    let (against_lean, against_packed) = (median(2) / median(0), median(0) / median(1));
    if against_lean >= 1.5 && against_packed >= 1.0 {
        println!(
            "split {against_lean:.2}x as fast as virtio-queue at its best, packed {against_packed:.2}x as fast as split"
        );
        return ExitCode::SUCCESS;
    }
    println!("MISSED: split {against_lean:.2}x (1.5 wanted), packed {against_packed:.2}x (1.0 wanted)");
    ExitCode::FAILURE
}

/// A guest with one queue and its driver half.
struct World {
    config: QueueConfig,
    files: Vec<OwnedFd>,
    memory: Memory,
    driver: DriverQueue,
}

impl World {
    fn new(packed: bool) -> World {
        let config = QueueConfig {
            packed,
            size: SIZE,
            descriptor: 0,
            driver: 0x1_0000,
            device: 0x2_0000,
            base: QueueConfig::fresh_base(packed),
            indirect: true,
            event_idx: true,
            in_order: false,
            chain_limit: QueueConfig::CHAIN_LIMIT,
        };
        let files = REGIONS.map(|(address, size)| Memory::memfd("guest", size, address).expect("a memfd").1);
        let region = |((guest_address, size), file): ((u64, u64), &OwnedFd)| RegionConfig {
            guest_address,
            size,
            user_address: guest_address,
            file: file.try_clone().expect("a file descriptor"),
            file_offset: 0,
        };
        let memory = Memory::map(REGIONS.into_iter().zip(&files).map(region).collect()).expect("two regions");
        let driver = config.drive(&memory).expect("a good configuration");
        World {
            config,
            files: files.into(),
            memory,
            driver,
        }
    }

    /// The same memory and queue for `virtio-queue`.
    fn other(&self) -> (GuestMemoryMmap, OtherQueue) {
        let ranges = REGIONS.into_iter().zip(&self.files).map(|((address, size), file)| {
            let file = File::from(file.try_clone().expect("a file descriptor"));
            (GuestAddress(address), size as usize, Some(FileOffset::new(file, 0)))
        });
        let memory = GuestMemoryMmap::from_ranges_with_files(ranges).expect("two regions");
        let mut queue = OtherQueue::new(SIZE).expect("a power of two");
        queue
            .try_set_desc_table_address(GuestAddress(self.config.descriptor))
            .expect("aligned");
        queue
            .try_set_avail_ring_address(GuestAddress(self.config.driver))
            .expect("aligned");
        queue
            .try_set_used_ring_address(GuestAddress(self.config.device))
            .expect("aligned");
        queue.set_event_idx(self.config.event_idx);
        queue.set_ready(true);
        assert!(queue.is_valid(&memory));
        (memory, queue)
    }

    /// Time that `serve` takes for all batches; posting and reaping are not counted.
    fn round(&mut self, serve: &mut Chainwise<'_>) -> Duration {
        let mut time = Duration::ZERO;
        for _ in 0..BATCHES {
            for chain in 0..u64::from(BATCH) {
                let address = REGIONS[1].0 + chain * 64;
                let readable = [Buffer { address, length: 16 }];
                let writable = [Buffer {
                    address: address + 32,
                    length: 8,
                }];
                self.driver.post(&readable, &writable).expect("room");
            }
            let start = Instant::now();
            serve();
            time += start.elapsed();
            for _ in 0..BATCH {
                let reaped = self.driver.reap().expect("an honest device");
                assert!(reaped.is_some_and(|(_, written)| written == 8), "{reaped:?}");
            }
            self.driver.arm_interrupt();
        }
        time
    }
}

/// The device's work: the answer is made of the question.
fn answer(question: [u8; 16]) -> [u8; 8] {
    let (halves, _) = question.as_chunks::<8>();
    black_box(std::array::from_fn(|index| halves[0][index] ^ halves[1][index]))
}

fn serve(queue: &mut Queue) {
    let each = |mut chain: Chain<'_>| -> Outcome {
        let mut question = [0; 16];
        chain.reader.read_exact(&mut question).expect("16 bytes");
        chain.writer.write_all(&answer(question)).expect("8 bytes");
        chain.done(8)
    };
    let served = queue.serve(u32::from(BATCH) + 1, each).expect("an honest driver");
    black_box(served.interrupt);
}

fn serve_other(queue: &mut OtherQueue, memory: &GuestMemoryMmap) {
    loop {
        queue.disable_notification(memory).expect("ring memory");
        while let Some(chain) = queue.pop_descriptor_chain(memory) {
            let head = chain.head_index();
            let mut reader = chain.clone().reader(memory).expect("good buffers");
            let mut writer = chain.writer(memory).expect("good buffers");
            let question = reader.read_obj::<[u8; 16]>().expect("16 bytes");
            writer.write_obj(answer(question)).expect("8 bytes");
            queue.add_used(memory, head, 8).expect("ring memory");
        }
        if !queue.enable_notification(memory).expect("ring memory") {
            break;
        }
    }
    black_box(queue.needs_notification(memory).expect("ring memory"));
}

fn serve_lean(queue: &mut OtherQueue, memory: &GuestMemoryMmap) {
    loop {
        queue.disable_notification(memory).expect("ring memory");
        while let Some(mut chain) = queue.pop_descriptor_chain(memory) {
            let head = chain.head_index();
            let (readable, writable) = (
                chain.next().expect("two descriptors"),
                chain.next().expect("two descriptors"),
            );
            assert!(!readable.is_write_only() && writable.is_write_only() && chain.next().is_none());
            let question = memory.read_obj::<[u8; 16]>(readable.addr()).expect("16 bytes");
            memory.write_obj(answer(question), writable.addr()).expect("8 bytes");
            queue.add_used(memory, head, 8).expect("ring memory");
        }
        if !queue.enable_notification(memory).expect("ring memory") {
            break;
        }
    }
    black_box(queue.needs_notification(memory).expect("ring memory"));
}
