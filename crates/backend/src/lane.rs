//! The one event loop: a thread that owns one started queue, its kick, its call and its error descriptor.
//!
//! The control plane talks to it by commands and waits for the answer, so that after a command nothing of the old state is in
//! use any more: no ring access after a stop (vhost-user "Starting and stopping rings"), none to a region that was removed.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use guestmem::Memory;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tracing::{error, warn};
use virtqueue::{Early, InFlight, Queue, Served, Violation};

use crate::early::Experience;
use crate::event::Event;
use crate::polling::Polling;
use crate::{Lane, Waker};

/// What a lane thread is started with.
pub(crate) struct Start {
    /// Queue index, for messages.
    pub(crate) index: u16,
    pub(crate) queue: Queue,
    /// What the queue was started with.
    pub(crate) memory: Memory,
    pub(crate) lane: Box<dyn Lane>,
    pub(crate) waker: Waker,
    pub(crate) kick: OwnedFd,
    pub(crate) call: Option<Arc<Event>>,
    pub(crate) error: Option<Arc<Event>>,
    pub(crate) enabled: bool,
    /// See `Options::poll`.
    pub(crate) poll: Duration,
}

/// The control plane's end of a lane. Dropping it stops the thread.
pub(crate) struct LaneHandle {
    commands: Sender<(Command, SyncSender<()>)>,
    waker: Waker,
    thread: Option<JoinHandle<Queue>>,
}

/// Why a stopped ring has no position to resume from.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    #[error("the lane of this queue ended in a panic; its position is lost")]
    Panic,
    #[error("the position of this queue is lost: {0}")]
    InFlight(#[from] InFlight),
}

enum Command {
    Call(Option<Arc<Event>>),
    Error(Option<Arc<Event>>),
    Enable(bool),
    Memory(Memory),
    Stop,
}

impl LaneHandle {
    /// Starts the thread. It looks at the queue at once: buffers may be waiting from before (a resumed ring).
    pub(crate) fn start(start: Start) -> io::Result<LaneHandle> {
        let index = start.index;
        let waker = start.waker.clone();
        let (commands, inbox) = channel();
        let rest = start.lane.rest();
        let polling = Polling::new(if rest.is_zero() { start.poll } else { Duration::ZERO });
        let runner = Runner {
            start,
            inbox,
            more: true,
            failed: false,
            unreachable: false,
            early: Experience::new(),
            polling,
            rest,
            resting: false,
        };
        let thread = std::thread::Builder::new()
            .name(format!("lane-{index}"))
            .spawn(move || runner.run())?;
        Ok(LaneHandle {
            commands,
            waker,
            thread: Some(thread),
        })
    }

    /// Uses another call descriptor, and signals it once: an interrupt may have gone to the old one unseen.
    pub(crate) fn set_call(&self, call: Option<Arc<Event>>) {
        self.send(Command::Call(call));
    }

    /// Uses another error descriptor.
    pub(crate) fn set_error(&self, error: Option<Arc<Event>>) {
        self.send(Command::Error(error));
    }

    /// Enables or disables the ring; while disabled no buffer is taken.
    pub(crate) fn enable(&self, enabled: bool) {
        self.send(Command::Enable(enabled));
    }

    /// Uses another snapshot of guest memory.
    pub(crate) fn set_memory(&self, memory: &Memory) {
        self.send(Command::Memory(memory.clone()));
    }

    /// Has the lane look at its queue: a chain that it put back may be served now.
    pub(crate) fn look_again(&self) {
        self.waker.wake();
    }

    /// Stops the thread and gives the position to resume from (GET_VRING_BASE).
    pub(crate) fn stop(mut self) -> Result<u32, Lost> {
        Ok(self.join().ok_or(Lost::Panic)?.position()?)
    }

    /// `None` if the thread has died, or was joined before.
    fn join(&mut self) -> Option<Queue> {
        let thread = self.thread.take()?;
        self.send(Command::Stop);
        thread.join().ok()
    }

    fn send(&self, command: Command) {
        let (done, answered) = sync_channel(1);
        if self.commands.send((command, done)).is_ok() {
            self.waker.0.commanded.store(true, Ordering::Release);
            self.waker.wake();
            // An error means that the thread is gone, which `join` reports.
            let _gone = answered.recv();
        }
    }
}

