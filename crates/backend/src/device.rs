//! What a device is to this crate: a control plane that answers questions, and a lane for each started queue.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use guestmem::Window;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use tracing::debug;
use virtqueue::{Early, Queue, Served, Violation};

/// Control plane of a device. It outlives its front ends: one value serves one virtual machine after the other.
pub trait Device: Send + Sync {
    /// Feature bits of the device and its rings, as the guest may see them; this crate adds those of vhost-user.
    fn features(&self) -> u64;

    /// Number of virtqueues.
    fn queue_count(&self) -> u16;

    /// The configuration space, whole.
    fn config(&self) -> Vec<u8>;

    /// The data path of queue `index`, which is about to start with the feature bits that the guest acknowledged. `waker` is for
    /// whoever finishes chains that the lane keeps.
    fn lane(&self, index: u16, acknowledged: u64, waker: &Waker) -> Box<dyn Lane>;

    /// Bytes of shared memory region 0, into which the device maps files for the guest (VIRTIO 1.2 2.10); 0: there is none.
    fn window_size(&self) -> u64 {
        0
    }

    /// The window of the front end that has just connected. `None`: it has gone, and the window with it.
    fn set_window(&self, _window: Option<Arc<dyn Window>>) {}

    /// The guest reset the device, or its front end went away. No lane runs meanwhile.
    fn reset(&self);
}

/// Data path of one queue, on a thread of its own.
pub trait Lane: Send {
    /// Serves what is available, within a bound of its own: `more` in the answer asks to be called again at once. `early` is for
    /// [`Queue::serve_early`].
    fn serve(&mut self, queue: &mut Queue, early: Early<'_>) -> Result<Served, Violation>;

    /// How long the lane may rest after it has served, with kicks off, before it looks for more: what nobody waits for needs no prompt
    /// answer, and comes cheaper many at a time. Zero: it does not rest, and may poll instead.
    fn rest(&self) -> Duration {
        Duration::ZERO
    }

    /// Completes the chains that were kept and are finished by now. Called when the lane was woken, also while the ring is disabled.
    fn complete(&mut self, _queue: &mut Queue) {}

    /// Completes all chains that were kept, and waits for those that are not finished: the ring is about to stop, or to move to other
    /// memory.
    fn settle(&mut self, queue: &mut Queue) {
        self.complete(queue);
    }
}

/// Wakes a lane, from any thread: it then completes what it kept, and looks at its queue.
#[derive(Clone, Debug)]
pub struct Waker(pub(crate) Arc<Wakening>);

/// What a lane looks at: asleep the descriptor, awake the flag, which costs no system call.
#[derive(Debug)]
pub(crate) struct Wakening {
    pub(crate) descriptor: OwnedFd,
    /// Raised behind the descriptor and lowered in front of reading it, so that it is never down while there is a signal.
    pub(crate) raised: AtomicBool,
    /// The control plane has a command, which ends a batch. Lowered in front of looking for it.
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

    /// Wakes the lane, if it still runs.
    pub fn wake(&self) {
        signal(&self.0.descriptor);
        self.0.raised.store(true, Ordering::Release);
    }
}

/// Adds 1 to an eventfd of our own. A full counter (EAGAIN) is a signal that is still on its way.
pub(crate) fn signal(descriptor: &OwnedFd) {
    match rustix::io::retry_on_intr(|| rustix::io::write(descriptor, &1_u64.to_ne_bytes())) {
        Ok(_) | Err(Errno::AGAIN) => {}
        Err(errno) => debug!(%errno, "cannot wake a lane"),
    }
}
