//! The worker of one queue: relays requests from /dev/fuse to the ring, and replies from the ring to /dev/fuse.
//!
//! The kernel copies a request straight into RAM that the daemon maps, and a reply straight out of it. A reply's
//! header is checked in place, although the daemon can change it afterwards. It could only forge replies to its own
//! file system, which it makes anyway.

use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backend::Polling;
use driver::Queue;
use fuse::wire::{self, Opcode};
use guestmem::{Memory, Pieces, Reader, RwFlags, Writer};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;
use virtqueue::Buffer;
use zerocopy::{FromBytes, IntoBytes};

use super::hiprio::Hiprio;
use super::layout::{self, HEAD};
use super::trouble::Trouble;

const OUT_HEADER: usize = size_of::<wire::OutHeader>();
/// While polling, a look in so many is at what takes a system call and is not what is waited for.
const LOOKS: u32 = 16;

/// What all workers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) memory: Memory,
    pub(super) hiprio: Mutex<Hiprio>,
    /// An event that tells all workers to stop at once.
    pub(super) stop: OwnedFd,
    /// For how long to look for a reply or a request before sleeping.
    pub(super) poll: Duration,
}

/// What a worker waits for, and which of it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
enum Event {
    /// /dev/fuse has a request, or has come to its end.
    Device,
    /// The daemon has interrupted.
    Interrupt,
    /// The same for the high-priority queue, which has messages kept.
    Hiprio,
    Stop,
}

/// A queue and its own descriptor of the connection to the kernel.
#[derive(Debug)]
pub(super) struct Worker<'s> {
    shared: &'s Shared,
    device: OwnedFd,
    queue: Queue,
    events: OwnedFd,
    /// What was posted, by its token.
    posted: Vec<Option<Posted>>,
    /// How many of them there are.
    in_flight: usize,
    /// Whether requests are waited for: not while all places are taken.
    listening: bool,
    /// Whether there may be a request to read.
    readable: bool,
    /// Whether the file system is gone, and with it all who waited.
    unmounted: bool,
    /// Kept for its space.
    pieces: Pieces,
    /// Of the ring, for replies.
    replies: Polling,
    /// Of /dev/fuse, while no reply is to come.
    requests: Polling,
    /// How often anything was looked at.
    looks: u32,
}

/// A request on its way.
#[derive(Clone, Copy, Debug)]
struct Posted {
    unique: u64,
    place: u64,
    /// Guest address of the reply.
    reply: u64,
}

impl<'s> Worker<'s> {
    pub(super) fn new(shared: &'s Shared, device: OwnedFd, queue: Queue) -> Result<Self, Trouble> {
        let failed = |errno: Errno| Trouble::system("set up event polling")(errno);
        let events = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        // By edges, so that the interrupt need not be read; what has come before the first wait counts.
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        let hiprio = shared.hiprio.lock().unwrap_or_else(PoisonError::into_inner);
        for (source, event, flags) in [
            (queue.interrupt(), Event::Interrupt, edge),
            (hiprio.interrupt(), Event::Hiprio, edge),
            (shared.stop.as_fd(), Event::Stop, epoll::EventFlags::IN),
        ] {
            epoll::add(&events, source, data(event), flags).map_err(failed)?;
        }
        drop(hiprio);
        let mut worker = Self {
            shared,
            device,
            events,
            posted: vec![None; queue.config().size.into()],
            in_flight: 0,
            listening: false,
            readable: false,
            unmounted: false,
            pieces: Pieces::new(&shared.memory),
            replies: Polling::new(shared.poll),
            requests: Polling::new(shared.poll),
            looks: 0,
            queue,
        };
        worker.listen(true)?;
        Ok(worker)
    }

    /// Relays until the file system is unmounted and nothing is on its way any more, and gives the queue back.
    pub(super) fn run(mut self) -> Result<Queue, Trouble> {
        loop {
            self.finish_replies()?;
            self.take_requests()?;
            if self.unmounted && self.in_flight == 0 {
                return Ok(self.queue);
            }
            if !self.look()? && self.queue.ring().arm_interrupt() {
                self.wait()?;
            }
        }
    }

    /// Looks for what comes next, if that pays, so that nobody has to be woken for it. Whether it has come.
    fn look(&mut self) -> Result<bool, Trouble> {
        let replies = self.in_flight > 0;
        let polling = if replies { &mut self.replies } else { &mut self.requests };
        if !polling.is_on() {
            return Ok(false);
        }
        let mut polling = mem::replace(polling, Polling::new(Duration::ZERO));
        let mut came = Ok(false);
        polling.run(
            || {
                came = self.look_once(replies);
                !matches!(came, Ok(false))
            },
            || false,
        );
        *if replies { &mut self.replies } else { &mut self.requests } = polling;
        came
    }

