//! Errors of a share that cannot be made.

use std::io;
use std::path::PathBuf;

/// Why a directory cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory does not open.
    #[error("cannot open the shared directory {path}: {source}", path = path.display())]
    Directory {
        /// As given.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// `/proc/self/fd` does not open.
    #[error("cannot use /proc/self/fd, which must exist and lie on procfs: {0}")]
    Proc(io::Error),
    /// The daemon cannot find out what it may do.
    #[error("cannot read the daemon's own capabilities: {0}")]
    Capabilities(io::Error),
    /// [`InodeHandles::Mandatory`](super::InodeHandles::Mandatory), and handles do not work.
    #[error("file handles do not work on {path} (they need CAP_DAC_READ_SEARCH and a file system that can be exported): {source}", path = path.display())]
    Handles {
        /// As given.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}
