//! A file system device on a socket, in this process.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use devices::fs::{FsDevice, FsOptions};
use fuse::passthrough::{Options, Passthrough};
use fuse::server::Server;
use rustix::event::{EventfdFlags, eventfd};
use tempfile::TempDir;

/// A file system in memory, if there is one there: no request waits for a disk.
const IN_MEMORY: &str = "/dev/shm";
/// What takes longer hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Shares a fresh directory until it is dropped.
pub(crate) struct Daemon {
    directory: TempDir,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

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
        let listener = UnixListener::bind(directory.path().join("socket")).expect("a socket");
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).expect("an event"));
        let until = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            backend::serve(&listener, &device, backend::Options::default(), until.as_fd()).expect("no failure");
        });
        Self {
            directory,
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        rustix::io::write(&self.stop, &1_u64.to_ne_bytes()).expect("an event");
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(
            ended.is_some_and(|ended| ended.is_ok()) || std::thread::panicking(),
            "the server panicked"
        );
    }
}

/// What the process has of things that a session must give back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resources {
    descriptors: usize,
    threads: usize,
    /// Of files. Memory of other kinds is kept by allocator and thread library as they like.
    mappings: usize,
}

impl Resources {
    pub(crate) fn now() -> Self {
        let entries = |directory| std::fs::read_dir(directory).expect("procfs").count();
        let maps = std::fs::read_to_string("/proc/self/maps").expect("procfs");
        let of_files =
            |line: &&str| line.contains("/memfd:") || line.contains(IN_MEMORY) || line.contains("innkeeper-fuzz-");
        Self {
            descriptors: entries("/proc/self/fd"),
            threads: entries("/proc/self/task"),
            mappings: maps.lines().filter(of_files).count(),
        }
    }

    /// Waits until the process has just as many again.
    pub(crate) fn await_return(&self) {
        let started = Instant::now();
        loop {
            let now = Self::now();
            if now == *self {
                return;
            }
            assert!(started.elapsed() < LIMIT, "there were {self:?}, and there are {now:?}");
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}