    /// Takes a reply, or else a request. Other requests are taken along while a reply is looked for.
    fn look_once(&mut self, reply: bool) -> Result<bool, Trouble> {
        self.looks = self.looks.wrapping_add(1);
        let at_all = self.looks.is_multiple_of(LOOKS);
        if at_all {
            self.obey_stop()?;
        }
        if reply && self.finish_replies()? {
            return Ok(true);
        }
        if self.listening && (at_all || !reply) {
            self.readable = true;
            self.take_requests()?;
        }
        Ok(!reply && (self.in_flight > 0 || self.unmounted))
    }

    fn obey_stop(&self) -> Result<(), Trouble> {
        let mut events = [PollFd::new(&self.shared.stop, PollFlags::IN)];
        match poll(&mut events, Some(&Timespec::default())) {
            Ok(0) | Err(Errno::INTR) => Ok(()),
            Ok(_) => Err(Trouble::Stopped),
            Err(errno) => Err(Trouble::wait(errno)),
        }
    }

    fn wait(&mut self) -> Result<(), Trouble> {
        let replies = self.in_flight > 0;
        let sleep = self.replies.sleep();
        let mut events = [const { std::mem::MaybeUninit::uninit() }; 4];
        let came = match epoll::wait(&self.events, &mut events, None) {
            Ok((came, _)) => came,
            Err(Errno::INTR) => return Ok(()),
            Err(errno) => return Err(Trouble::wait(errno)),
        };
        for event in came {
            match event.data.u64() {
                device if device == Event::Device as u64 => {
                    self.readable = true;
                    if let Some(sleep) = sleep.filter(|_| !replies) {
                        self.requests.slept(sleep.elapsed());
                    }
                }
                interrupt if interrupt == Event::Interrupt as u64 => {
                    if let Some(sleep) = sleep.filter(|_| replies) {
                        self.replies.slept(sleep.elapsed());
                    }
                }
                hiprio if hiprio == Event::Hiprio as u64 => self.hiprio().resume()?,
                stop if stop == Event::Stop as u64 => return Err(Trouble::Stopped),
                _ => {}
            }
        }
        Ok(())
    }

    /// Hands on all replies that are there. Whether there was one.
    fn finish_replies(&mut self) -> Result<bool, Trouble> {
        let mut finished = false;
        while let Some((token, written)) = self.queue.ring().reap().map_err(driver::Error::from)? {
            let posted = self.posted.get_mut(usize::from(token.0)).and_then(Option::take);
            let Some(posted) = posted else { continue };
            finished = true;
            self.in_flight -= 1;
            if !self.unmounted {
                self.reply(posted, written)?;
            }
            self.queue.return_place(posted.place);
            if !self.listening && !self.unmounted {
                self.listen(true)?;
            }
        }
        Ok(finished)
    }

