//! Arbitrary bytes as chains, ring contents and commands of a front end. The device answers or retires its queue,
//! serves the next guest, and leaks no descriptors, threads or mappings. The fuzz target `rng` runs the same body.

#[path = "../common/resources.rs"]
mod resources;

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use ::driver::{Error, Guest};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{Mode, OFlags, open};
use vhost_user::message::VringAddress;
use virtqueue::QueueConfig;
use virtqueue::features::{EVENT_IDX, IN_ORDER, INDIRECT_DESC};

use crate::bytes::Bytes;
use crate::driver::{Daemon, Origin, PLACE, options};

use self::resources::Resources;

/// What takes longer hangs.
const LIMIT: Duration = Duration::from_secs(20);
/// Longer sessions take no input to new places.
const MOST_STEPS: u32 = 100;
/// Entries of the queue.
const SIZE: u16 = 16;
/// Enough for all chains of a session.
const PLENTY: u64 = 16 << 20;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// How sessions ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    /// All that was available was answered.
    pub(crate) answered: u32,
    /// The driver had broken the rules of its ring.
    pub(crate) retired: u32,
    /// The position at which the driver wanted its queue to start is none.
    pub(crate) refused: u32,
}

/// Runs the guests that the bytes describe, one or two, and then a proper one.
pub(crate) fn run(bytes: &[u8]) -> Outcome {
    let start = Resources::now();
    let mut bytes = Bytes(bytes);
    let source = Supply::new(bytes.u8());
    let rate = bytes.one(&[None, Some(1 << 24), Some(1000)]);
    let daemon = source.origin.serve_at(rate);
    let before = Resources::now();
    let mut outcome = Outcome::default();
    let two = bytes.u8() % 4 == 0;
    let (first, second) = bytes.0.split_at(if two { bytes.0.len() / 2 } else { bytes.0.len() });
    for bytes in [first, second] {
        if !bytes.is_empty() {
            let session = Session::connect(&daemon, &source, &mut Bytes(bytes));
            // With the lowest rate, it would take too long to see that all is answered.
            session.run(&mut Bytes(bytes), rate != Some(1000), &mut outcome);
            before.await_return();
        }
    }
    source.give_plenty();
    let answer = daemon.connect(&options(false)).ask(100);
    assert!(!answer.is_empty(), "the next guest is served");
    before.await_return();
    drop(daemon);
    start.await_return();
    outcome
}

/// A file that may have nothing to give.
struct Supply {
    origin: Origin,
    is_fifo: bool,
}

impl Supply {
    fn new(choice: u8) -> Self {
        let is_fifo = choice & 1 != 0;
        let origin = if is_fifo {
            Origin::fifo()
        } else {
            Origin::file(b"some bytes")
        };
        Self { origin, is_fifo }
    }

    fn give(&self, bytes: &[u8]) {
        // A full FIFO has enough.
        let _full = self.writer().write(bytes);
    }

    fn give_plenty(&self) {
        if self.is_fifo {
            self.give(&[1; 1 << 16]);
        } else {
            let file = self.writer();
            let length = file.metadata().expect("a file").len();
            file.set_len(length + PLENTY).expect("a sparse file");
        }
    }

    fn writer(&self) -> File {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::CLOEXEC;
        open(self.origin.path(), flags, Mode::empty()).expect("a source").into()
    }
}

/// A guest that writes its rings by itself.
struct Session<'a> {
    guest: Guest,
    source: &'a Supply,
    config: QueueConfig,
    /// Where buffers lie.
    place: u64,
    kick: OwnedFd,
    call: OwnedFd,
    error: OwnedFd,
    /// Chains made available in a split ring, or the next slot of a packed one.
    position: u16,
    /// The wrap counter of a packed ring.
    wrap: bool,
    has_memory: bool,
    closed: bool,
}

impl<'a> Session<'a> {
    fn connect(daemon: &Daemon, source: &'a Supply, bytes: &mut Bytes<'_>) -> Self {
        let choice = bytes.u8();
        let has = |bit: u8, feature| if choice >> bit & 1 != 0 { feature } else { 0 };
        let client = daemon.connect(&::driver::Options {
            queue_size: SIZE,
            features: has(1, EVENT_IDX) | has(2, IN_ORDER) | has(3, INDIRECT_DESC),
            timeout: LIMIT,
            ..options(choice & 1 != 0)
        });
        let mut guest = client.0;
        let queue = &mut guest.queues[0];
        let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an event");
        let mut session = Self {
            config: queue.config().clone(),
            place: queue.take_place().expect("a place"),
            guest,
            source,
            kick: event(),
            call: event(),
            error: event(),
            position: 0,
            wrap: true,
            has_memory: true,
            closed: false,
        };
        let base = session.stop().expect("an untouched queue");
        assert!(session.start(base, 255), "a queue starts again where it stopped");
        session
    }

