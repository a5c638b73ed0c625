//! Counts the system calls of a running process without stopping it: with the kernel's tracepoint
//! raw_syscalls:sys_enter and perf_event_open(2). A tracer that stops the process at each call would change the
//! count: the slower a daemon, the more requests it finds at once.
#![expect(unsafe_code, reason = "perf_event_open(2) has no wrapper among our dependencies")]

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::FromRawFd;

use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// Where tracefs is mounted, if it is.
const TRACEFS: &str = "/sys/kernel/tracing";
const TRACEPOINT: &str = "events/raw_syscalls/sys_enter/id";

/// `struct perf_event_attr` in its first version, PERF_ATTR_SIZE_VER0 (linux/perf_event.h).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    breakpoint_address: u64,
}

/// PERF_TYPE_TRACEPOINT.
const KIND_TRACEPOINT: u32 = 2;
/// Threads that are started meanwhile are counted too.
const INHERIT: u64 = 1 << 1;
/// PERF_FLAG_FD_CLOEXEC.
const CLOSE_ON_EXEC: u64 = 1 << 3;

/// Knows how to count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Syscalls {
    /// The tracepoint's number.
    tracepoint: u64,
}

/// Counts from its beginning on.
#[derive(Debug)]
pub(crate) struct Count(Vec<File>);

impl Syscalls {
    /// Or why nothing can be counted.
    pub(crate) fn new() -> io::Result<Self> {
        let text = fs::read_to_string(format!("{TRACEFS}/{TRACEPOINT}")).or_else(|_| read_unmounted())?;
        let this = Self {
            tracepoint: text.trim().parse().map_err(io::Error::other)?,
        };
        // Whether it is permitted, which the number does not tell.
        this.count(&[0]).map(|_| this)
    }

    /// Begins to count the calls of these threads, and of those that they start; 0 is the calling one.
    pub(crate) fn count(self, threads: &[u32]) -> io::Result<Count> {
        let attributes = Attributes {
            kind: KIND_TRACEPOINT,
            size: size_of::<Attributes>() as u32,
            config: self.tracepoint,
            flags: INHERIT,
            ..Attributes::default()
        };
        let open = |&thread: &u32| {
            // SAFETY: the kernel reads `size` bytes of the attributes, which are so long; the other arguments are numbers.
            let descriptor = unsafe {
                libc::syscall(
                    libc::SYS_perf_event_open,
                    &raw const attributes,
                    libc::c_long::from(thread),
                    -1_i64,
                    -1_i64,
                    CLOSE_ON_EXEC,
                )
            };
            match i32::try_from(descriptor) {
                // SAFETY: the call has just made this descriptor, and nobody else owns it.
                Ok(number @ 0..) => Ok(unsafe { File::from_raw_fd(number) }),
                _ => Err(io::Error::last_os_error()),
            }
        };
        // A thread that has ended meanwhile calls nothing any more.
        let is_there = |opened: &io::Result<File>| {
            let error = opened.as_ref().err().and_then(io::Error::raw_os_error);
            error != Some(libc::ESRCH)
        };
        let counters = threads.iter().map(open).filter(is_there);
        counters.collect::<io::Result<_>>().map(Count)
    }
}

impl Count {
    /// How many there were.
    pub(crate) fn end(self) -> io::Result<u64> {
        let counted = self.0.into_iter().map(|mut counter| {
            let mut count = [0; 8];
            counter.read_exact(&mut count)?;
            Ok(u64::from_ne_bytes(count))
        });
        counted.sum()
    }
}

/// From a tracefs of our own, which nobody else sees.
fn read_unmounted() -> io::Result<String> {
    let context = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let mount = fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_RDONLY,
    )?;
    let file = openat(&mount, TRACEPOINT, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    io::read_to_string(File::from(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_of_a_thread_and_of_those_it_starts_is_counted() {
        let Ok(syscalls) = Syscalls::new() else {
            eprintln!("SKIPPED: the kernel's tracepoints are for root");
            return;
        };
        let work = || {
            for _ in 0..1000 {
                let _ = rustix::process::getppid();
            }
        };
        let count = |work: &dyn Fn()| {
            let counter = syscalls.count(&[0]).unwrap();
            work();
            counter.end().unwrap()
        };
        assert!((1000..1020).contains(&count(&work)));
        let elsewhere = || std::thread::scope(|scope| drop(scope.spawn(work).join()));
        assert!((1000..1100).contains(&count(&elsewhere)));
        assert!(read_unmounted().unwrap().trim().parse() == Ok(syscalls.tracepoint));
    }
}
