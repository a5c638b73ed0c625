//! The only event loop: a thread that owns the started queues of a lane, with their kick, call and error descriptors.
//!
//! The control plane sends commands to the thread and waits for the answer. After a command, nothing of the old state
//! is in use: no ring is accessed after a stop (vhost-user "Starting and stopping rings"), and no removed region is
//! accessed. The thread starts with the first queue of the lane and ends with the last.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use guestmem::Memory;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tracing::error;

use crate::device::{PlannedLane, QUEUES_MOST};
use crate::event::Event;
use crate::files::Ready;
use crate::polling::Polling;
use crate::queues::{Queues, Ring, drain};
use crate::{Lane, Options, Waker};

/// The lane with its wake-up descriptor and its files.
const WATCHED_MOST: usize = QUEUES_MOST + 2;

type Answer = SyncSender<Option<Ring>>;

/// The control plane's end of a lane. Dropping it waits for the end of the thread, which comes with the last [`Port`].
pub(crate) struct LaneHandle {
    queues: Vec<u16>,
    waker: Waker,
    options: Options,
    state: State,
}

enum State {
    /// No queue runs.
    Idle(Box<dyn Lane>),
    Running {
        commands: Sender<(Command, Answer)>,
        thread: JoinHandle<Box<dyn Lane>>,
        /// One port per running queue.
        ports: Arc<()>,
    },
    /// The thread panicked.
    Dead,
}

/// The control plane's end of one running queue. Dropping it stops the queue.
pub(crate) struct Port {
    index: u16,
    commands: Sender<(Command, Answer)>,
    waker: Waker,
    stopped: bool,
    _counted: Arc<()>,
}

enum Command {
    Start(Box<Ring>),
    Call(u16, Option<Arc<Event>>),
    Error(u16, Option<Arc<Event>>),
    Enable(u16, bool),
    Memory(u16, Memory),
    Stop(u16),
}

impl LaneHandle {
    pub(crate) fn new(planned: PlannedLane, options: Options) -> LaneHandle {
        let PlannedLane { queues, waker, lane } = planned;
        LaneHandle {
            queues,
            waker,
            options,
            state: State::Idle(lane),
        }
    }

    /// Whether this lane serves queue `index`.
    pub(crate) fn has(&self, index: u16) -> bool {
        self.queues.contains(&index)
    }

    /// Whether the lane has panicked, so that only another start of the device helps.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, State::Dead)
    }

    /// Starts a queue. The lane checks it at once: buffers may be waiting from before (a resumed ring).
    pub(crate) fn start(&mut self, ring: Ring) -> io::Result<Port> {
        self.join_if_ended();
        let index = ring.index;
        if let State::Running { commands, ports, .. } = &self.state {
            let port = self.port(index, commands, ports);
            port.send(Command::Start(Box::new(ring)));
            return Ok(port);
        }
        let State::Idle(lane) = std::mem::replace(&mut self.state, State::Dead) else {
            return Err(io::Error::other("the lane of this queue panicked"));
        };
        let (commands, inbox) = channel();
        // The lane goes to the thread through this channel, so that it survives if no thread can be started.
        let (hand, takes) = sync_channel(1);
        let (waker, options) = (self.waker.clone(), self.options.clone());
        let run = move || {
            options.at_lane_start.run();
            match takes.recv() {
                Ok(lane) => Runner::new(lane, ring, waker, options.poll, inbox).run(),
                Err(_) => unreachable!("the lane is sent as soon as the thread is there"),
            }
        };
        let first = self.queues.first().copied().unwrap_or(index);
        let thread = std::thread::Builder::new().name(format!("lane-{first}")).spawn(run);
        let thread = match thread {
            Ok(thread) => thread,
            Err(error) => {
                self.state = State::Idle(lane);
                return Err(error);
            }
        };
        let _has_room_for_one = hand.send(lane);
        let ports = Arc::new(());
        let port = self.port(index, &commands, &ports);
        self.state = State::Running {
            commands,
            thread,
            ports,
        };
        Ok(port)
    }

    fn port(&self, index: u16, commands: &Sender<(Command, Answer)>, ports: &Arc<()>) -> Port {
        Port {
            index,
            commands: commands.clone(),
            waker: self.waker.clone(),
            stopped: false,
            _counted: Arc::clone(ports),
        }
    }

    /// Takes the lane back from a thread that has no more queues, or has panicked.
    fn join_if_ended(&mut self) {
        let ended = match &self.state {
            State::Running { thread, ports, .. } => Arc::strong_count(ports) == 1 || thread.is_finished(),
            State::Idle(_) | State::Dead => false,
        };
        if ended && let State::Running { thread, .. } = std::mem::replace(&mut self.state, State::Dead) {
            self.state = thread.join().map_or(State::Dead, State::Idle);
        }
    }
}

impl Drop for LaneHandle {
    fn drop(&mut self) {
        if let State::Running { commands, thread, .. } = std::mem::replace(&mut self.state, State::Dead) {
            drop(commands);
            let _ended_in_a_panic_or_not = thread.join();
        }
    }
}

