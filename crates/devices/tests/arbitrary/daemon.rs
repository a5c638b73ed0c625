//! A file system device on a socket, in this process.

#[path = "../common/served.rs"]
mod served;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use devices::fs::{FsDevice, FsOptions};
use fuse::passthrough::{Options, Passthrough};
use fuse::server::Server;
use tempfile::TempDir;

use self::served::{SOCKET, Served};

/// A file system in memory, if there is one there: no request waits for a disk.
const IN_MEMORY: &str = "/dev/shm";
/// What takes longer hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Shares a fresh directory until it is dropped.
pub(crate) struct Daemon(Served);

impl Daemon {
    /// Shares the files that `fill` makes, with a window of so many bytes.
    pub(crate) fn sharing(window_size: u64, fill: impl FnOnce(&Path)) -> Self {
        let place = match Path::new(IN_MEMORY).is_dir() {
            true => IN_MEMORY.into(),
            false => std::env::temp_dir(),
        };
        let directory = TempDir::with_prefix_in("innkeeper-fuzz-", place).expect("a directory");
        let share = directory.path().join("share");
        std::fs::create_dir(&share).expect("a directory");
        fill(&share);
        let fs = Passthrough::new(&share, Options::default()).expect("a share");
        let options = FsOptions {
            window_size,
            tag: "share".into(),
            request_queues: 1,
            ..FsOptions::default()
        };
        let device = FsDevice::new(options, Server::new(fs)).expect("a device");
        Self(Served::start(directory, Arc::new(device)))
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.path(SOCKET)
    }
}
