//! The network of an ordinary user: passt, started here or already listening.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

/// The program, found in PATH.
const PASST: &str = "passt";

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(
        "passt is not installed: install the package passt, connect to one that runs elsewhere with --passt-socket, \
         or use a tap interface with --tap"
    )]
    Missing,
    #[error("cannot start passt: {0}")]
    Start(io::Error),
    #[error("cannot make a socket for passt: {0}")]
    Socket(io::Error),
    #[error("cannot connect to {}: {source}; start it with `passt --socket {}`", path.display(), path.display())]
    Connect { path: PathBuf, source: io::Error },
}

/// Starts passt. It ends when the stream is closed.
pub(super) fn start() -> Result<UnixStream, Error> {
    start_program(PASST)
}

fn start_program(program: &str) -> Result<UnixStream, Error> {
    // The child inherits its end. No other thread runs yet that could start a child of its own in between.
    let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::empty(), None);
    let (near, far): (OwnedFd, OwnedFd) = pair.map_err(|errno| Error::Socket(errno.into()))?;
    rustix::io::fcntl_setfd(&near, rustix::io::FdFlags::CLOEXEC).map_err(|errno| Error::Socket(errno.into()))?;
    let mut command = Command::new(program);
    command.args(["--foreground", "--quiet", "--fd", &far.as_raw_fd().to_string()]);
    // A terminal's signals end innkeeper, and that ends passt.
    command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    match command.spawn() {
        Ok(_ends_with_the_stream) => Ok(near.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::Missing),
        Err(error) => Err(Error::Start(error)),
    }
}

/// Connects to a passt that listens on `path`.
pub(super) fn connect(path: &Path) -> Result<UnixStream, Error> {
    UnixStream::connect(path).map_err(|source| Error::Connect {
        path: path.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_is_named_if_there_is_no_passt() {
        let missing = start_program("no-such-passt").unwrap_err().to_string();
        assert!(
            missing.contains("install the package passt") && missing.contains("--passt-socket"),
            "{missing}"
        );
        let closed = connect(Path::new("/nowhere")).unwrap_err().to_string();
        assert!(
            closed.contains("/nowhere") && closed.contains("passt --socket"),
            "{closed}"
        );
    }
}
