//! A lane's own files: taps, sockets, timers, eventfds. They wake the lane as kicks do.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

/// Maximum number of files reported at a time; the others follow.
const AT_A_TIME: usize = 32;

/// Files that a lane polls, each under a number that the lane chooses.
///
/// A file must be removed before its descriptor is closed: another descriptor of the same file would keep it here.
#[derive(Debug)]
pub struct Files(OwnedFd);

/// The events of a file that a lane waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Only an error or a hangup.
    Nothing,
    /// The file is readable.
    Reading,
    /// The file is writable.
    Writing,
    /// Either.
    Both,
}

impl Interest {
    fn flags(self) -> epoll::EventFlags {
        match self {
            Interest::Nothing => epoll::EventFlags::empty(),
            Interest::Reading => epoll::EventFlags::IN,
            Interest::Writing => epoll::EventFlags::OUT,
            Interest::Both => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        }
    }
}

impl Files {
    /// An empty set of files.
    pub fn new() -> io::Result<Files> {
        Ok(Files(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// Adds `file` under `number`.
    pub fn add(&self, file: impl AsFd, number: u64, interest: Interest) -> io::Result<()> {
        let data = epoll::EventData::new_u64(number);
        Ok(epoll::add(&self.0, file, data, interest.flags())?)
    }

    /// Changes the events that are waited for in `file`.
    pub fn change(&self, file: impl AsFd, number: u64, interest: Interest) -> io::Result<()> {
        let data = epoll::EventData::new_u64(number);
        Ok(epoll::modify(&self.0, file, data, interest.flags())?)
    }

    /// Removes `file`.
    pub fn remove(&self, file: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.0, file)?)
    }
}

impl AsFd for Files {
    /// Readable while a file is ready.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Buffer for the numbers of ready files, allocated once.
pub(crate) struct Ready(Vec<epoll::Event>);

impl Ready {
    pub(crate) fn new() -> Ready {
        Ready(Vec::with_capacity(AT_A_TIME))
    }

    /// Polls for ready files without waiting, and returns their count.
    pub(crate) fn look(&mut self, files: &Files) -> Result<usize, Errno> {
        self.0.clear();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        epoll::wait(&files.0, spare_capacity(&mut self.0), Some(&now))
    }

    /// The number of the file at this position.
    pub(crate) fn number(&self, position: usize) -> Option<u64> {
        self.0.get(position).map(|event| event.data.u64())
    }
}