impl Port {
    /// Replaces the call descriptor, and signals the new one once: an interrupt may have gone to the old one unseen.
    pub(crate) fn set_call(&self, call: Option<Arc<Event>>) {
        self.send(Command::Call(self.index, call));
    }

    /// Replaces the error descriptor.
    pub(crate) fn set_error(&self, error: Option<Arc<Event>>) {
        self.send(Command::Error(self.index, error));
    }

    /// Enables or disables the ring; while disabled no buffer is taken.
    pub(crate) fn enable(&self, enabled: bool) {
        self.send(Command::Enable(self.index, enabled));
    }

    /// Replaces the snapshot of guest memory.
    pub(crate) fn set_memory(&self, memory: &Memory) {
        self.send(Command::Memory(self.index, memory.clone()));
    }

    /// Makes the lane check its queues: a chain that it put back may be served now.
    pub(crate) fn look_again(&self) {
        self.waker.wake();
    }

    /// Stops the queue and returns it. `None` if the lane panicked.
    pub(crate) fn stop(mut self) -> Option<Ring> {
        self.stopped = true;
        self.send(Command::Stop(self.index))
    }

    fn send(&self, command: Command) -> Option<Ring> {
        let (done, answered) = sync_channel(1);
        self.commands.send((command, done)).ok()?;
        self.waker.0.commanded.store(true, Ordering::Release);
        self.waker.wake();
        answered.recv().ok()?
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        if !self.stopped {
            self.send(Command::Stop(self.index));
        }
    }
}

struct Runner {
    lane: Box<dyn Lane>,
    queues: Queues,
    waker: Waker,
    inbox: Receiver<(Command, Answer)>,
    ready: Ready,
    polling: Polling,
    /// A poll has ended: the rings are served once more, to take what it found or to enable kicks.
    again: bool,
    /// See [`Lane::rest`].
    rest: Duration,
    /// The lane rests when it has nothing to do, instead of waiting for a kick.
    resting: bool,
}

/// The work after a wake-up.
#[derive(Default)]
struct Woken {
    /// The control plane has a command or announces work, or a kept chain is finished.
    command: bool,
    /// One of the lane's own files is ready.
    files: bool,
}

impl Runner {
    fn new(
        lane: Box<dyn Lane>,
        ring: Ring,
        waker: Waker,
        poll: Duration,
        inbox: Receiver<(Command, Answer)>,
    ) -> Runner {
        let rest = lane.rest();
        let mut queues = Queues::new(waker.clone());
        queues.rings.push(ring);
        Runner {
            lane,
            queues,
            waker,
            inbox,
            ready: Ready::new(),
            polling: Polling::new(if rest.is_zero() { poll } else { Duration::ZERO }),
            again: false,
            rest,
            resting: false,
        }
    }

    fn run(mut self) -> Box<dyn Lane> {
        loop {
            let busy = self.is_busy();
            let skips = busy && self.polling.is_on() && !self.is_woken() && self.lane.files().is_none();
            let woken = if skips { Woken::default() } else { self.wait(busy) };
            if woken.command {
                self.complete(|lane, queues| lane.complete(queues));
                self.obey();
                if self.queues.rings.is_empty() {
                    return self.lane;
                }
                self.queues.rings.iter_mut().for_each(|ring| ring.more = true);
            }
            if woken.files {
                self.serve_files();
            }
            if self.again || self.resting {
                let open = self.queues.rings.iter_mut().filter(|ring| ring.is_open());
                open.for_each(|ring| ring.more = true);
            }
            if self.queues.rings.iter().any(|ring| ring.is_ready() && ring.more) {
                self.serve();
            }
        }
    }

    fn is_busy(&self) -> bool {
        let mut rings = self.queues.rings.iter();
        rings.any(|ring| ring.is_ready() && (ring.more || self.again && !ring.put_back))
    }