impl Drop for LaneHandle {
    fn drop(&mut self) {
        self.join();
    }
}

struct Runner {
    start: Start,
    inbox: Receiver<(Command, SyncSender<()>)>,
    /// There may be buffers that no kick will tell of.
    more: bool,
    /// The driver broke the rules, the ring's memory is lost, or the kick descriptor is unusable: the queue serves no more.
    failed: bool,
    /// The ring is in no region of the present memory table. Front ends remove and add regions one by one when they change
    /// them, so it may come back.
    unreachable: bool,
    early: Experience,
    polling: Polling,
    /// See [`Lane::rest`].
    rest: Duration,
    /// It rests when it has nothing to do, instead of waiting for a kick.
    resting: bool,
}

/// What there is to do after a wake-up.
#[derive(Default)]
struct Woken {
    /// The control plane has a command, or means that there is something to serve, or a chain that was kept is finished.
    command: bool,
    kick: bool,
}

impl Runner {
    fn run(mut self) -> Queue {
        loop {
            let busy = self.ready() && self.more;
            let woken = if busy && self.polling.is_on() && !self.is_woken() {
                Woken::default()
            } else {
                self.wait(self.ready(), busy)
            };
            if woken.command {
                self.complete(|lane, queue| lane.complete(queue));
                if self.obey() == Next::Stop {
                    return self.start.queue;
                }
            }
            self.more |= woken.kick || woken.command || self.resting;
            if self.ready() && self.more {
                self.more = self.serve();
            }
        }
    }

    fn ready(&self) -> bool {
        self.start.enabled && !self.failed && !self.unreachable
    }

    /// Waits for a command or a kick, or for the end of a rest; not at all when there is more to serve.
    fn wait(&mut self, kicks: bool, at_once: bool) -> Woken {
        self.start.waker.0.raised.swap(false, Ordering::AcqRel);
        let rests = kicks && self.resting;
        let limit = match (at_once, rests) {
            (true, _) => Some(Duration::ZERO),
            (false, true) => Some(self.rest),
            (false, false) => None,
        };
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let mut descriptors = [
            PollFd::new(&self.start.waker.0.descriptor, PollFlags::IN),
            PollFd::new(&self.start.kick, PollFlags::IN),
        ];
        let sleep = self.polling.sleep().filter(|_| !at_once);
        let watched = &mut descriptors[..if kicks && !rests { 2 } else { 1 }];
        match poll(watched, limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => {
                // Nothing is known to be ready; `obey` finds out about commands without blocking.
                error!(queue = self.start.index, %errno, "cannot wait for kicks");
                return Woken {
                    command: true,
                    kick: false,
                };
            }
        }
        let command = !watched[0].revents().is_empty();
        let kick = watched.get(1).map_or(PollFlags::empty(), PollFd::revents);
        if command {
            let _emptied = drain(&self.start.waker.0.descriptor);
        }
        if let Some(sleep) = sleep.filter(|_| !kick.is_empty()) {
            self.polling.slept(sleep.elapsed());
        }
        Woken {
            command,
            kick: !kick.is_empty() && self.kicked(kick),
        }
    }

    /// Whether `wait` has a command, without a system call.
    fn is_woken(&self) -> bool {
        self.start.waker.0.raised.load(Ordering::Acquire)
    }

    fn kicked(&mut self, events: PollFlags) -> bool {
        match drain(&self.start.kick) {
            Drained::Signal => true,
            Drained::Nothing if !events.intersects(PollFlags::NVAL | PollFlags::ERR | PollFlags::HUP) => false,
            // A file that is always readable, or a pipe without a writer, would keep this thread busy for ever.
            Drained::Nothing | Drained::Broken => {
                warn!(
                    queue = self.start.index,
                    "the kick descriptor is broken; this queue is out of service"
                );
                self.fail();
                false
            }
        }
    }

