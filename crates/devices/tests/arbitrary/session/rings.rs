//! The driver half of two queues, in a file that the front end shares: it posts requests and reads no answers before
//! the end.

use driver::fs::{ROOT, Request, Requests, opcode};
use vhost_user::message::{RequestCode, VringAddress, VringState};
use virtqueue::features::{RING_PACKED, VERSION_1};
use zerocopy::IntoBytes;

use super::files::{CALLS, Files, KICKS, RAM, RAM_SIZE};
use super::messages::{BASE, Sent};
use crate::bytes::Bytes;

/// Entries of each queue.
const SIZE: u16 = 8;
/// Where the parts of a queue lie behind its start.
const QUEUE: u64 = 0x1000;
const AVAILABLE: u64 = 0x400;
const USED: u64 = 0x800;
/// Requests and replies of a queue, in as many places as it has chains.
const BUFFERS: u64 = 0x4000;
const PLACE: u64 = 0xc00;
const REPLY: u64 = 0x400;
const REPLY_ROOM: u32 = 0x800;

const NEXT: u16 = 1;
const WRITE: u16 = 2;

const DAX: u64 = 1 << 26 | 1 << 30 | 1 << 33;

pub(super) struct Rings {
    packed: bool,
    requests: Requests,
    /// Chains made available on each queue.
    sent: [u16; 2],
    /// Where replies lie, for those that get one.
    replies: Vec<u64>,
}

impl Default for Rings {
    fn default() -> Self {
        Self {
            packed: false,
            requests: Requests::new(0, 0),
            sent: [0; 2],
            replies: Vec::new(),
        }
    }
}

impl Rings {
    /// The features to negotiate, by a byte.
    pub(super) fn features(&mut self, choice: u8) -> u64 {
        self.packed = choice & 1 != 0;
        let ring = u64::from(choice >> 1 & 3) << 28 | u64::from(choice >> 3 & 1) << 35;
        // Without protocol features (bit 30) rings start enabled.
        let protocol = if choice & 0xf0 == 0xf0 { 0 } else { 1 << 30 };
        VERSION_1 | protocol | ring | if self.packed { RING_PACKED } else { 0 }
    }

    /// Everything that starts a queue where the driver is, or nearly so.
    pub(super) fn start(&mut self, queue: u8, bytes: &mut Bytes<'_>) -> Vec<Sent> {
        let index = u32::from(queue);
        let at = BASE + u64::from(queue) * QUEUE;
        let position = self.sent[usize::from(queue)];
        let base = if self.packed {
            let slot = u32::from(2 * position % SIZE);
            let lap = u32::from((2 * position / SIZE).is_multiple_of(2));
            (slot | lap << 15) * 0x1_0001
        } else {
            position.into()
        };
        let state = |num| VringState { index, num };
        let address = VringAddress {
            index,
            flags: 0,
            descriptor: at,
            used: at + USED,
            available: at + AVAILABLE,
            log: 0,
        };
        let number = u64::from(queue).to_le_bytes();
        let mut sent = vec![
            Sent::of(RequestCode::SetVringCall, &number).with(CALLS + queue),
            Sent::of(RequestCode::SetVringErr, &number).with(CALLS + queue),
            Sent::of(RequestCode::SetVringNum, state(SIZE.into()).as_bytes()),
            Sent::of(RequestCode::SetVringBase, state(base).as_bytes()),
            Sent::of(RequestCode::SetVringAddress, address.as_bytes()),
            Sent::of(RequestCode::SetVringKick, &number).with(KICKS + queue),
            Sent::of(RequestCode::SetVringEnable, state(1).as_bytes()),
        ];
        match bytes.u8() {
            choice @ 0..=31 => {
                sent.remove(usize::from(choice) % sent.len());
            }
            choice @ 32..=63 => sent.swap(usize::from(choice & 3), usize::from(choice >> 2 & 3) + 3),
            _ => {}
        }
        sent
    }

