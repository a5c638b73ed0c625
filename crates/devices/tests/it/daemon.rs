//! The device under test on a socket, and a guest with an open FUSE session.

#[path = "../common/served.rs"]
mod served;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use devices::fs::{Deferral, FsDevice, FsOptions};
use driver::fs::{self, Request, Requests};
use driver::{Guest, Options};
use fuse::fs::FileSystem;
use fuse::passthrough::{self, Passthrough};
use fuse::server::Server;
use tempfile::TempDir;

use self::served::{SOCKET, Served};

/// Runs until dropped.
pub(crate) struct Daemon(Served);

impl Daemon {
    /// Shares a fresh directory with `request_queues` queues besides hiprio.
    pub(crate) fn sharing(request_queues: u16) -> Self {
        Self::sharing_with(request_queues, 0, passthrough::Options::default())
    }

    /// The same with one request queue and a window of this many bytes.
    pub(crate) fn with_window(window_size: u64) -> Self {
        Self::with_window_and(window_size, passthrough::Options::default())
    }

    /// The same with other options.
    pub(crate) fn with_window_and(window_size: u64, options: passthrough::Options) -> Self {
        Self::sharing_with(1, window_size, options)
    }

    fn sharing_with(request_queues: u16, window_size: u64, options: passthrough::Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let share = directory.path().join("share");
        std::fs::create_dir(&share).unwrap();
        let fs = Passthrough::new(&share, options).unwrap();
        Self::serving(directory, fs_options(request_queues, window_size), fs)
    }

    /// Shares a directory that there is already, with a window; [`share`](Self::share) is of no use then.
    pub(crate) fn over(share: &Path, window_size: u64) -> Self {
        let fs = Passthrough::new(share, passthrough::Options::default()).unwrap();
        Self::serving(tempfile::tempdir().unwrap(), fs_options(1, window_size), fs)
    }

    pub(crate) fn of<F: FileSystem + 'static>(fs: F) -> Self {
        Self::serving(tempfile::tempdir().unwrap(), fs_options(1, 0), fs)
    }

    /// The same with other limits of deferred reads.
    pub(crate) fn deferring<F: FileSystem + 'static>(fs: F, deferral: Deferral) -> Self {
        let options = FsOptions {
            deferral,
            ..fs_options(1, 0)
        };
        Self::serving(tempfile::tempdir().unwrap(), options, fs)
    }

    fn serving<F: FileSystem + 'static>(directory: TempDir, options: FsOptions, fs: F) -> Self {
        let device = FsDevice::new(options, Server::new(fs)).unwrap();
        Self(Served::start(directory, Arc::new(device)))
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.path(SOCKET)
    }

    /// The shared directory.
    pub(crate) fn share(&self) -> PathBuf {
        self.0.path("share")
    }

    pub(crate) fn connect(&self, options: &Options) -> Client {
        Client::connect(&self.socket(), options)
    }
}

fn fs_options(request_queues: u16, window_size: u64) -> FsOptions {
    FsOptions {
        window_size,
        tag: "share".into(),
        request_queues,
        ..FsOptions::default()
    }
}

/// Packed or split, with all queues of a device that has `request_queues`.
pub(crate) fn options(packed: bool, request_queues: u16) -> Options {
    Options {
        queues: 1 + request_queues,
        packed,
        ..Options::default()
    }
}

/// A guest with its FUSE requests.
pub(crate) struct Client {
    pub(crate) guest: Guest,
    pub(crate) requests: Requests,
}

/// What a request came to: the reply's body, or the errno.
pub(crate) type Reply = Result<Vec<u8>, i32>;

impl Client {
    fn connect(socket: &Path, options: &Options) -> Self {
        let guest = Guest::connect(socket, options).unwrap();
        // The tests' own user: without privileges, the device can act for nobody else.
        let requests = Requests::new(rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        Self { guest, requests }
    }

    /// Sends a request on queue `queue` and takes the reply apart.
    pub(crate) fn ask_on(&mut self, queue: usize, request: &Request) -> Reply {
        let (written, bytes) = self.guest.queues[queue]
            .call(&request.readable, request.reply_space)
            .unwrap();
        fs::reply(request, written, &bytes).unwrap().map(<[u8]>::to_vec)
    }

    /// The same on the first request queue.
    pub(crate) fn ask(&mut self, make: impl FnOnce(&mut Requests) -> Request) -> Reply {
        let request = make(&mut self.requests);
        self.ask_on(1, &request)
    }

    /// Begins the FUSE session.
    pub(crate) fn init(&mut self) {
        let body = self.ask(|requests| requests.init(45, 0)).unwrap();
        assert_eq!(fs::field_u32(&body, 0), 7, "major version");
    }

    /// The node of a file in the root directory.
    pub(crate) fn node(&mut self, name: &str) -> u64 {
        let entry = self.ask(|requests| requests.lookup(fs::ROOT, name.as_bytes()));
        fs::field_u64(&entry.unwrap(), 0)
    }

    /// The device answers: a root directory with attributes.
    pub(crate) fn assert_served(&mut self) {
        let body = self.ask(|requests| requests.getattr(fs::ROOT)).unwrap();
        assert_eq!(body.len(), 104);
    }
}
