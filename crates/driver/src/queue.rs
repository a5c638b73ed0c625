//! One virtqueue of the guest: requests go in as bytes, answers come out as bytes.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use guestmem::Memory;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use virtqueue::{Buffer, DriverQueue, QueueConfig, Token, features};

use crate::Error;
use crate::guest::Options;
use crate::ram::Allocator;

/// A request that was sent and not answered yet.
pub type Ticket = Token;

/// An answer: which request, the used length, and the bytes of the reply space that it covers.
pub type Answer = (Ticket, u32, Vec<u8>);

/// A started virtqueue.
#[derive(Debug)]
pub struct Queue {
    pub(crate) index: u16,
    pub(crate) config: QueueConfig,
    pub(crate) kick: OwnedFd,
    pub(crate) call: OwnedFd,
    pub(crate) error: OwnedFd,
    pub(crate) memory: Memory,
    pub(crate) ring: DriverQueue,
    pub(crate) places: Places,
    posted: HashMap<Ticket, Posted>,
    /// Answers that came while another one was waited for.
    answered: VecDeque<Answer>,
    cut: u32,
    indirect: bool,
    timeout: Duration,
}

/// Fixed places for requests in guest memory.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) free: Vec<u64>,
    pub(crate) size: u64,
}

#[derive(Debug)]
struct Posted {
    place: u64,
    reply: u64,
}

impl Queue {
    /// Lays out the ring, still unknown to the device.
    pub(crate) fn plan(index: u16, options: &Options, acknowledged: u64, ram: &mut Allocator) -> Plan {
        let has = |bit| acknowledged & bit != 0;
        let packed = has(features::RING_PACKED);
        let mut config = QueueConfig {
            packed,
            size: options.queue_size,
            descriptor: 0,
            driver: 0,
            device: 0,
            base: QueueConfig::fresh_base(packed),
            indirect: has(features::INDIRECT_DESC),
            event_idx: has(features::EVENT_IDX),
            in_order: has(features::IN_ORDER),
            chain_limit: QueueConfig::CHAIN_LIMIT,
        };
        ram.place_ring(&mut config);
        let free = (0..options.places).map(|_| ram.take(options.place_size)).collect();
        Plan {
            index,
            config,
            places: Places {
                free,
                size: options.place_size,
            },
        }
    }

    pub(crate) fn new(plan: Plan, options: &Options, memory: &Memory) -> Result<Self, Error> {
        let event = || {
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(Error::event("make an event descriptor"))
        };
        let Plan { index, config, places } = plan;
        Ok(Self {
            index,
            kick: event()?,
            call: event()?,
            error: event()?,
            memory: memory.clone(),
            ring: config.drive(memory)?,
            places,
            posted: HashMap::new(),
            answered: VecDeque::new(),
            cut: options.descriptor_bytes.max(1),
            indirect: options.indirect && config.indirect,
            timeout: options.timeout,
            config,
        })
    }

    /// Size, format and addresses of the ring.
    pub fn config(&self) -> &QueueConfig {
        &self.config
    }

    /// The ring itself, for whoever lays out chains himself.
    pub fn ring(&mut self) -> &mut DriverQueue {
        &mut self.ring
    }