    fn run(mut self, bytes: &mut Bytes<'_>, to_the_end: bool, outcome: &mut Outcome) {
        let mut steps = 0;
        while !bytes.is_empty() && steps < MOST_STEPS && !self.closed {
            steps += 1;
            self.step(bytes);
        }
        if to_the_end && !self.closed {
            self.assert_answered_or_retired(outcome);
        }
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.u8() {
            0..=109 => {
                self.post(bytes);
                self.kick();
            }
            110..=129 => self.source.give(bytes.some(200)),
            130..=144 => {
                if let Some(base) = self.stop() {
                    self.start(base, bytes.u8());
                }
            }
            145..=149 => {
                self.stop();
                self.start(bytes.u32() & 0x800f_800f, bytes.u8());
            }
            150..=164 => {
                let enabled = self.guest.frontend().set_vring_enable(0, bytes.u8() & 1 != 0);
                self.answered(enabled.map_err(Error::from));
            }
            165..=184 => self.move_memory(),
            185..=194 => {
                let base = self.stop().unwrap_or(0);
                let reset = self.guest.frontend().reset_device();
                self.answered(reset.map_err(Error::from));
                self.start(base, bytes.u8());
            }
            195..=204 => {
                let part = bytes.one(&[self.config.descriptor, self.config.driver, self.config.device]);
                self.write(part + u64::from(bytes.u8()), bytes.some(40));
                self.kick();
            }
            205..=229 => self.kick(),
            _ => {
                let config = self.guest.device_config(bytes.u8().into());
                if let Some(config) = self.answered(config) {
                    assert!(config.iter().all(|byte| *byte == 0));
                }
            }
        }
    }

    /// Makes a chain of some descriptors available, not all of them sensible.
    fn post(&mut self, bytes: &mut Bytes<'_>) {
        let count = u16::from(bytes.u8() % 4) + 1;
        let descriptors: Vec<_> = (1..=count)
            .map(|number| self.descriptor(bytes, number < count))
            .collect();
        if self.config.packed {
            self.post_packed(&descriptors);
        } else {
            self.post_split(&descriptors);
        }
    }

    /// Address, length and flags.
    fn descriptor(&self, bytes: &mut Bytes<'_>, more: bool) -> (u64, u32, u16) {
        let address = match bytes.u8() {
            choice @ 0..=219 => self.place + (u64::from(choice) << 5),
            220..=229 => self.place + PLACE - 10,
            230..=239 => self.config.descriptor,
            _ => bytes.u64(),
        };
        let length = match bytes.u8() {
            choice @ 0..=199 => u32::from(choice),
            200..=239 => u32::from(bytes.u16()),
            _ => bytes.u32(),
        };
        let next = if more { NEXT } else { 0 };
        let flags = match bytes.u8() {
            0..=239 => WRITE | next,
            240..=245 => next,
            246..=251 => INDIRECT,
            _ => bytes.u16(),
        };
        (address, length, flags)
    }

    fn post_split(&mut self, descriptors: &[(u64, u32, u16)]) {
        let head = self.position.wrapping_mul(4) % SIZE;
        for (slot, &(address, length, flags)) in std::iter::zip(head.., descriptors) {
            self.write_descriptor(slot % SIZE, address, length, flags, (slot + 1) % SIZE);
        }
        let entry = self.config.driver + 4 + 2 * u64::from(self.position % SIZE);
        self.write(entry, &head.to_le_bytes());
        self.position = self.position.wrapping_add(1);
        self.write(self.config.driver + 2, &self.position.to_le_bytes());
    }

    /// The first descriptor last, since it makes the chain available.
    fn post_packed(&mut self, descriptors: &[(u64, u32, u16)]) {
        let mut written = Vec::new();
        for &(address, length, flags) in descriptors {
            let available = if self.wrap { 1 << 7 } else { 1 << 15 };
            let flags = flags & !(1 << 7 | 1 << 15) | available;
            written.push((self.position, address, length, flags));
            self.position = (self.position + 1) % SIZE;
            self.wrap ^= self.position == 0;
        }
        for (slot, address, length, flags) in written.into_iter().rev() {
            self.write_descriptor(slot, address, length, slot, flags);
        }
    }

