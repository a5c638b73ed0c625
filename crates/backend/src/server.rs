//! The listener: one front end after the other, for as long as the caller wants.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tracing::{info, warn};

use crate::{Device, Ended, Session};

/// How long to wait after a connection could not be accepted, for lack of descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// How a device is served.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Offer packed rings; the guest then uses them if its VMM lets it.
    pub packed: bool,
    /// How long a lane looks at its empty ring before it sleeps, if requests have come that soon. Zero: it sleeps at once.
    pub poll: Duration,
}

impl Default for Options {
    /// All that rings can be, and no polling.
    fn default() -> Self {
        Self {
            packed: true,
            poll: Duration::ZERO,
        }
    }
}

/// Why the server can go on no longer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// poll(2) failed.
    #[error("cannot wait for a front end")]
    Wait(#[source] io::Error),
    /// The listening socket is unusable.
    #[error("the listening socket is broken")]
    Listener,
}

/// Serves front ends of `device` that connect to `listener`, one at a time, until `stop` is readable.
///
/// Others wait in the socket's backlog meanwhile. When a front end goes away, its rings are stopped, the device is reset, and
/// the next one is taken: a virtual machine may be restarted on the same socket.
pub fn serve(
    listener: &UnixListener,
    device: &dyn Device,
    options: Options,
    stop: BorrowedFd<'_>,
) -> Result<(), Error> {
    loop {
        if wait(listener.as_fd(), stop, None)? == Woken::Stop {
            return Ok(());
        }
        match listener.accept() {
            Ok((stream, _)) => {
                info!("a front end connected");
                if Session::new(stream, device, options).run(stop)? == Ended::Stopped {
                    return Ok(());
                }
                info!("the front end is gone; waiting for the next");
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(error) => {
                warn!(%error, "cannot accept a front end");
                let pause = Timespec::try_from(ACCEPT_PAUSE).unwrap_or_default();
                if wait(stop, stop, Some(&pause))? == Woken::Stop {
                    return Ok(());
                }
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    Ready,
    Stop,
}

/// Waits until `descriptor` has something, the time is up, or `stop` is readable, which goes first.
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
