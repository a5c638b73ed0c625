//! Errors that end a worker of a mount.

use std::io;

use rustix::io::Errno;

/// Why a worker ended before its file system did.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("it was told to stop")]
    Stopped,
    #[error(transparent)]
    Ring(#[from] driver::Error),
    #[error("cannot {action}: {source}")]
    System { action: &'static str, source: io::Error },
}

impl Trouble {
    pub(super) fn wait(errno: Errno) -> Self {
        Self::system("wait for events")(errno)
    }

    pub(super) fn system<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System {
            action,
            source: source.into(),
        }
    }
}
