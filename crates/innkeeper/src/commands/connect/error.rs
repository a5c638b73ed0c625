//! Errors of `innkeeper connect`.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Why a port of a guest is not connected, or not any longer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "cannot connect to {}: no such socket; start `innkeeper vsock --uds-path {}`, or give the path of one that runs",
        path.display(), path.display()
    )]
    NoSocket { path: PathBuf },
    #[error(
        "cannot connect to {}: nobody listens on this socket; start `innkeeper vsock` again",
        path.display()
    )]
    NobodyListens { path: PathBuf },
    #[error(
        "cannot connect to {}: {source}; give the path of `innkeeper vsock --uds-path`, as its owner",
        path.display()
    )]
    Socket { path: PathBuf, source: io::Error },
    #[error(
        "the guest behind {} refuses port {port}; start a program there that listens on it (AF_VSOCK)",
        path.display()
    )]
    Refused { path: PathBuf, port: u32 },
    #[error(
        "what listens on {} does not answer as `innkeeper vsock` does; give the path of its --uds-path",
        path.display()
    )]
    Foreign { path: PathBuf },
    #[error("the connection to port {port} of the guest is lost: {source}; connect again")]
    Lost { port: u32, source: io::Error },
    #[error("cannot read standard input: {0}; the guest is told of its end")]
    Input(io::Error),
    #[error("cannot write to standard output: {0}; see that its reader stays")]
    Output(io::Error),
    #[error("cannot use the socket in two directions: {0}; raise the limit of open files")]
    Share(io::Error),
}

impl Error {
    /// Why there is no connection to the socket.
    pub(crate) fn of_socket(path: &Path, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            ErrorKind::NotFound => Self::NoSocket { path },
            ErrorKind::ConnectionRefused => Self::NobodyListens { path },
            _ => Self::Socket { path, source },
        }
    }
}
