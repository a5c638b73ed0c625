//! `/dev/fuse`, by which views are served.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, openat};

/// `/dev/fuse`, or why it cannot be had, and what the thread that serves views does first.
pub struct FuseDevice {
    pub(super) opened: io::Result<OwnedFd>,
    pub(super) at_thread_start: Box<dyn FnOnce() + Send>,
}

impl FuseDevice {
    /// Opens it, where the daemon is not confined yet.
    #[must_use]
    pub fn open() -> Self {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        Self {
            opened: openat(CWD, c"/dev/fuse", flags, Mode::empty()).map_err(io::Error::from),
            at_thread_start: Box::new(|| {}),
        }
    }

    /// Has the thread call `start` before it serves a view: it is confined there. A panic in `start` means that there are no views.
    #[must_use]
    pub fn at_thread_start(self, start: impl FnOnce() + Send + 'static) -> Self {
        Self {
            at_thread_start: Box::new(start),
            ..self
        }
    }
}

impl fmt::Debug for FuseDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FuseDevice")
            .field("opened", &self.opened)
            .finish_non_exhaustive()
    }
}
