//! The running queues of one lane: their interface for the device, and the rest of the work on a ring.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use guestmem::Memory;
use rustix::event::PollFlags;
use rustix::io::Errno;
use tracing::{error, warn};
use virtqueue::{Chain, Early, Outcome, Pending, Queue, Served, Violation, Work};

use crate::Waker;
use crate::counters::Counters;
use crate::event::Event;
use crate::moderation::Moderation;

/// Chains served before the lane checks its commands and its other queues again.
const BATCH: u32 = 64;

/// Number of chains from which on a batch takes long compared with reading the clock.
const FEW: u64 = 8;
/// Of smaller batches, one in this many is measured.
const MEASURED_OF_SMALL: u64 = 16;

/// The queues of a lane. Interrupts, polling and broken rings are handled here.
pub struct Queues {
    pub(crate) rings: Vec<Ring>,
    waker: Waker,
    /// Kicks are off, because the lane polls.
    pub(crate) polled: bool,
}

/// A started queue with its descriptors.
pub(crate) struct Ring {
    pub(crate) index: u16,
    pub(crate) queue: Queue,
    /// The memory that the queue runs in.
    pub(crate) memory: Memory,
    pub(crate) kick: OwnedFd,
    pub(crate) call: Option<Arc<Event>>,
    pub(crate) error: Option<Arc<Event>>,
    pub(crate) enabled: bool,
    /// There may be buffers that no kick will announce.
    pub(crate) more: bool,
    /// A chain was put back: something other than a kick resumes it.
    pub(crate) put_back: bool,
    /// The driver broke the rules, the ring's memory is lost, or the kick descriptor is unusable: the queue serves no more.
    pub(crate) failed: bool,
    /// The ring is in no region of the present memory table. Front ends remove and add regions one by one when they change
    /// them, so it may come back.
    pub(crate) unreachable: bool,
    /// Kept chains are complete, and the driver may need an interrupt.
    completed: bool,
    moderation: Moderation,
    counters: Arc<Counters>,
    /// The part of the queue's work that is already counted.
    counted: Work,
    /// Batches of few chains so far.
    small_batches: u64,
}

impl Queues {
    pub(crate) fn new(waker: Waker) -> Queues {
        Queues {
            rings: Vec::new(),
            waker,
            polled: false,
        }
    }