    /// What the device signals when it interrupts: readable from then on until it is read.
    pub fn interrupt(&self) -> BorrowedFd<'_> {
        self.call.as_fd()
    }

    /// Guest address of a place of [`Options::place_size`] bytes, for a chain of the caller's own; `None` if all are taken.
    /// Places of one guest's queues are interchangeable.
    pub fn take_place(&mut self) -> Option<u64> {
        self.places.free.pop()
    }

    /// Ends [`take_place`](Self::take_place), once no posted chain lies there any more.
    pub fn return_place(&mut self, place: u64) {
        self.places.free.push(place);
    }

    /// Sends one request with space for a reply, and kicks if the device wants it.
    pub fn submit(&mut self, readable: &[u8], reply_space: u32) -> Result<Ticket, Error> {
        let ticket = self.post(readable, reply_space)?;
        if self.ring.kick_wanted() {
            self.kick()?;
        }
        Ok(ticket)
    }

    /// Sends one request and waits for its answer: the used length, and as many bytes of the reply space.
    pub fn call(&mut self, readable: &[u8], reply_space: u32) -> Result<(u32, Vec<u8>), Error> {
        let ticket = self.submit(readable, reply_space)?;
        let mut others = VecDeque::new();
        loop {
            let answer = self.wait()?;
            if answer.0 == ticket {
                others.append(&mut self.answered);
                self.answered = others;
                return Ok((answer.1, answer.2));
            }
            others.push_back(answer);
        }
    }

    /// The next answer, waiting for an interrupt if there is none.
    pub fn wait(&mut self) -> Result<Answer, Error> {
        loop {
            if let Some(answer) = self.poll()? {
                return Ok(answer);
            }
            if self.ring.arm_interrupt() {
                self.wait_for_interrupt()?;
            }
        }
    }

    /// The next answer if there is one.
    pub fn poll(&mut self) -> Result<Option<Answer>, Error> {
        if let Some(answer) = self.answered.pop_front() {
            return Ok(Some(answer));
        }
        let Some((ticket, written)) = self.ring.reap()? else {
            return Ok(None);
        };
        let mut bytes = vec![0; written as usize];
        // Chains that were posted by way of `ring` have no place here.
        if let Some(posted) = self.posted.remove(&ticket) {
            self.memory.read(posted.reply, &mut bytes)?;
            self.places.free.push(posted.place);
        }
        Ok(Some((ticket, written, bytes)))
    }

    /// Kicks the device, wanted or not.
    pub fn kick(&self) -> Result<(), Error> {
        rustix::io::write(&self.kick, &1_u64.to_ne_bytes()).map_err(Error::event("kick the device"))?;
        Ok(())
    }

    /// Waits until the device gives the ring up for broken. False if it does not.
    pub fn wait_for_error(&self) -> Result<bool, Error> {
        wait_for(&self.error, self.timeout)
    }

    /// Sleeps until the device interrupts, which it does for what is used after `arm_interrupt`.
    pub(crate) fn wait_for_interrupt(&self) -> Result<(), Error> {
        if !wait_for(&self.call, self.timeout)? {
            return Err(Error::Timeout { queue: self.index });
        }
        match rustix::io::read(&self.call, &mut [0; 8]) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(Error::event("read the interrupt")(errno)),
        }
    }

    fn post(&mut self, readable: &[u8], reply_space: u32) -> Result<Ticket, Error> {
        let reply_offset = (readable.len() as u64).next_multiple_of(16);
        let table_offset = (reply_offset + u64::from(reply_space)).next_multiple_of(16);
        let descriptors = readable.len() as u64 / u64::from(self.cut) + u64::from(reply_space / self.cut) + 2;
        let size = table_offset + 16 * descriptors;
        if size > self.places.size {
            return Err(Error::NoPlace { size });
        }
        let place = self.places.free.pop().ok_or(Error::NoPlace { size })?;
        let reply = place + reply_offset;
        self.memory.write(place, readable)?;
        let (readable, writable) = (
            self.pieces(place, readable.len() as u32),
            self.pieces(reply, reply_space),
        );
        let ticket = if self.indirect {
            self.ring.post_indirect(place + table_offset, &readable, &writable)
        } else {
            self.ring.post(&readable, &writable)
        };
        match ticket {
            Ok(ticket) => {
                self.posted.insert(ticket, Posted { place, reply });
                Ok(ticket)
            }
            Err(error) => {
                self.places.free.push(place);
                Err(error.into())
            }
        }
    }

    /// Cuts a buffer into descriptors: a device must not care where (VIRTIO 1.1 2.6.4).
    fn pieces(&self, address: u64, length: u32) -> Vec<Buffer> {
        (0..length)
            .step_by(self.cut as usize)
            .map(|offset| Buffer {
                address: address + u64::from(offset),
                length: self.cut.min(length - offset),
            })
            .collect()
    }
}

/// A queue that has its place in RAM, before there is RAM.
#[derive(Debug)]
pub(crate) struct Plan {
    index: u16,
    config: QueueConfig,
    places: Places,
}

fn wait_for(event: &OwnedFd, timeout: Duration) -> Result<bool, Error> {
    let limit = Timespec::try_from(timeout).ok();
    loop {
        match poll(
            &mut [PollFd::from_borrowed_fd(event.as_fd(), PollFlags::IN)],
            limit.as_ref(),
        ) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::event("wait for an event")(errno)),
        }
    }
}
