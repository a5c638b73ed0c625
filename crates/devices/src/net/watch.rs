//! What wakes the lane of a queue pair beside its queues: the port, and the time after which a frame is given up.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use backend::{Files, Interest};
use rustix::io::{Errno, read, retry_on_intr};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tracing::error;

/// Numbers of the files in [`Files`].
pub(super) const PORT: u64 = 0;
pub(super) const TIMER: u64 = 1;

/// How long a frame waits for buffers that it fits in: long compared with the time in which drivers refill their rings, and no burden if
/// the ring is too small for it.
const PATIENCE: Duration = Duration::from_millis(20);

/// The files that a lane waits for.
#[derive(Debug)]
pub(super) struct Watch {
    files: Files,
    timer: OwnedFd,
    is_timer_running: bool,
    /// What the port is watched for.
    interest: Interest,
}

impl Watch {
    pub(super) fn new() -> io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        let files = Files::new()?;
        files.add(&timer, TIMER, Interest::Reading)?;
        Ok(Self {
            files,
            timer,
            is_timer_running: false,
            interest: Interest::Nothing,
        })
    }

    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    /// Watches `port` while it is of use: an interest in nothing would still wake the lane for a hang-up, again and again.
    pub(super) fn set(&mut self, port: BorrowedFd<'_>, read: bool, write: bool) {
        let wanted = match (read, write) {
            (false, false) => Interest::Nothing,
            (true, false) => Interest::Reading,
            (false, true) => Interest::Writing,
            (true, true) => Interest::Both,
        };
        let changed = match (self.interest, wanted) {
            (old, new) if old == new => Ok(()),
            (Interest::Nothing, _) => self.files.add(port, PORT, wanted),
            (_, Interest::Nothing) => self.files.remove(port),
            _ => self.files.change(port, PORT, wanted),
        };
        changed.unwrap_or_else(|error| error!(%error, "cannot wait for the network"));
        self.interest = wanted;
    }

    /// Starts the time of a frame, unless it runs.
    pub(super) fn start_timer(&mut self) {
        if !self.is_timer_running {
            self.is_timer_running = true;
            self.set_timer(PATIENCE);
        }
    }

    pub(super) fn stop_timer(&mut self) {
        if self.is_timer_running {
            self.is_timer_running = false;
            self.set_timer(Duration::ZERO);
        }
    }

    /// Clears the signal of the timer. Whether its time is over.
    pub(super) fn take_timer(&mut self) -> bool {
        match retry_on_intr(|| read(&self.timer, &mut [0; 8])) {
            Ok(_) => std::mem::take(&mut self.is_timer_running),
            // Stopped or started anew since it was found ready.
            Err(Errno::AGAIN) => false,
            Err(errno) => {
                error!(%errno, "cannot read the timer of a network device");
                false
            }
        }
    }

    fn set_timer(&self, time: Duration) {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let once = Itimerspec {
            it_interval: zero,
            it_value: Timespec::try_from(time).unwrap_or(zero),
        };
        let set = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once);
        if let Err(errno) = set {
            error!(%errno, "cannot set the timer of a network device; a frame may wait for the next kick");
        }
    }
}
