//! Arbitrary bytes as requests, chains and commands of a front end. Each request is answered, the image keeps its size, and
//! the next guest is served. The fuzz target `blk` runs the same body.

use ::driver::Error;
use devices::blk::Engine;
use virtqueue::Buffer;

use crate::bytes::Bytes;
use crate::driver::{Client, Disk, PLACE, SECTOR, header, options};

/// Sectors of the disk.
const SECTORS: usize = 64;
/// Longer sessions take no input to new places. The chains of all steps fit in the ring.
const MOST_STEPS: u32 = 100;
/// Bytes of the largest buffer that a request has.
const BUFFER: u64 = 1 << 16;

/// Runs the guest that the bytes describe, and then a proper one. Returns the number of its requests.
pub(crate) fn run(bytes: &[u8]) -> u32 {
    let mut bytes = Bytes(bytes);
    let choice = bytes.u8();
    let has = |bit: u8| choice >> bit & 1 != 0;
    let before = vec![0x5a; SECTORS * SECTOR];
    let disk = Disk::new(&before);
    let mut served = disk.options(if has(0) { Engine::Threads } else { Engine::Auto });
    (served.image.read_only, served.image.direct, served.discard) = (has(1), has(2), has(3));
    let daemon = crate::driver::Daemon::new(served);
    let mut client = daemon.connect(&::driver::Options {
        features: if has(4) { 0 } else { u64::MAX >> 8 & !(1 << 30) },
        ..options(has(5))
    });
    let place = client.0.queues[0].take_place().expect("a place");
    let (mut steps, mut requests, mut open) = (0, 0, 0);
    while !bytes.is_empty() && steps < MOST_STEPS {
        steps += 1;
        match bytes.u8() {
            0..=189 => {
                post(&mut client, place, &mut bytes);
                (requests, open) = (requests + 1, open + 1);
            }
            190..=209 => {
                let base = client.0.stop(0).expect("a base");
                client.0.start(0, base).expect("a queue that goes on");
            }
            210..=224 => {
                let (offset, value) = (bytes.u8() % 64, bytes.some(8));
                let set = client.0.frontend().set_config(offset.into(), value);
                assert!(
                    matches!(set, Ok(()) | Err(vhost_user::Error::Refused { .. })),
                    "{set:?}"
                );
            }
            225..=239 if open > 0 => {
                client.0.queues[0].wait().expect("an answer");
                open -= 1;
            }
            240..=247 => {
                client.0.take_memory_away().expect("the region is there");
                client.0.give_memory_back().expect("the region is not there");
            }
            _ => {
                let config = client.0.device_config(bytes.u8().into());
                let Ok(config) = config else {
                    assert!(matches!(config, Err(Error::Protocol(_))), "{config:?}");
                    continue;
                };
                assert!(config.iter().skip(57).all(|byte| *byte == 0));
            }
        }
    }
    for _ in 0..open {
        client.0.queues[0].wait().expect("an answer");
    }
    drop(client);
    let after = disk.bytes();
    assert_eq!(after.len(), before.len());
    assert!(!has(1) || after == before, "the disk is read-only");
    let mut client = daemon.connect(&options(false));
    assert!(client.read(0, SECTORS * SECTOR) == after, "the next guest is served");
    requests
}

/// Makes a request available, most of them with a sensible head.
fn post(client: &mut Client, place: u64, bytes: &mut Bytes<'_>) {
    let kind = match bytes.u8() {
        choice @ 0..=249 => [0, 1, 4, 8, 11, 13][usize::from(choice % 6)],
        _ => bytes.u32(),
    };
    let sector = match bytes.u8() {
        choice @ 0..=239 => u64::from(choice) % (SECTORS as u64 + 2),
        _ => bytes.u64(),
    };
    let head = [&header(kind, sector), bytes.some(64)].concat();
    client.0.memory().write(place, &head).expect("guest memory");
    let (length, cut) = (head.len() as u32, u32::from(bytes.u8()) % head.len() as u32);
    let buffer = |address, length| Buffer { address, length };
    let mut readable = vec![buffer(place, cut), buffer(place + u64::from(cut), length - cut)];
    readable.retain(|buffer| buffer.length > 0);
    readable.extend((0..bytes.u8() % 3).map(|_| data(place, bytes)));
    let mut writable: Vec<_> = (0..bytes.u8() % 3).map(|_| data(place, bytes)).collect();
    if bytes.u8() < 240 {
        writable.push(buffer(place + PLACE - 1, 1));
    }
    let queue = &mut client.0.queues[0];
    queue.ring().post(&readable, &writable).expect("a ring with room");
    queue.kick().expect("a kick");
}

/// A buffer of some sectors, mostly.
fn data(place: u64, bytes: &mut Bytes<'_>) -> Buffer {
    let offset = u64::from(bytes.u16()) % (PLACE - BUFFER);
    let address = if bytes.u8() < 240 { place + offset } else { 1 << 50 };
    let length = match bytes.u8() {
        choice @ 0..=199 => u32::from(choice % 16 + 1) * SECTOR as u32,
        _ => u32::from(bytes.u16()).max(1),
    };
    Buffer { address, length }
}
