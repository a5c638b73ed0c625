//! Wakers: wake a lane, whether it sleeps or runs.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use tracing::debug;

/// Wakes a lane, from any thread: the lane then completes kept chains and checks its queues.
#[derive(Clone, Debug)]
pub struct Waker(pub(crate) Arc<Wakening>);

/// The wake-up signal of a lane: the descriptor while it sleeps, the flag while it runs, which costs no system call.
#[derive(Debug)]
pub(crate) struct Wakening {
    pub(crate) descriptor: OwnedFd,
    /// Raised after the descriptor is signalled and lowered before it is read, so that it is never down while there
    /// is a signal.
    pub(crate) raised: AtomicBool,
    /// The control plane has a command, which ends a batch. Lowered before the lane checks for it.
    pub(crate) commanded: AtomicBool,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Waker> {
        let descriptor = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Waker(Arc::new(Wakening {
            descriptor,
            raised: AtomicBool::new(false),
            commanded: AtomicBool::new(false),
        })))
    }

    /// Wakes the lane, if it runs.
    pub fn wake(&self) {
        signal(&self.0.descriptor);
        self.0.raised.store(true, Ordering::Release);
    }
}

/// Adds 1 to our own eventfd. A full counter (EAGAIN) is a signal that is still pending.
pub(crate) fn signal(descriptor: &OwnedFd) {
    match rustix::io::retry_on_intr(|| rustix::io::write(descriptor, &1_u64.to_ne_bytes())) {
        Ok(_) | Err(Errno::AGAIN) => {}
        Err(errno) => debug!(%errno, "cannot wake a lane"),
    }
}
