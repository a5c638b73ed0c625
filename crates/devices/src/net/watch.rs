//! What wakes the lane of a queue pair beside its queues: the port, and the time after which a frame is given up.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use backend::{Files, Interest, Timer};
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
    timer: Timer,
    is_timer_running: bool,
    /// What the port is watched for.
    interest: Interest,
}

impl Watch {
    pub(super) fn new() -> io::Result<Self> {
        let timer = Timer::new()?;
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
        match self.timer.take() {
            Ok(true) => std::mem::take(&mut self.is_timer_running),
            Ok(false) => false,
            Err(error) => {
                error!(%error, "cannot read the timer of a network device");
                false
            }
        }
    }

    fn set_timer(&self, time: Duration) {
        if let Err(error) = self.timer.set(time) {
            error!(%error, "cannot set the timer of a network device; a frame may wait for the next kick");
        }
    }
}
