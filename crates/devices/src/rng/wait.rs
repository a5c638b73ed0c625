//! Wakes the lane while a request waits: by the source, or by a timer.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use backend::{Files, Interest, Timer};
use tracing::error;

/// Numbers of the files in [`Files`].
const SOURCE: u64 = 0;
const TIMER: u64 = 1;

/// How often a source without poll(2) is read (`/dev/hwrng`): rarely for a processor, and soon compared with the time
/// that such a device needs for some bytes.
const UNPOLLABLE_PAUSE: Duration = Duration::from_millis(10);

/// The event that a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The source is readable.
    Readable,
    /// This time has passed; it is not 0.
    Time(Duration),
}

/// The files that a lane waits for.
#[derive(Debug)]
pub(super) struct Waits {
    files: Files,
    timer: Timer,
    /// The source is among the files.
    is_source_watched: bool,
}

impl Waits {
    pub(super) fn new() -> io::Result<Self> {
        let timer = Timer::new()?;
        let files = Files::new()?;
        files.add(&timer, TIMER, Interest::Reading)?;
        Ok(Self {
            files,
            timer,
            is_source_watched: false,
        })
    }

    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    /// Makes the lane wake up for `wait` from now on, and not for `source` otherwise. A running timer wakes it once
    /// more.
    pub(super) fn set(&mut self, wait: Option<Wait>, source: BorrowedFd<'_>) {
        let watched = wait == Some(Wait::Readable) && self.watch(source);
        if self.is_source_watched && !watched {
            // An interest in nothing would still wake the lane for a hang-up, again and again.
            let removed = self.files.remove(source);
            removed.unwrap_or_else(|error| error!(%error, "cannot stop waiting for the entropy source"));
        }
        self.is_source_watched = watched;
        match wait {
            Some(Wait::Time(time)) => self.start_timer(time),
            Some(Wait::Readable) if !watched => self.start_timer(UNPOLLABLE_PAUSE),
            Some(Wait::Readable) | None => {}
        }
    }

    /// Clears the signal of a file that has woken the lane, if it has one.
    pub(super) fn acknowledge(&self, file: u64) {
        if file == TIMER
            && let Err(error) = self.timer.take()
        {
            error!(%error, "cannot read the timer of the entropy device");
        }
    }

    /// Whether the source can wake the lane: a device without poll(2) cannot (EPERM).
    fn watch(&self, source: BorrowedFd<'_>) -> bool {
        self.is_source_watched || self.files.add(source, SOURCE, Interest::Reading).is_ok()
    }

    fn start_timer(&self, time: Duration) {
        if let Err(error) = self.timer.set(time) {
            error!(%error, "cannot start the timer of the entropy device; requests wait for the next kick");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    /// Sleeps until one of the files is ready.
    fn sleep(waits: &Waits) {
        let mut files = [PollFd::new(waits.files(), PollFlags::IN)];
        assert_eq!(poll(&mut files, None), Ok(1));
    }

    fn is_awake(waits: &Waits) -> bool {
        let mut files = [PollFd::new(waits.files(), PollFlags::IN)];
        poll(&mut files, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(1)
    }

    /// As /dev/hwrng is.
    #[test]
    fn a_source_without_poll_is_tried_again_by_the_timer() {
        let source = tempfile::tempfile().unwrap();
        let mut waits = Waits::new().unwrap();
        for _ in 0..2 {
            waits.set(Some(Wait::Readable), source.as_fd());
            sleep(&waits);
            waits.acknowledge(TIMER);
            assert!(!is_awake(&waits), "the timer goes off once");
        }
    }

    #[test]
    fn a_source_wakes_the_lane_only_while_it_is_waited_for() {
        let (source, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let mut waits = Waits::new().unwrap();
        rustix::io::write(&writer, b"x").unwrap();
        assert!(!is_awake(&waits));
        for _ in 0..2 {
            waits.set(Some(Wait::Readable), source.as_fd());
            waits.set(Some(Wait::Readable), source.as_fd());
            assert!(is_awake(&waits));
            waits.set(None, source.as_fd());
            assert!(!is_awake(&waits));
        }
        drop(writer);
        waits.set(Some(Wait::Time(Duration::from_secs(3600))), source.as_fd());
        assert!(!is_awake(&waits), "a hang-up is no reason either");
    }

    #[test]
    fn a_timer_wakes_the_lane_once() {
        let (source, _writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let mut waits = Waits::new().unwrap();
        waits.set(Some(Wait::Time(Duration::from_nanos(1))), source.as_fd());
        sleep(&waits);
        waits.acknowledge(TIMER);
        assert!(!is_awake(&waits));
        waits.acknowledge(TIMER);
    }
}
