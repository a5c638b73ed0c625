//! Errors in reaching a device and in using it.

use std::io;
use std::path::PathBuf;

use virtqueue::{ConfigError, Fault, PostError};

use crate::RangeError;

/// Why the guest cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens there.
    #[error("cannot connect to {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The backend broke the protocol, refused a request or went away.
    #[error(transparent)]
    Protocol(#[from] vhost_user::Error),
    /// The device lacks features that were asked for.
    #[error("the device does not offer features {missing:#x}")]
    Features {
        /// The feature bits that are missing.
        missing: u64,
    },
    /// The device has fewer queues than were asked for.
    #[error("{wanted} queues requested, the device has {offered}")]
    Queues {
        /// Queues asked for.
        wanted: u16,
        /// Queues of the device.
        offered: u64,
    },
    /// RAM could not be made.
    #[error(transparent)]
    Memory(#[from] guestmem::Error),
    /// Guest memory does not reach as far.
    #[error(transparent)]
    OutOfMemory(#[from] guestmem::OutOfMemory),
    /// The window could not be made.
    #[error(transparent)]
    Window(#[from] RangeError),
    /// The channel of the window could not be made.
    #[error("cannot {action} the backend's channel")]
    Channel {
        /// What was tried.
        action: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The ring cannot be as it was asked for.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The request does not fit the ring.
    #[error(transparent)]
    Post(#[from] PostError),
    /// All places for requests are taken, or the request is larger than a place.
    #[error("no space for a request of {size} bytes")]
    NoPlace {
        /// Bytes of the request, its reply and its table.
        size: u64,
    },
    /// The device broke the rules of the ring.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// No interrupt came in time.
    #[error("queue {queue}: a request is in flight and no interrupt came in time")]
    Timeout {
        /// Queue index.
        queue: u16,
    },
    /// An event descriptor failed.
    #[error("cannot {action}")]
    Event {
        /// What was tried.
        action: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn event(action: &'static str) -> impl Fn(rustix::io::Errno) -> Self {
        move |errno| Self::Event {
            action,
            source: errno.into(),
        }
    }
}
