//! The high-priority queue, which takes what has no reply: FORGET, BATCH_FORGET and INTERRUPT (VIRTIO 1.2 5.11.2).
//!
//! Any thread may read such a message, so the queue is shared. Nobody waits for its answers: chains are taken back when the next
//! message needs a place.

use std::os::fd::{AsFd, BorrowedFd};

use driver::Queue;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use virtqueue::Buffer;

use super::worker::Trouble;

#[derive(Debug)]
pub(super) struct Hiprio {
    queue: Queue,
    /// The place of each posted chain, by its token.
    posted: Vec<Option<u64>>,
}

impl Hiprio {
    pub(super) fn new(mut queue: Queue) -> Self {
        queue.ring().disarm_interrupt();
        let posted = vec![None; queue.config().size.into()];
        Self { queue, posted }
    }

    /// Sends the message in `buffer`, which lies in `place`, and answers another place in exchange. Waits while the daemon has all
    /// places; `stop` calls that off.
    pub(super) fn send(&mut self, place: u64, buffer: Buffer, stop: BorrowedFd<'_>) -> Result<u64, Trouble> {
        let free = loop {
            self.take_back()?;
            if let Some(free) = self.queue.take_place() {
                break free;
            }
            if self.queue.ring().arm_interrupt() {
                self.wait(stop)?;
            }
        };
        // A place stands for one descriptor, and there are no more places than descriptors.
        let token = self.queue.ring().post(&[buffer], &[]).map_err(driver::Error::from)?;
        if let Some(posted) = self.posted.get_mut(usize::from(token.0)) {
            *posted = Some(place);
        }
        if self.queue.ring().kick_wanted() {
            self.queue.kick()?;
        }
        Ok(free)
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

    fn wait(&mut self, stop: BorrowedFd<'_>) -> Result<(), Trouble> {
        let interrupt = self.queue.interrupt();
        let mut events = [interrupt, stop].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        match poll(&mut events, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Trouble::wait(errno)),
        }
        let [called, stopped] = events.map(|event| !event.revents().is_empty());
        if stopped {
            return Err(Trouble::Stopped);
        }
        if called {
            // Cleared before the ring is looked at again, so that no later interrupt is lost. EAGAIN cannot hurt.
            let _ = rustix::io::read(interrupt.as_fd(), &mut [0; 8]);
        }
        self.queue.ring().disarm_interrupt();
        Ok(())
    }
}
