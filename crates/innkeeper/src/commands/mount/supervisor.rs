//! Waits for the events that end a mount: umount(8), a signal, the end of the daemon, or a failed worker.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, ScopedJoinHandle};

use driver::Queue;
use fuse::descriptors::part_with_all_but;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::device::{self, Detached};
use super::error::Error;
use super::trouble::Trouble;
use super::worker::Worker;
use super::{broken, event};
use process::say::say;
use process::signals::Signals;

/// How it ended.
#[derive(Debug)]
pub(super) enum End {
    /// Nobody uses it any more. The queue is good for a last word to the daemon.
    Unmounted(Box<Queue>),
    /// A second signal came before that.
    Abandoned,
    /// The daemon closed the connection.
    DaemonGone,
}

pub(super) struct Supervisor<'a> {
    /// Hangs up when the daemon is gone.
    pub(super) daemon: BorrowedFd<'a>,
    pub(super) signals: &'a Signals,
    pub(super) mountpoint: &'a Path,
}

/// A signal was obeyed: the thread that unmounts, and how it went.
struct Leaving {
    done: OwnedFd,
    result: Receiver<io::Result<Detached>>,
}

/// Tells that a worker has ended, however that came about; the others end with one that failed.
struct Notice<'a> {
    ended: &'a OwnedFd,
    stop: &'a OwnedFd,
    well: bool,
}

impl Drop for Notice<'_> {
    fn drop(&mut self) {
        if !self.well {
            signal(self.stop);
        }
        signal(self.ended);
    }
}

impl Supervisor<'_> {
    /// Starts the workers, attaches the mount (`attach` answers its number), and waits for the end.
    ///
    /// When this returns the workers are gone, and with them all descriptors of the connection to the kernel: whoever still waits
    /// for a reply gets an error.
    pub(super) fn run(
        &self,
        workers: Vec<Worker<'_>>,
        stop: &OwnedFd,
        attach: impl FnOnce() -> Result<u64, Error>,
    ) -> Result<End, Error> {
        let ended = event()?;
        let count = workers.len() as u64;
        thread::scope(|scope| {
            let spawned = workers.into_iter().map(|worker| {
                let notice = Notice {
                    ended: &ended,
                    stop,
                    well: false,
                };
                let thread = thread::Builder::new().name("mount".into());
                thread.spawn_scoped(scope, move || work(worker, notice))
            });
            let spawned: Result<Vec<_>, _> = spawned.collect();
            let started = spawned.map_err(|error| process::Error::system("start a thread")(error).into());
            let result = started.and_then(|threads| {
                let end = attach().and_then(|number| self.wait(&ended, count, number));
                signal(stop);
                conclude(end?, threads)
            });
            // Also where not all could be started: the scope waits for those that were.
            signal(stop);
            result
        })
    }

    /// Waits until all workers have ended (`None`), or until there is no use in waiting for them.
    fn wait(&self, ended: &OwnedFd, count: u64, number: u64) -> Result<Option<End>, Error> {
        let mut over = 0;
        let mut leaving: Option<Leaving> = None;
        while over < count {
            let mut events = vec![
                PollFd::from_borrowed_fd(self.daemon, PollFlags::empty()),
                PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
                PollFd::new(ended, PollFlags::IN),
            ];
            events.extend(leaving.iter().map(|leaving| PollFd::new(&leaving.done, PollFlags::IN)));
            match poll(&mut events, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(process::Error::system("wait for the end of the mount")(errno).into()),
            }
            let came: Vec<bool> = events.iter().map(|event| !event.revents().is_empty()).collect();
            if came[2] {
                over += take(ended);
            }
            if came[0] && over < count {
                return Ok(Some(End::DaemonGone));
            }
            if came[1] {
                self.signals.wait().map_err(process::Error::system("read a signal"))?;
                if leaving.is_some() {
                    return Ok(Some(End::Abandoned));
                }
                leaving = Some(self.leave(number)?);
            } else if let Some(leaving) = leaving.as_ref().filter(|_| came.get(3) == Some(&true)) {
                take(&leaving.done);
                self.report(leaving);
            }
        }
        Ok(None)
    }

    /// Unmounts in a thread of its own: that may take as long as the daemon takes to write what is in the cache.
    fn leave(&self, number: u64) -> Result<Leaving, Error> {
        let done = event()?;
        let (sender, result) = mpsc::channel();
        let (mountpoint, kept) = (self.mountpoint.to_path_buf(), done.as_raw_fd());
        let unmount = move || match part_with_all_but([kept]) {
            Ok([done]) => {
                // The receiver is gone if a second signal came, and then nobody wants to know.
                let _ = sender.send(device::detach(&mountpoint, number));
                signal(&done);
            }
            Err(error) => tracing::error!("cannot unmount {}: {error}; use umount(8)", mountpoint.display()),
        };
        thread::Builder::new()
            .name("unmount".into())
            .spawn(unmount)
            .map_err(process::Error::system("start a thread"))?;
        Ok(Leaving { done, result })
    }

    /// Whatever came of it, those who use the mount are served on.
    fn report(&self, leaving: &Leaving) {
        let mountpoint = self.mountpoint.display();
        match leaving.result.recv() {
            // It reports before it signals.
            Ok(Ok(Detached::Wholly)) | Err(mpsc::RecvError) => {}
            Ok(Ok(Detached::Lazily)) => say(format_args!(
                "{mountpoint} is in use, so it is unmounted lazily and served until its last user is done; another signal ends \
                 it at once"
            )),
            Ok(Ok(Detached::Covered)) => say(format_args!(
                "cannot unmount {mountpoint}: another mount is on top of it; it is served until both are unmounted, and \
                 another signal ends it at once"
            )),
            Ok(Err(error)) => say(format_args!(
                "cannot unmount {mountpoint}: {error}; it is served until `umount {mountpoint}`, and another signal ends \
                 it at once"
            )),
        }
    }
}

fn work(worker: Worker<'_>, mut notice: Notice<'_>) -> Result<Queue, Trouble> {
    let result = worker.run();
    notice.well = result.is_ok();
    result
}

/// What the workers say at last, once they have ended or were told to.
fn conclude(end: Option<End>, threads: Vec<ScopedJoinHandle<'_, Result<Queue, Trouble>>>) -> Result<End, Error> {
    let mut queue = None;
    let mut trouble = None;
    for thread in threads {
        match thread.join() {
            Ok(Ok(done)) => queue = queue.or(Some(done)),
            Ok(Err(Trouble::Stopped)) => {}
            Ok(Err(other)) => trouble = trouble.or(Some(other)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    match (end, trouble, queue) {
        (Some(end), ..) => Ok(end),
        (None, Some(trouble), _) => Err(broken(trouble)),
        (None, None, Some(queue)) => Ok(End::Unmounted(Box::new(queue))),
        (None, None, None) => Ok(End::Abandoned),
    }
}

fn signal(event: &OwnedFd) {
    if let Err(errno) = rustix::io::write(event, &1_u64.to_ne_bytes()) {
        tracing::error!("cannot post an event: {errno}");
    }
}

/// What was signalled since the last time.
fn take(event: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    match rustix::io::read(event, &mut count) {
        Ok(_) => u64::from_ne_bytes(count),
        Err(_) => 0,
    }
}
