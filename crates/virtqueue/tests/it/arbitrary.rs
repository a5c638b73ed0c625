//! Arbitrary bytes as rings and tables: the device half ends without a panic. The fuzz targets run the same body.

use guestmem::{CursorError, Memory};
use virtqueue::{Chain, Queue, QueueConfig};

/// Guest memory, small enough that random addresses often hit it.
const MEMORY: u64 = 0x1000;
/// Times the driver changes its memory under the device.
const TURNS: usize = 4;
/// The driver's part of a queue: the available ring, or its event suppression. It comes first, since short inputs must reach it.
const DRIVER: u64 = 0;
/// The descriptors, behind an available ring of the largest size (16 entries).
pub(crate) const DESCRIPTORS: u64 = 0x30;
/// The device's part: the used ring, or its event suppression.
const DEVICE: u64 = 0x280;

/// Runs a device on a queue that the bytes describe: the first few are the configuration, the others fill memory, a part
/// for each turn. Gives the number of chains that came through.
pub(crate) fn run(packed: bool, bytes: &[u8]) -> u32 {
    let Some((&[size, features, base, plan], content)) = bytes.split_first_chunk() else {
        return 0;
    };
    let (memory, _file) = Memory::memfd("fuzz", MEMORY, 0).expect("a memfd");
    let size = if packed { u16::from(size % 17) } else { 1 << (size % 5) };
    let config = QueueConfig {
        packed,
        size,
        descriptor: DESCRIPTORS,
        driver: DRIVER,
        device: DEVICE,
        base: if packed {
            QueueConfig::fresh_base(true) ^ (u32::from(base & 15) * 0x1_0001)
        } else {
            base.into()
        },
        indirect: features & 1 != 0,
        event_idx: features & 2 != 0,
        in_order: features & 4 != 0,
        chain_limit: (features >> 3).into(),
    };
    let Ok(mut queue) = config.start(&memory) else { return 0 };
    let mut served = 0;
    for part in content.chunks(content.len().div_ceil(TURNS).max(1)) {
        let part = &part[..part.len().min(MEMORY as usize)];
        memory.write(0, part).expect("no more than there is");
        served += turn(&mut queue, plan);
    }
    served
}

/// Serves and completes; each byte read and written shows that the buffers are what they claim to be.
fn turn(queue: &mut Queue, plan: u8) -> u32 {
    let mut kept = Vec::new();
    let mut count = 0;
    let each = |mut chain: Chain<'_>| {
        count += 1;
        let half = chain.reader.remaining() / 2;
        reachable(chain.reader.read_to_vec(half.min(0x2000)));
        let written = chain.writer.remaining().min(0x2000);
        reachable(chain.writer.write_all(&vec![0xa5; written]));
        match (u32::from(plan) + count) % 5 {
            0 => {
                let (pending, outcome) = chain.keep();
                kept.push(pending);
                outcome
            }
            1 if plan > 0xf0 => chain.put_back(),
            2 => chain.done(u32::MAX),
            _ => chain.done(written as u32),
        }
    };
    let served = queue.serve(100, each);
    assert!(served.is_ok() || queue.is_retired());
    assert_eq!(queue.in_flight() as usize, kept.len());
    for pending in kept.into_iter().rev() {
        let (mut reader, _) = pending.open();
        reachable(reader.read_to_vec(reader.remaining().min(0x2000)));
        queue.complete(pending, 1);
    }
    queue.interrupt_wanted();
    queue.position().expect("nothing is in flight");
    count
}

/// A buffer may lie nowhere; there are as many bytes as there are said to be.
fn reachable<T>(copied: Result<T, CursorError>) {
    if let Err(error) = copied {
        assert_eq!(error, CursorError::Fault, "no more than remains");
    }
}