    /// Makes a FUSE request available and kicks, mostly.
    pub(super) fn request(&mut self, bytes: &mut Bytes<'_>, files: &Files) {
        let choice = bytes.u8();
        let node = 1 + u64::from(bytes.u8() & 3);
        let (page, place) = (u64::from(bytes.u8() & 3) << 12, u64::from(bytes.u8() & 7) << 12);
        let requests = &mut self.requests;
        let request = match choice & 15 {
            0 | 1 => requests.init(45, DAX),
            2 => requests.lookup(ROOT, b"b"),
            3 | 4 => requests.lookup(ROOT, b"a"),
            5 => requests.getattr(node),
            6 => requests.open(node, u32::from(choice >> 6)),
            7 => requests.read(node, u64::from(choice >> 5), page, 1000),
            8 => requests.write(node, u64::from(choice >> 5), page, b"data"),
            9 | 10 => requests.set_up_mapping(node, page, place, 4096 << (choice >> 6), choice & 32 != 0),
            11 => requests.remove_mappings(node, &[(place, 4096)]),
            12 => requests.forget(node, 1),
            13 => requests.destroy(),
            14 => requests.readdir(ROOT, u64::from(choice >> 5), 0, 1000),
            _ => {
                let (number, arguments) = (u32::from(bytes.u8() % 54), bytes.some(100));
                requests.raw(number, node, &[arguments], 1000)
            }
        };
        let hiprio = request.readable[4] == opcode::FORGET as u8 || choice & 0xe0 == 0xe0;
        let queue = usize::from(!hiprio);
        self.post(queue, &request, files);
        if bytes.u8() < 240 {
            kick(queue, files);
        }
    }

    fn post(&mut self, queue: usize, request: &Request, files: &Files) {
        let chains = SIZE / 2;
        let position = self.sent[queue];
        self.sent[queue] = position.wrapping_add(1);
        let chain = position % chains;
        let ring = queue as u64 * QUEUE;
        let place = BUFFERS + (queue as u64 * u64::from(chains) + u64::from(chain)) * PLACE;
        write(files, place, &request.readable);
        // So that an answer can be told from what was there.
        write(files, place + REPLY, &[0; 16]);
        if request.reply_space > 0 {
            self.replies.push(place + REPLY);
        }
        let first = 2 * chain;
        let out = (BASE + place, request.readable.len() as u32);
        let reply = (BASE + place + REPLY, REPLY_ROOM);
        if self.packed {
            let available = if (position / chains).is_multiple_of(2) {
                0x80
            } else {
                0x8000
            };
            write(
                files,
                ring + 16 * u64::from(first + 1),
                &descriptor(reply, first, WRITE | available),
            );
            write(
                files,
                ring + 16 * u64::from(first),
                &descriptor(out, first, NEXT | available),
            );
            return;
        }
        write(files, ring + 16 * u64::from(first), &descriptor(out, NEXT, first + 1));
        write(files, ring + 16 * u64::from(first + 1), &descriptor(reply, WRITE, 0));
        let entry = ring + AVAILABLE + 4 + 2 * u64::from(position % SIZE);
        write(files, entry, &first.to_le_bytes());
        write(files, ring + AVAILABLE + 2, &position.wrapping_add(1).to_le_bytes());
    }

    /// Writes anything anywhere in memory, mostly into a ring, and kicks.
    pub(super) fn poke(&mut self, bytes: &mut Bytes<'_>, files: &Files) {
        let queue = usize::from(bytes.u8() & 1);
        let part = bytes.one(&[0, AVAILABLE, AVAILABLE, USED, BUFFERS]);
        let at = queue as u64 * QUEUE + part + u64::from(bytes.u8() & 0x7f);
        write(files, at, bytes.some(32));
        kick(queue, files);
    }

    /// Replies that have come. Those that a later one has overwritten do not count twice.
    pub(super) fn answered(&self, files: &Files) -> u32 {
        let mut places = self.replies.clone();
        places.sort_unstable();
        places.dedup();
        let is_there = |place: &&u64| {
            let mut header = [0; 16];
            matches!(rustix::io::pread(files.get(RAM), &mut header, **place), Ok(16)) && header != [0; 16]
        };
        places.iter().filter(is_there).count() as u32
    }
}

/// A descriptor whose last two fields depend on the format.
fn descriptor((address, length): (u64, u32), third: u16, fourth: u16) -> Vec<u8> {
    [
        address.as_bytes(),
        length.as_bytes(),
        third.as_bytes(),
        fourth.as_bytes(),
    ]
    .concat()
}

fn write(files: &Files, at: u64, bytes: &[u8]) {
    let end = at + bytes.len() as u64;
    assert!(end <= RAM_SIZE, "the memory does not grow: {end:#x}");
    rustix::io::pwrite(files.get(RAM), bytes, at).expect("a memfd");
}

fn kick(queue: usize, files: &Files) {
    // It may be one that the daemon has not been given.
    let _full_is_a_kick_too = rustix::io::write(files.get(KICKS + queue as u8), &1_u64.to_ne_bytes());
}