    /// Hands a reply to the kernel, or an error where that cannot take it.
    fn reply(&mut self, posted: Posted, written: u32) -> Result<(), Trouble> {
        if !self.is_reply(posted, written) {
            tracing::warn!(request = posted.unique, written, "the daemon's reply is malformed");
            return self.refuse(posted.unique, Errno::IO);
        }
        self.pieces.clear();
        self.pieces
            .push(posted.reply, written.into())
            .map_err(driver::Error::from)?;
        let sent = Reader::new(&self.pieces).write_to(self.device.as_fd(), 0, written as usize, RwFlags::empty());
        match sent {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Nobody waits for it any more.
                Some(libc::ENOENT | libc::ENODEV) => Ok(()),
                _ => {
                    tracing::warn!(request = posted.unique, %error, "the kernel refused the daemon's reply");
                    self.refuse(posted.unique, Errno::IO)
                }
            },
        }
    }

    /// Whether what the daemon has written is one whole reply to this request: the kernel would leave the request waiting else, or
    /// (number 0) take it for a notification.
    fn is_reply(&self, posted: Posted, written: u32) -> bool {
        let mut header = [0; OUT_HEADER];
        let read = self.shared.memory.read(posted.reply, &mut header);
        let header = wire::OutHeader::read_from_bytes(&header);
        read.is_ok()
            && written as usize >= OUT_HEADER
            && header.is_ok_and(|header| header.len == written && header.unique == posted.unique)
    }

    /// Answers a request with an error of our own.
    fn refuse(&self, unique: u64, error: Errno) -> Result<(), Trouble> {
        let header = wire::OutHeader {
            len: OUT_HEADER as u32,
            error: -error.raw_os_error(),
            unique,
        };
        match rustix::io::write(&self.device, header.as_bytes()) {
            Ok(_) | Err(Errno::NOENT | Errno::NODEV) => Ok(()),
            Err(errno) => Err(Trouble::system("answer a request")(errno)),
        }
    }

    fn take_requests(&mut self) -> Result<(), Trouble> {
        while self.readable {
            let Some(place) = self.queue.take_place() else {
                self.readable = false;
                return self.listen(false);
            };
            let kept = self.take_request(place)?;
            if let Some(place) = kept {
                self.queue.return_place(place);
            }
            // One alone is most often all there is, and waiting finds out as cheaply as reading does. More come in batches.
            if self.in_flight == 1 {
                self.readable = false;
            }
        }
        Ok(())
    }

    /// Reads a request into `place` and sends it on. Answers a place that is free, if the request did not take it.
    fn take_request(&mut self, place: u64) -> Result<Option<u64>, Trouble> {
        let address = place + layout::REQUEST_AT;
        self.pieces.clear();
        self.pieces
            .push(address, layout::REQUEST_MAX)
            .map_err(driver::Error::from)?;
        let device = self.device.as_fd();
        let read = Writer::new(&self.pieces).read_from(device, 0, self.pieces.total(), RwFlags::empty());
        let length = match read {
            Ok(length) => length,
            Err(error) => {
                match error.raw_os_error() {
                    Some(libc::EAGAIN) => self.readable = false,
                    // Given up before it was read.
                    Some(libc::ENOENT | libc::EINTR) => {}
                    Some(libc::ENODEV) => {
                        self.unmounted = true;
                        self.readable = false;
                        self.listen(false)?;
                    }
                    _ => return Err(Trouble::system("read a request")(error)),
                }
                return Ok(Some(place));
            }
        };
        self.send(place, address, length as u32)
    }

    fn send(&mut self, place: u64, address: u64, length: u32) -> Result<Option<u64>, Trouble> {
        // Copied once: the daemon could change it while we look.
        let mut head = [0; HEAD];
        let known = head.len().min(length as usize);
        let read = self.shared.memory.read(address, &mut head[..known]);
        read.map_err(driver::Error::from)?;
        let Ok((header, _)) = wire::InHeader::read_from_prefix(&head) else {
            unreachable!("HEAD holds a header")
        };
        let request = Buffer { address, length };
        if let Some(Opcode::Forget | Opcode::BatchForget | Opcode::Interrupt) = Opcode::from_number(header.opcode) {
            return self.hiprio().send(place, request).map(Some);
        }
        let space = layout::reply_space(header.opcode, &head);
        let Some(reply_at) = layout::reply_at(length.into(), space) else {
            self.refuse(header.unique, Errno::IO)?;
            return Ok(Some(place));
        };
        let reply = Buffer {
            address: place + reply_at,
            length: space,
        };
        let token = self
            .queue
            .ring()
            .post(&[request], &[reply])
            .map_err(driver::Error::from)?;
        if let Some(posted) = self.posted.get_mut(usize::from(token.0)) {
            *posted = Some(Posted {
                unique: header.unique,
                place,
                reply: reply.address,
            });
            self.in_flight += 1;
        }
        // At once: a daemon that sleeps wakes while we read on, and one at work wants no kick.
        if self.queue.ring().kick_wanted() {
            self.queue.kick()?;
        }
        Ok(None)
    }

    fn hiprio(&self) -> MutexGuard<'_, Hiprio> {
        self.shared.hiprio.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins or ends to wait for requests. EPOLLEXCLUSIVE wakes one thread a request, and cannot be modified.
    fn listen(&mut self, on: bool) -> Result<(), Trouble> {
        let device: BorrowedFd<'_> = self.device.as_fd();
        let changed = match (self.listening, on) {
            (false, true) => {
                let flags = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
                epoll::add(&self.events, device, data(Event::Device), flags)
            }
            (true, false) => epoll::delete(&self.events, device),
            _ => Ok(()),
        };
        changed.map_err(Trouble::wait)?;
        self.listening = on;
        Ok(())
    }
}

fn data(event: Event) -> epoll::EventData {
    epoll::EventData::new_u64(event as u64)
}
