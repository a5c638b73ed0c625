//! The high-priority queue for messages without a reply: FORGET, BATCH_FORGET and INTERRUPT (VIRTIO 1.2 5.11.2).
//!
//! Any thread may read such a message, so that the queue is shared. Nothing waits for its answers: chains are
//! reclaimed when the next message needs a buffer. No thread that has requests to relay waits for the daemon because
//! of such a message: the message is kept until a buffer is free.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

use driver::Queue;
use guestmem::Memory;
use virtqueue::Buffer;

use super::layout::REQUEST_AT;
use super::trouble::Trouble;

/// Most bytes of messages that are kept: a million FORGETs. A daemon that is so far behind takes none at all.
const KEPT_MOST: usize = 64 << 20;

#[derive(Debug)]
pub(super) struct Hiprio {
    queue: Queue,
    memory: Memory,
    /// The place of each posted chain, by its token.
    posted: Vec<Option<u64>>,
    /// Messages that found no place, the oldest first, and their bytes.
    kept: VecDeque<Vec<u8>>,
    kept_bytes: usize,
    /// Whether it was said that messages are lost.
    losing: bool,
}

impl Hiprio {
    pub(super) fn new(mut queue: Queue, memory: Memory) -> Self {
        queue.ring().disarm_interrupt();
        let posted = vec![None; queue.config().size.into()];
        Self {
            queue,
            memory,
            posted,
            kept: VecDeque::new(),
            kept_bytes: 0,
            losing: false,
        }
    }

