//! Files of `/proc` about a process, in which names may have any bytes.

use std::fs;
use std::io;

/// `SECCOMP_MODE_FILTER`, and what a thread's mode is once a call was its last (Linux 5.17 and later).
const FILTERED: i32 = 2;
const DEAD: i32 = 3;

/// What a file of a thread says; what is no UTF-8 in it is replaced.
pub(crate) fn read(thread: i32, file: &str) -> io::Result<String> {
    let bytes = fs::read(format!("/proc/{thread}/{file}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The threads of a process.
pub(crate) fn threads(process: i32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{process}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.collect()
}

/// The name under which the thread's program was started, or its first 15 bytes (`comm`).
pub(crate) fn program(thread: i32) -> Option<String> {
    Some(read(thread, "comm").ok()?.trim_end().to_owned())
}

/// Whether a seccomp filter is on the thread.
pub(crate) fn filtered(thread: i32) -> bool {
    matches!(seccomp(thread), Some(FILTERED | DEAD))
}

/// Whether a seccomp filter has ended the thread.
pub(crate) fn ended_by_filter(thread: i32) -> bool {
    seccomp(thread) == Some(DEAD)
}

fn seccomp(thread: i32) -> Option<i32> {
    Status::of(thread)?.number("Seccomp:")
}

/// `/proc/PID/status` of a thread.
pub(crate) struct Status(String);

impl Status {
    pub(crate) fn of(thread: i32) -> Option<Self> {
        read(thread, "status").ok().map(Self)
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let found = self.0.lines().find_map(|line| line.strip_prefix(name));
        found.map(str::trim)
    }

    pub(crate) fn number(&self, name: &str) -> Option<i32> {
        self.field(name)?.split_ascii_whitespace().next()?.parse().ok()
    }

    pub(crate) fn is_zombie(&self) -> bool {
        self.field("State:").is_some_and(|state| state.starts_with(['Z', 'X']))
    }

    /// Whether a thread of this process traces it.
    pub(crate) fn is_ours(&self) -> bool {
        let tracer = self.number("TracerPid:").and_then(Self::of);
        tracer.and_then(|tracer| tracer.number("Tgid:")) == Some(std::process::id().cast_signed())
    }

    /// Name and number of who traces it.
    pub(crate) fn tracer(&self) -> Option<String> {
        let number = self.number("TracerPid:").filter(|tracer| *tracer != 0)?;
        let name = read(number, "comm").unwrap_or_default();
        Some(format!("{}[{number}]", name.trim_end()))
    }
}