    /// The last two fields depend on the format.
    fn write_descriptor(&self, slot: u16, address: u64, length: u32, third: u16, fourth: u16) {
        let at = self.config.descriptor + 16 * u64::from(slot);
        self.write(at, &address.to_le_bytes());
        self.write(at + 8, &length.to_le_bytes());
        self.write(at + 12, &third.to_le_bytes());
        self.write(at + 14, &fourth.to_le_bytes());
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.guest.memory().write(at, bytes).expect("guest memory");
    }

    fn read_u16(&self, at: u64) -> u16 {
        let mut bytes = [0; 2];
        self.guest.memory().read(at, &mut bytes).expect("guest memory");
        u16::from_le_bytes(bytes)
    }

    fn kick(&self) {
        let _full_is_a_kick_too = rustix::io::write(&self.kick, &1_u64.to_ne_bytes());
    }

    fn stop(&mut self) -> Option<u32> {
        let stopped = self.guest.stop(0);
        self.answered(stopped)
    }

    /// Starts the queue, or leaves out or exchanges a message, as `choice` says. Whether no message was refused.
    fn start(&mut self, base: u32, choice: u8) -> bool {
        let mut order: Vec<_> = (0..7).collect();
        match choice {
            0..=31 => {
                order.remove(usize::from(choice) % order.len());
            }
            32..=63 => order.swap(usize::from(choice & 3), usize::from(choice >> 2 & 3) + 3),
            _ => {}
        }
        let address = VringAddress {
            index: 0,
            flags: 0,
            descriptor: self.config.descriptor,
            used: self.config.device,
            available: self.config.driver,
            log: 0,
        };
        let mut granted = true;
        for message in order {
            let frontend = self.guest.frontend();
            let sent = match message {
                0 => frontend.set_vring_call(0, Some(self.call.as_fd())),
                1 => frontend.set_vring_err(0, Some(self.error.as_fd())),
                2 => frontend.set_vring_num(0, SIZE.into()),
                3 => frontend.set_vring_base(0, base),
                4 => frontend.set_vring_address(address),
                5 => frontend.set_vring_kick(0, Some(self.kick.as_fd())),
                _ => frontend.set_vring_enable(0, true),
            };
            granted &= self.answered(sent.map_err(Error::from)).is_some();
        }
        granted
    }

    fn move_memory(&mut self) {
        let moved = if self.has_memory {
            self.guest.take_memory_away()
        } else {
            self.guest.give_memory_back()
        };
        self.answered(moved).expect("the region is there, or is not");
        self.has_memory = !self.has_memory;
    }

    /// The answer to a message; `None` if it was refused, or the connection is closed.
    fn answered<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(answer) => return Some(answer),
            Err(Error::Protocol(vhost_user::Error::Refused { .. })) => {}
            Err(Error::Protocol(error @ vhost_user::Error::Timeout(_))) => panic!("the device hangs: {error}"),
            Err(_) => self.closed = true,
        }
        None
    }

    /// Once the source has enough, nothing stays available in a queue that works.
    fn assert_answered_or_retired(&mut self, outcome: &mut Outcome) {
        if !self.has_memory {
            self.move_memory();
        }
        let started = Instant::now();
        loop {
            if rustix::io::read(&self.error, &mut [0; 8]).is_ok() {
                outcome.retired += 1;
                return;
            }
            let Some(base) = self.stop() else { return };
            if !self.is_available(base) {
                outcome.answered += 1;
                return;
            }
            assert!(started.elapsed() < LIMIT, "a chain at {base:#x} is not answered");
            self.source.give_plenty();
            if !self.start(base, 255) {
                outcome.refused += 1;
                return;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Whether a chain is available at the device's position.
    fn is_available(&self, base: u32) -> bool {
        if !self.config.packed {
            return self.read_u16(self.config.driver + 2) != base as u16;
        }
        let (slot, wrap) = (base & 0x7fff, base >> 15 & 1 != 0);
        let flags = self.read_u16(self.config.descriptor + 16 * u64::from(slot) + 14);
        (flags >> 7 & 1 != 0) == wrap && (flags >> 15 & 1 != 0) != wrap
    }
}
