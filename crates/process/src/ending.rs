//! How signals end a daemon: the first lets the current requests finish, the second does not wait for them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use crate::Error;
use crate::remover::Remover;
use crate::say::say;
use crate::signals::Signals;

/// After which the user is told what is waited for. Requests take no time unless what the device is made of hangs.
const SILENCE: Duration = Duration::from_secs(1);

/// Waits for signals in a thread of its own, which has called `start` when this returns. Answers what becomes readable with the first
/// signal; the second has `remover` do its work and ends the process.
pub fn watch(
    signals: Signals,
    remover: Weak<Remover>,
    start: impl FnOnce() + Send + 'static,
) -> Result<Arc<OwnedFd>, Error> {
    let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(Error::system("make an event"))?;
    let stop = Arc::new(stop);
    let first = Arc::clone(&stop);
    let (started, starts) = sync_channel(1);
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            start();
            // The channel has room, and its other end waits.
            let _ = started.send(());
            if let Err(error) = obey(&signals, &first, &remover) {
                tracing::error!("signals no longer have any effect: {error}");
            }
        })
        .map_err(Error::system("start a thread"))?;
    // A thread that panicked has said why.
    starts
        .recv()
        .map_err(|_| Error::system("start a thread")(io::Error::from(io::ErrorKind::BrokenPipe)))?;
    Ok(stop)
}

fn obey(signals: &Signals, stop: &OwnedFd, remover: &Weak<Remover>) -> io::Result<()> {
    signals.wait()?;
    rustix::io::write(stop, &1_u64.to_ne_bytes())?;
    if !comes_within(signals, SILENCE)? {
        say(
            "a request of the guest is still waiting for the host; another signal ends innkeeper without waiting for it",
        );
    }
    signals.wait()?;
    if let Some(remover) = remover.upgrade() {
        remover.remove();
    }
    std::process::exit(0);
}

/// Whether another signal comes in time.
fn comes_within(signals: &Signals, limit: Duration) -> io::Result<bool> {
    let limit = Timespec::try_from(limit).unwrap_or_default();
    let mut events = [PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
    match poll(&mut events, Some(&limit)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