    /// Waits for a command, a kick or a file, or for the end of a rest. Does not wait if there is more to serve.
    fn wait(&mut self, at_once: bool) -> Woken {
        self.waker.0.raised.swap(false, Ordering::AcqRel);
        let rests = self.resting && self.queues.rings.iter().any(Ring::is_ready);
        let limit = match (at_once, rests) {
            (true, _) => Some(Duration::ZERO),
            (false, true) => Some(self.rest),
            (false, false) => None,
        };
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let sleep = self.polling.sleep().filter(|_| !at_once);

        let waker = PollFd::new(&self.waker.0.descriptor, PollFlags::IN);
        let mut descriptors: [PollFd<'_>; WATCHED_MOST] = std::array::from_fn(|_| waker.clone());
        let mut count = 1;
        let kicks = self.queues.rings.iter().filter(|ring| ring.is_ready() && !rests);
        for ring in kicks.take(QUEUES_MOST) {
            descriptors[count] = PollFd::new(&ring.kick, PollFlags::IN);
            count += 1;
        }
        let files = self.lane.files();
        if let Some(files) = files {
            descriptors[count] = PollFd::from_borrowed_fd(files.as_fd(), PollFlags::IN);
            count += 1;
        }
        let watched = &mut descriptors[..count];
        match poll(watched, limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => {
                // No readiness is known; `obey` checks for commands without blocking.
                error!(%errno, "a lane cannot wait for kicks");
                return Woken {
                    command: true,
                    files: false,
                };
            }
        }
        let woken = Woken {
            command: !watched[0].revents().is_empty(),
            files: files.is_some() && !watched[count - 1].revents().is_empty(),
        };
        let mut events = [PollFlags::empty(); WATCHED_MOST];
        for (event, descriptor) in events.iter_mut().zip(watched.iter()) {
            *event = descriptor.revents();
        }
        if woken.command {
            let _emptied = drain(&self.waker.0.descriptor);
        }
        let kicks = if rests {
            &[][..]
        } else {
            &events[1..count - usize::from(files.is_some())]
        };
        let kicked = self.queues.take_kicks(kicks);
        if let Some(sleep) = sleep.filter(|_| kicked) {
            self.polling.slept(sleep.elapsed());
        }
        woken
    }

    /// Whether `wait` would find a command. Makes no system call.
    fn is_woken(&self) -> bool {
        self.waker.0.raised.load(Ordering::Acquire)
    }

    fn serve_files(&mut self) {
        let count = match self.lane.files().map(|files| self.ready.look(files)) {
            Some(Ok(count)) => count,
            None | Some(Err(Errno::INTR)) => 0,
            Some(Err(errno)) => {
                error!(%errno, "a lane cannot poll its files");
                0
            }
        };
        for number in (0..count).filter_map(|position| self.ready.number(position)) {
            self.lane.ready(number, &mut self.queues);
        }
        self.queues.tell_of_completed();
    }

    fn obey(&mut self) {
        self.waker.0.commanded.swap(false, Ordering::AcqRel);
        while let Ok((command, done)) = self.inbox.try_recv() {
            let answer = self.act(command);
            // The control plane waits for this answer, and does not end before it.
            let _gone = done.send(answer);
        }
    }

    fn act(&mut self, command: Command) -> Option<Ring> {
        match command {
            Command::Start(ring) => self.queues.rings.push(*ring),
            Command::Call(index, call) => {
                let ring = self.queues.ring(index)?;
                ring.call = call;
                ring.interrupt();
            }
            Command::Error(index, error) => self.queues.ring(index)?.error = error,
            Command::Enable(index, enabled) => self.queues.ring(index)?.enabled = enabled,
            Command::Memory(index, memory) => {
                self.settle(index);
                self.queues.ring(index)?.use_memory(memory);
            }
            Command::Stop(index) => {
                self.settle(index);
                let position = self.queues.rings.iter().position(|ring| ring.index == index)?;
                return Some(self.queues.rings.swap_remove(position));
            }
        }
        None
    }

    fn settle(&mut self, index: u16) {
        if self.queues.ring(index).is_some_and(|ring| ring.queue.in_flight() > 0) {
            self.complete(|lane, queues| lane.settle(index, queues));
        }
    }

    /// Makes the lane complete the chains that it kept. While there are any, the queue's view of its memory is valid:
    /// no memory is replaced before they are complete.
    fn complete(&mut self, complete: impl FnOnce(&mut dyn Lane, &mut Queues)) {
        if self.queues.rings.iter().any(|ring| ring.queue.in_flight() > 0) {
            complete(&mut *self.lane, &mut self.queues);
            self.queues.tell_of_completed();
        }
    }

    /// Serves one bounded batch of each queue that may have chains, and polls for the next while that pays off.
    fn serve(&mut self) {
        let polled = self.polling.is_on();
        // A rest follows the batch that is served now. A rest in which nothing came was the last.
        self.resting = !self.rest.is_zero() && self.queues.has_available(Ring::is_ready);
        self.queues.polled = polled || self.resting;
        self.again = false;
        for position in 0..self.queues.rings.len() {
            let ring = &mut self.queues.rings[position];
            if ring.is_ready() && ring.more {
                (ring.more, ring.put_back) = (false, false);
                let index = ring.index;
                self.lane.serve(index, &mut self.queues);
            }
        }
        self.queues.tell_of_completed();
        let rings = &self.queues.rings;
        let open = rings.iter().any(Ring::is_open);
        // Chains that were put back are served when the lane is woken.
        self.resting &= open;
        if !polled || !open || rings.iter().any(|ring| ring.is_ready() && ring.more) {
            self.again = polled && open;
            return;
        }
        let Self {
            queues, polling, waker, ..
        } = self;
        let raised = &waker.0.raised;
        polling.run(
            || queues.has_available(Ring::is_open),
            || raised.load(Ordering::Acquire),
        );
        // The rings are served once more: to take what the poll found, or to enable kicks.
        self.again = true;
    }
}

#[cfg(test)]
mod tests;
