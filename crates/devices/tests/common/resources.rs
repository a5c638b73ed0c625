//! What a process has of things that a session must give back.

use std::time::{Duration, Instant};

/// What takes longer hangs.
const LIMIT: Duration = Duration::from_secs(20);
/// In the path of each mapping that counts: guest memory, and files of shares in scratch directories.
const MAPPED: [&str; 3] = ["/memfd:", "/dev/shm", "innkeeper-fuzz-"];

/// Numbers of them.
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
        let counts = |line: &&str| MAPPED.iter().any(|mapped| line.contains(mapped));
        Self {
            descriptors: entries("/proc/self/fd"),
            threads: entries("/proc/self/task"),
            mappings: maps.lines().filter(counts).count(),
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