    fn obey(&mut self) -> Next {
        self.start.waker.0.commanded.swap(false, Ordering::AcqRel);
        while let Ok((command, done)) = self.inbox.try_recv() {
            match command {
                Command::Call(call) => {
                    self.start.call = call;
                    self.interrupt();
                }
                Command::Error(error) => self.start.error = error,
                Command::Enable(enabled) => {
                    self.start.enabled = enabled;
                    self.more = true;
                }
                Command::Memory(memory) => {
                    self.complete(|lane, queue| lane.settle(queue));
                    // After an error the queue holds its old memory, and must not touch it.
                    let replaced = self.start.queue.replace_memory(&memory);
                    if let Err(error) = &replaced {
                        warn!(queue = self.start.index, %error, "the ring is not in the new memory; this queue waits for it");
                    }
                    self.unreachable = replaced.is_err();
                    self.start.memory = memory;
                    self.more = true;
                }
                Command::Stop => {
                    self.complete(|lane, queue| lane.settle(queue));
                    return Next::Stop;
                }
            }
            // The control plane waits for this, and is never gone before.
            let _gone = done.send(());
        }
        Next::Go
    }

    /// Has the lane complete chains that it kept. Where there are some, the ring is where the queue believes it to be: no memory is
    /// replaced before they are complete.
    fn complete(&mut self, complete: impl FnOnce(&mut dyn Lane, &mut Queue)) {
        let before = self.start.queue.in_flight();
        if before == 0 {
            return;
        }
        complete(&mut *self.start.lane, &mut self.start.queue);
        if self.start.queue.in_flight() < before && self.start.queue.interrupt_wanted() {
            self.interrupt();
        }
    }

    /// Serves one bounded batch, and waits for the next while it is worth it; whether to go on at once.
    fn serve(&mut self) -> bool {
        let polled = self.polling.is_on();
        // A rest follows what is served now; one that nothing came in was the last.
        self.resting = !self.rest.is_zero() && self.start.queue.has_available();
        self.start.queue.set_polled(polled || self.resting);
        let Served { more, put_back, .. } = self.serve_batch();
        // What was put back is served when the lane is woken.
        self.resting &= !put_back && !self.failed;
        if more || put_back || self.failed || !polled {
            return more;
        }
        let Self { start, polling, .. } = self;
        let raised = &start.waker.0.raised;
        polling.run(|| start.queue.has_available(), || raised.load(Ordering::Acquire));
        // In vain: the ring is served once more, to ask for kicks.
        true
    }

    fn serve_batch(&mut self) -> Served {
        let Start {
            index,
            lane,
            queue,
            call,
            waker,
            ..
        } = &mut self.start;
        let after = self.early.patience();
        let mut interrupt = || self.early.watch(|| interrupt(*index, call.as_deref()));
        let early = Early {
            end: &waker.0.commanded,
            after,
            interrupt: &mut interrupt,
        };
        let served = lane.serve(queue, early);
        self.log_lost_memory();
        match served {
            Ok(served) => {
                if served.interrupt {
                    self.interrupt();
                }
                served
            }
            Err(violation) => {
                let queue = self.start.index;
                if violation == Violation::MemoryLost {
                    error!(queue, %violation, "this queue is out of service until it is reset");
                } else {
                    warn!(queue, %violation, "the driver broke the rules of the ring; this queue is out of service until it is reset");
                }
                if self.start.queue.interrupt_wanted() {
                    self.interrupt();
                }
                self.fail();
                Served::default()
            }
        }
    }

    /// One line a region, by whichever queue comes first.
    fn log_lost_memory(&self) {
        while let Some(lost) = self.start.memory.take_loss() {
            error!(
                queue = self.start.index,
                "lost {lost}; requests with buffers in this region fail, and queues in it go out of service"
            );
        }
    }

    fn fail(&mut self) {
        self.failed = true;
        if let Some(error) = &self.start.error {
            error.signal(self.start.index, "error");
        }
    }

    fn interrupt(&self) {
        interrupt(self.start.index, self.start.call.as_deref());
    }
}

fn interrupt(queue: u16, call: Option<&Event>) {
    if let Some(call) = call {
        call.signal(queue, "call");
    }
}

#[derive(PartialEq, Eq)]
enum Next {
    Go,
    Stop,
}

/// What reading an event descriptor found.
enum Drained {
    Signal,
    Nothing,
    Broken,
}

/// Empties an eventfd, or takes some signals off a pipe.
fn drain(descriptor: &OwnedFd) -> Drained {
    match rustix::io::retry_on_intr(|| rustix::io::read(descriptor, &mut [0; 8])) {
        Ok(0) => Drained::Broken,
        Ok(_) => Drained::Signal,
        Err(Errno::AGAIN) => Drained::Nothing,
        Err(_) => Drained::Broken,
    }
}

#[cfg(test)]
mod tests;