    /// Passes available chains of queue `index` to `each`, one after another, up to a bound, after which the lane is
    /// called again. After a chain that was put back, the queue waits for a wake-up or for the next `serve`, not for
    /// a kick. Does nothing while the queue does not run.
    pub fn serve(&mut self, index: u16, each: impl FnMut(Chain<'_>) -> Outcome) {
        let Self { rings, waker, polled } = self;
        let ring = rings.iter_mut().find(|ring| ring.index == index && ring.is_ready());
        if let Some(ring) = ring {
            ring.queue.set_polled(*polled);
            ring.serve(waker, each);
        }
    }

    /// Completes a kept chain of queue `index`, with the first `written` bytes of its writable part written. The
    /// driver is interrupted once for all chains that are completed together.
    pub fn complete(&mut self, index: u16, kept: Pending, written: u32) {
        if let Some(ring) = self.ring(index) {
            ring.queue.complete(kept, written);
            ring.completed = true;
        }
    }

    /// Completes kept chains so that the driver finds all of them used or none. All but the last are written to the
    /// last byte.
    pub fn complete_together(&mut self, index: u16, kept: &[(Pending, u32)]) {
        if let Some(ring) = self.ring(index) {
            ring.queue.complete_together(kept);
            ring.completed = true;
        }
    }

    /// Puts back chains that [`serve`](Self::serve) has just handed out and that were kept, all from the first of them on: they are too few
    /// for what the device has to write. The queue waits for a kick that announces more of them, or for the next
    /// `serve`.
    pub fn put_back(&mut self, index: u16, kept: &[Pending]) {
        if let Some(ring) = self.ring(index) {
            let empty = ring.queue.put_back(kept);
            (ring.more, ring.put_back) = (!empty, empty);
            ring.discount();
        }
    }

    /// Whether queue `index` runs and is enabled.
    #[must_use]
    pub fn is_running(&self, index: u16) -> bool {
        self.rings.iter().any(|ring| ring.index == index && ring.is_ready())
    }

    /// Whether queue `index` has a chain that was put back and waits.
    #[must_use]
    pub fn is_waiting(&self, index: u16) -> bool {
        self.rings
            .iter()
            .any(|ring| ring.index == index && ring.is_ready() && ring.put_back)
    }

    pub(crate) fn ring(&mut self, index: u16) -> Option<&mut Ring> {
        self.rings.iter_mut().find(|ring| ring.index == index)
    }

    /// Whether a ring of this kind has available chains.
    pub(crate) fn has_available(&self, kind: impl Fn(&Ring) -> bool) -> bool {
        self.rings.iter().any(|ring| kind(ring) && ring.queue.has_available())
    }

    /// Takes the kicks of the ready rings, whose events are given in order. Returns whether there was one.
    pub(crate) fn take_kicks(&mut self, events: &[PollFlags]) -> bool {
        let mut kicked = false;
        let ready = self.rings.iter_mut().filter(|ring| ring.is_ready());
        for (ring, events) in ready.zip(events) {
            if !events.is_empty() && ring.take_kick(*events) {
                ring.more = true;
                kicked = true;
            }
        }
        kicked
    }

    /// Sends interrupts for the chains that [`complete`](Self::complete) has completed.
    pub(crate) fn tell_of_completed(&mut self) {
        for ring in self.rings.iter_mut().filter(|ring| ring.completed) {
            ring.completed = false;
            ring.count();
            if ring.queue.interrupt_wanted() {
                ring.interrupt();
            }
        }
    }
}

impl Ring {
    /// A ring that has just started: disabled, and without call and error descriptors.
    pub(crate) fn new(index: u16, queue: Queue, memory: Memory, kick: OwnedFd, counters: Arc<Counters>) -> Ring {
        Ring {
            index,
            queue,
            memory,
            kick,
            call: None,
            error: None,
            enabled: false,
            more: true,
            put_back: false,
            failed: false,
            unreachable: false,
            completed: false,
            moderation: Moderation::new(),
            counters,
            counted: Work::default(),
            small_batches: 0,
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.enabled && !self.failed && !self.unreachable
    }

    /// Whether polling the ring may find something to serve.
    pub(crate) fn is_open(&self) -> bool {
        self.is_ready() && !self.put_back
    }

    fn serve(&mut self, waker: &Waker, each: impl FnMut(Chain<'_>) -> Outcome) {
        let after = self.moderation.patience();
        let Self {
            index,
            queue,
            call,
            moderation,
            counters,
            ..
        } = self;
        let mut interrupt = || moderation.watch(|| interrupt(*index, call.as_deref(), counters));
        let start = Instant::now();
        let early = Early {
            start,
            end: &waker.0.commanded,
            after,
            interrupt: &mut interrupt,
        };
        let served = queue.serve_early(BATCH, early, each);
        self.log_lost_memory();
        let served = served.unwrap_or_else(|violation| {
            self.retire(violation);
            Served::default()
        });
        if served.interrupt {
            self.interrupt();
        }
        (self.more, self.put_back) = (served.more, served.put_back);
        let batches = match self.count() {
            0 => return,
            1..FEW => {
                self.small_batches = self.small_batches.wrapping_add(1);
                if self.small_batches % MEASURED_OF_SMALL == 1 {
                    MEASURED_OF_SMALL
                } else {
                    return;
                }
            }
            _ => 1,
        };
        let time = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.counters.busy_nanoseconds.add(time.saturating_mul(batches));
    }

    /// Updates the counters and returns the number of served chains.
    fn count(&mut self) -> u64 {
        let work = self.queue.work();
        let before = std::mem::replace(&mut self.counted, work);
        if work == before {
            return 0;
        }
        let chains = work.chains - before.chains;
        self.counters.requests.add(chains);
        self.counters.bytes.add(work.bytes.wrapping_sub(before.bytes));
        chains
    }

    /// Takes chains that were put back out of the counters.
    fn discount(&mut self) {
        let work = self.queue.work();
        let before = std::mem::replace(&mut self.counted, work);
        self.counters.requests.add(work.chains.wrapping_sub(before.chains));
        self.counters.bytes.add(work.bytes.wrapping_sub(before.bytes));
    }

    fn take_kick(&mut self, events: PollFlags) -> bool {
        match drain(&self.kick) {
            Drained::Signal => {
                self.counters.kicks.add(1);
                true
            }
            Drained::Nothing if !events.intersects(PollFlags::NVAL | PollFlags::ERR | PollFlags::HUP) => false,
            // A file that is always readable, or a pipe without a writer, would keep this thread busy for ever.
            Drained::Nothing | Drained::Broken => {
                warn!(
                    queue = self.index,
                    "the kick descriptor is broken; this queue is out of service"
                );
                self.fail();
                false
            }
        }
    }

    fn retire(&mut self, violation: Violation) {
        let queue = self.index;
        if violation == Violation::MemoryLost {
            error!(queue, %violation, "this queue is out of service until it is reset");
        } else {
            warn!(queue, %violation, "the driver broke the rules of the ring; this queue is out of service until it is reset");
        }
        if self.queue.interrupt_wanted() {
            self.interrupt();
        }
        self.fail();
    }

    /// Logs one line per lost region, from whichever queue notices first.
    fn log_lost_memory(&self) {
        while let Some(lost) = self.memory.take_loss() {
            error!(
                queue = self.index,
                "lost {lost}; requests with buffers in this region fail, and queues in it go out of service"
            );
        }
    }

    pub(crate) fn fail(&mut self) {
        self.failed = true;
        self.counters.errors.add(1);
        if let Some(error) = &self.error {
            error.signal(self.index, "error");
        }
    }

    pub(crate) fn use_memory(&mut self, memory: Memory) {
        // After an error the queue holds its old memory, and must not touch it.
        let replaced = self.queue.replace_memory(&memory);
        if let Err(error) = &replaced {
            warn!(queue = self.index, %error, "the ring is not in the new memory; this queue stops until it is");
        }
        self.unreachable = replaced.is_err();
        self.memory = memory;
        self.more = true;
    }

    pub(crate) fn interrupt(&self) {
        interrupt(self.index, self.call.as_deref(), &self.counters);
    }
}

fn interrupt(queue: u16, call: Option<&Event>, counters: &Counters) {
    if let Some(call) = call {
        counters.interrupts.add(1);
        call.signal(queue, "call");
    }
}

/// Result of reading an event descriptor.
pub(crate) enum Drained {
    Signal,
    Nothing,
    Broken,
}

/// Empties an eventfd, or takes some signals off a pipe.
pub(crate) fn drain(descriptor: &OwnedFd) -> Drained {
    match rustix::io::retry_on_intr(|| rustix::io::read(descriptor, &mut [0; 8])) {
        Ok(0) => Drained::Broken,
        Ok(_) => Drained::Signal,
        Err(Errno::AGAIN) => Drained::Nothing,
        Err(_) => Drained::Broken,
    }
}
