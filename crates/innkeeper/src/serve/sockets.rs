//! The sockets of a daemon: one for each virtual machine that it serves at the same time.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use process::socket::{self, SocketFile};

use super::args::Serving;
use super::error::Error;

/// Sockets that listen.
pub(crate) struct Sockets {
    pub(crate) listeners: Vec<UnixListener>,
    /// Those of them that are ours to remove.
    pub(crate) files: Vec<SocketFile>,
    /// Where each listens, as the user names it.
    pub(crate) paths: Vec<PathBuf>,
}

/// Creates the sockets that the command line names, or takes them over.
pub(crate) fn listen(serving: &Serving) -> Result<Sockets, Error> {
    let (mut listeners, mut files) = (Vec::new(), Vec::new());
    for path in &serving.endpoint.socket_path {
        let (listener, file) = socket::listen(path, serving.socket_group.as_deref())?;
        listeners.push(listener);
        files.push(file);
    }
    let mut paths = serving.endpoint.socket_path.clone();
    for &number in &serving.endpoint.fd {
        let listener = socket::inherit(number)?;
        paths.extend(socket::path_of(&listener));
        listeners.push(listener);
    }
    Ok(Sockets {
        listeners,
        files,
        paths,
    })
}
