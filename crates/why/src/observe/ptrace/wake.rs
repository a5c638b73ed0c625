//! Waits for a traced thread's stop, for a signal to detach, or for a point in time.
#![expect(unsafe_code, reason = "signal handlers, eventfd and poll have no safe interface")]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::sys::Signals;

/// Signals that ask to let go; a second one while that is done changes nothing.
const ASKING: [i32; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Signals are the whole process's, so that of threads which attach at once only one can be told of them.
static ALONE: Mutex<()> = Mutex::new(());
static EVENT: AtomicI32 = AtomicI32::new(-1);
static ASKED: AtomicBool = AtomicBool::new(false);

/// Whichever thread runs it, and whenever: what it leaves is an event that waits to be read.
extern "C" fn wake(signal: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    if signal != libc::SIGCHLD {
        ASKED.store(true, Ordering::Release);
    }
    let one = 1_u64.to_ne_bytes();
    // SAFETY: gives the address of this thread's own errno.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: that address is valid as long as the thread is.
    let errno = unsafe { *place };
    // SAFETY: write is async-signal-safe and reads eight bytes of `one`.
    unsafe { libc::write(EVENT.load(Ordering::Relaxed), one.as_ptr().cast(), one.len()) };
    // Whoever is interrupted here finds errno as it was.
    // SAFETY: as above.
    unsafe { *place = errno };
}

/// While it lives, signals that would end this process ask to let go, and the news of a traced thread wake the waiting one.
pub(super) struct Wake {
    // Put back before the event is closed: what the handlers write must not go to another file of its number.
    _signals: Signals,
    event: File,
    _alone: MutexGuard<'static, ()>,
}

impl Wake {
    /// Waits until no other thread has one.
    pub(super) fn new() -> io::Result<Self> {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: takes two numbers and gives a descriptor.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if event < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made this descriptor and nobody else owns it.
        let event = unsafe { File::from_raw_fd(event) };
        EVENT.store(event.as_raw_fd(), Ordering::Relaxed);
        ASKED.store(false, Ordering::Release);
        Ok(Self {
            event,
            _signals: Signals::set(ASKING.into_iter().chain([libc::SIGCHLD]), wake),
            _alone: alone,
        })
    }

    /// Whether somebody asked to let go.
    pub(super) fn asked() -> bool {
        ASKED.load(Ordering::Acquire)
    }

    /// Waits for news, at most so long.
    pub(super) fn wait(&mut self, most: Option<Duration>) -> io::Result<()> {
        // Rounded up, or the last millisecond would be spent in a loop.
        let milliseconds = most.map_or(-1, |most| {
            i32::try_from(most.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
        });
        let mut poll = libc::pollfd {
            fd: self.event.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: `poll` is one entry, as the second argument says.
        if unsafe { libc::poll(&raw mut poll, 1, milliseconds) } < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted {
                Ok(())
            } else {
                Err(error)
            };
        }
        match self.event.read(&mut [0; 8]) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }
}
