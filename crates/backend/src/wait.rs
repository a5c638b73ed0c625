//! Waits for a descriptor until the owner stops the wait.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Errors that end the server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// poll(2) failed.
    #[error("cannot wait for a front end")]
    Wait(#[source] io::Error),
    /// The listening socket is unusable.
    #[error("the listening socket is broken")]
    Listener,
}

/// The event that ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    Ready,
    Stop,
}

/// Waits until `descriptor` is readable, the time is up, or `stop` is readable, which takes precedence.
pub(crate) fn wait(descriptor: BorrowedFd<'_>, stop: BorrowedFd<'_>, limit: Option<&Timespec>) -> Result<Woken, Error> {
    let mut descriptors = [
        PollFd::from_borrowed_fd(stop, PollFlags::IN),
        PollFd::from_borrowed_fd(descriptor, PollFlags::IN),
    ];
    match poll(&mut descriptors, limit) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(Error::Wait(errno.into())),
    }
    let [stop, descriptor] = descriptors;
    if descriptor.revents().contains(PollFlags::NVAL) {
        return Err(Error::Listener);
    }
    Ok(if stop.revents().is_empty() {
        Woken::Ready
    } else {
        Woken::Stop
    })
}
