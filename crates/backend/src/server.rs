//! The listener: serves one front end after another until the caller stops it.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use rustix::event::Timespec;
use tracing::{info, warn};

use crate::wait::{Woken, wait};
use crate::{Device, Ended, Error, Options, Session};

/// How long to wait after a failed accept, which is most likely caused by a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Serves front ends of `device` that connect to `listener`, one at a time, until `stop` is readable.
///
/// Others wait in the socket's backlog meanwhile. When a front end disconnects, its rings are stopped, the device is
/// reset, and the next front end is accepted: a virtual machine may be restarted on the same socket.
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
                if Session::new(stream, device, options.clone()).run(stop)? == Ended::Stopped {
                    return Ok(());
                }
                info!("the front end disconnected; waiting for the next");
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
