//! A device on a socket, served by a thread of this process.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use backend::Device;
use rustix::event::{EventfdFlags, eventfd};
use tempfile::TempDir;

/// Name of the socket in the server's directory.
pub(crate) const SOCKET: &str = "socket";

/// Serves until dropped.
pub(crate) struct Served {
    directory: TempDir,
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// Serves `device` on [`SOCKET`] in `directory`.
    pub(crate) fn start(directory: TempDir, device: Arc<impl Device + 'static>) -> Self {
        let listener = UnixListener::bind(directory.path().join(SOCKET)).expect("a socket");
        let stop = eventfd(0, EventfdFlags::CLOEXEC).expect("an event");
        let until = stop.try_clone().expect("a descriptor");
        let thread = std::thread::spawn(move || {
            backend::serve(&listener, &*device, backend::Options::default(), until.as_fd()).expect("no failure");
        });
        Self {
            directory,
            stop,
            thread: Some(thread),
        }
    }

    /// The path of a file in its directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        rustix::io::write(&self.stop, &1_u64.to_ne_bytes()).expect("an event");
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(
            ended.is_some_and(|ended| ended.is_ok()) || std::thread::panicking(),
            "the server panicked"
        );
    }
}