    /// What the daemon signals when there are places for messages that are kept.
    pub(super) fn interrupt(&self) -> BorrowedFd<'_> {
        self.queue.interrupt()
    }

    /// Sends the message in `buffer`, which lies in `place`, and answers a place in exchange. While the daemon has all places of this
    /// queue, that is the same one, and a copy of the message is kept.
    pub(super) fn send(&mut self, place: u64, buffer: Buffer) -> Result<u64, Trouble> {
        self.take_back()?;
        if self.kept.is_empty()
            && let Some(free) = self.queue.take_place()
        {
            self.post(place, buffer)?;
            return Ok(free);
        }
        self.keep(buffer)?;
        self.resume()?;
        Ok(place)
    }

    /// Sends what is kept, as far as there are places; the daemon is to interrupt when there are more.
    pub(super) fn resume(&mut self) -> Result<(), Trouble> {
        loop {
            self.take_back()?;
            while !self.kept.is_empty()
                && let Some(place) = self.queue.take_place()
                && let Some(message) = self.kept.pop_front()
            {
                self.kept_bytes -= message.len();
                let buffer = Buffer {
                    address: place + REQUEST_AT,
                    length: message.len() as u32,
                };
                self.memory
                    .write(buffer.address, &message)
                    .map_err(driver::Error::from)?;
                self.post(place, buffer)?;
            }
            if self.kept.is_empty() {
                self.queue.ring().disarm_interrupt();
                return Ok(());
            }
            if self.queue.ring().arm_interrupt() {
                return Ok(());
            }
        }
    }

    fn keep(&mut self, buffer: Buffer) -> Result<(), Trouble> {
        let mut message = vec![0; buffer.length as usize];
        if self.kept_bytes + message.len() > KEPT_MOST {
            if !self.losing {
                tracing::warn!("the daemon accepts no FORGETs; from now on some are dropped, and it keeps their nodes");
            }
            self.losing = true;
            return Ok(());
        }
        self.memory
            .read(buffer.address, &mut message)
            .map_err(driver::Error::from)?;
        self.kept_bytes += message.len();
        self.kept.push_back(message);
        Ok(())
    }

    /// Posts the message in `buffer`, which lies in `place`.
    fn post(&mut self, place: u64, buffer: Buffer) -> Result<(), Trouble> {
        // A place stands for one descriptor, and there are no more places than descriptors.
        let token = self.queue.ring().post(&[buffer], &[]).map_err(driver::Error::from)?;
        if let Some(posted) = self.posted.get_mut(usize::from(token.0)) {
            *posted = Some(place);
        }
        if self.queue.ring().kick_wanted() {
            self.queue.kick()?;
        }
        Ok(())
    }

    fn take_back(&mut self) -> Result<(), Trouble> {
        while let Some((token, _)) = self.queue.ring().reap().map_err(driver::Error::from)? {
            let place = self.posted.get_mut(usize::from(token.0)).and_then(Option::take);
            if let Some(place) = place {
                self.queue.return_place(place);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixListener;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::sync::{Arc, Mutex};
    use std::thread;
    use std::time::{Duration, Instant};

    use backend::{Device, Lane, Lanes, Queues, Setup, Waker};
    use driver::{Guest, Options};
    use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
    use virtqueue::features::EVENT_IDX;

    use super::*;

    /// Takes messages once it is told to.
    #[derive(Debug, Default)]
    struct Sluggish {
        takes: Arc<AtomicBool>,
        taken: Arc<Mutex<Vec<u64>>>,
        waker: Mutex<Option<Waker>>,
    }

    struct SluggishLane {
        takes: Arc<AtomicBool>,
        taken: Arc<Mutex<Vec<u64>>>,
    }

    impl Device for Sluggish {
        fn queue_count(&self) -> u16 {
            2
        }
        fn config(&self) -> Vec<u8> {
            Vec::new()
        }
        fn start(&self, _: &Setup, lanes: &mut Lanes) -> io::Result<()> {
            lanes.add(&[0], |waker| {
                *self.waker.lock().unwrap() = Some(waker.clone());
                SluggishLane {
                    takes: Arc::clone(&self.takes),
                    taken: Arc::clone(&self.taken),
                }
            })?;
            lanes.add(&[1], |_| SluggishLane {
                takes: Arc::clone(&self.takes),
                taken: Arc::clone(&self.taken),
            })
        }
        fn reset(&self) {}
    }

    impl Lane for SluggishLane {
        fn serve(&mut self, index: u16, queues: &mut Queues) {
            if !self.takes.load(SeqCst) {
                return;
            }
            queues.serve(index, |mut chain| {
                let message: u64 = chain.reader.read_object().unwrap();
                self.taken.lock().unwrap().push(message);
                chain.done(0)
            });
        }
    }

    #[test]
    fn a_daemon_that_takes_no_messages_holds_up_nobody_and_gets_them_later() {
        const MESSAGES: u64 = 10;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let stop = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let device = Sluggish::default();
        thread::scope(|scope| {
            scope.spawn(|| backend::serve(&listener, &device, backend::Options::default(), stop.as_fd()).unwrap());
            let options = Options {
                queue_size: 4,
                features: EVENT_IDX,
                indirect: false,
                places: 2,
                place_size: 8192,
                window: false,
                ..Options::default()
            };
            let mut guest = Guest::connect(&path, &options).unwrap();
            let memory = guest.memory().clone();
            let mut requests = guest.queues.remove(1);
            let mut hiprio = Hiprio::new(guest.queues.remove(0), memory.clone());
            for message in 0..MESSAGES {
                let place = requests.take_place().unwrap();
                let address = place + REQUEST_AT;
                memory.write(address, &message.to_le_bytes()).unwrap();
                let place = hiprio.send(place, Buffer { address, length: 8 }).unwrap();
                requests.return_place(place);
            }
            assert!(device.taken.lock().unwrap().is_empty());

            device.takes.store(true, SeqCst);
            device.waker.lock().unwrap().as_ref().unwrap().wake();
            let patience = Timespec { tv_sec: 30, tv_nsec: 0 };
            while !hiprio.kept.is_empty() {
                let interrupt = hiprio.interrupt();
                let came = poll(
                    &mut [PollFd::from_borrowed_fd(interrupt, PollFlags::IN)],
                    Some(&patience),
                )
                .unwrap();
                assert_eq!(came, 1, "nobody tells of free places");
                rustix::io::read(interrupt, &mut [0; 8]).unwrap();
                hiprio.resume().unwrap();
            }
            let deadline = Instant::now() + Duration::from_secs(30);
            while device.taken.lock().unwrap().len() < MESSAGES as usize {
                assert!(Instant::now() < deadline, "some are lost");
                thread::yield_now();
            }
            drop((hiprio, requests, guest));
            rustix::io::write(&stop, &1_u64.to_ne_bytes()).unwrap();
        });
        assert_eq!(*device.taken.lock().unwrap(), (0..MESSAGES).collect::<Vec<_>>());
    }
}
