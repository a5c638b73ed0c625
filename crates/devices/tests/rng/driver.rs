//! The entropy device on a socket, and its driver half.

#[path = "../common/served.rs"]
mod served;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::driver::{Guest, Options};
use devices::rng::{RngDevice, RngOptions};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

use self::served::{SOCKET, Served};

/// Bytes of a request with all that belongs to it: more than the device gives at a time.
pub(crate) const PLACE: u64 = 256 << 10;

/// A source in a directory of its own, until dropped.
pub(crate) struct Origin(TempDir);

impl Origin {
    /// A regular file.
    pub(crate) fn file(bytes: &[u8]) -> Self {
        let origin = Self(tempfile::tempdir().unwrap());
        std::fs::write(origin.path(), bytes).unwrap();
        origin
    }

    pub(crate) fn fifo() -> Self {
        let origin = Self(tempfile::tempdir().unwrap());
        mknodat(CWD, origin.path(), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        origin
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("source")
    }

    /// Opened for writing at its end: a FIFO needs its device for that.
    pub(crate) fn writer(&self) -> File {
        File::options().append(true).open(self.path()).unwrap()
    }

    /// Served without a limit.
    pub(crate) fn serve(&self) -> Daemon {
        self.serve_at(None)
    }

    /// Served at so many bytes per second.
    pub(crate) fn serve_at(&self, rate: Option<u64>) -> Daemon {
        Daemon::new(RngOptions {
            source: self.path(),
            rate,
        })
    }
}

/// The device on a socket, until dropped.
pub(crate) struct Daemon(Served);

impl Daemon {
    pub(crate) fn new(options: RngOptions) -> Self {
        let device = RngDevice::new(options).unwrap();
        Self(Served::start(tempfile::tempdir().unwrap(), Arc::new(device)))
    }

    pub(crate) fn connect(&self, options: &Options) -> Client {
        Client::connect(&self.0.path(SOCKET), options)
    }
}

/// Packed or split, with the device's one queue.
pub(crate) fn options(packed: bool) -> Options {
    Options {
        queues: 1,
        packed,
        place_size: PLACE,
        ..Options::default()
    }
}

/// A guest of the device.
pub(crate) struct Client(pub(crate) Guest);

impl Client {
    fn connect(socket: &Path, options: &Options) -> Self {
        Self(Guest::connect(socket, options).unwrap())
    }

    /// Requests at most `space` bytes.
    pub(crate) fn submit(&mut self, space: u32) {
        self.0.queues[0].submit(&[], space).unwrap();
    }

    /// The bytes of the next request that is finished, as many as its used length says.
    pub(crate) fn wait(&mut self) -> Vec<u8> {
        self.0.queues[0].wait().unwrap().2
    }

    pub(crate) fn ask(&mut self, space: u32) -> Vec<u8> {
        self.submit(space);
        self.wait()
    }

    pub(crate) fn poll(&mut self) -> Option<Vec<u8>> {
        self.0.queues[0].poll().unwrap().map(|(_, _, bytes)| bytes)
    }

    /// Pauses the queue and has it go on. The device has looked at all requests before that.
    pub(crate) fn pause(&mut self) {
        let base = self.0.stop(0).unwrap();
        self.0.start(0, base).unwrap();
    }

    /// No request is finished, although the device has looked at all of them. It goes on with them afterwards.
    pub(crate) fn assert_waits(&mut self) {
        self.pause();
        let base = self.0.stop(0).unwrap();
        assert_eq!(self.poll(), None);
        self.0.start(0, base).unwrap();
    }
}
