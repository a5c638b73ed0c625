//! Reasons why a process cannot be attached to: those visible beforehand, and the meaning of the kernel's refusal.

use std::fs;
use std::io;

use crate::observe::proc::{self, Status, threads};

/// The flag of `/proc/PID/stat` for threads of the kernel (`PF_KTHREAD`).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// Why a process is not attached to.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No process has this number.
    #[error("there is no process {0}")]
    Missing(i32),
    /// Only its parent has not heard of its end yet.
    #[error("process {0} has already ended and waits to be reaped by its parent (a zombie)")]
    Ended(i32),
    /// It is this one.
    #[error("{0} is innkeeper itself, which cannot trace itself")]
    Own(i32),
    /// A thread of the kernel makes no system calls.
    #[error("{0} is a kernel thread, which makes no system calls")]
    Kernel(i32),
    /// A process has one tracer.
    #[error("process {process} is already traced by {tracer}; end that tracer first")]
    Traced {
        /// The process.
        process: i32,
        /// Name and number of its tracer.
        tracer: String,
    },
    /// Users may trace their own processes.
    #[error("process {process} belongs to user {user}: run innkeeper as that user or as root")]
    User {
        /// The process.
        process: i32,
        /// Whose it is.
        user: u32,
    },
    /// Yama lets a process be traced by its ancestors alone.
    #[error(
        "Yama allows users to trace only processes that they started (kernel.yama.ptrace_scope is 1): run innkeeper as root, or \
         start the command with it"
    )]
    YamaAncestors,
    /// Yama lets root trace.
    #[error("Yama allows only root to trace (kernel.yama.ptrace_scope is 2): run innkeeper as root")]
    YamaRoot,
    /// Yama lets nobody trace.
    #[error(
        "Yama forbids attaching until the next boot (kernel.yama.ptrace_scope is 3): start the command with innkeeper"
    )]
    YamaNobody,
    /// None of these.
    #[error(
        "the kernel does not let process {process} be traced ({source}): it may have privileges that innkeeper has not, or a \
         security module forbids it"
    )]
    Other {
        /// The process.
        process: i32,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The number of the process that a thread belongs to, unless it is plain that it cannot be traced.
///
/// # Errors
/// Why it cannot.
pub fn leader(number: i32) -> Result<i32, Refusal> {
    let status = Status::of(number).ok_or(Refusal::Missing(number))?;
    let process = status.number("Tgid:").unwrap_or(number);
    if u32::try_from(process) == Ok(std::process::id()) {
        return Err(Refusal::Own(number));
    }
    if is_kernel_thread(process) {
        return Err(Refusal::Kernel(number));
    }
    if let Some(tracer) = status.tracer() {
        return Err(Refusal::Traced { process, tracer });
    }
    let threads = threads(process);
    if threads
        .iter()
        .all(|thread| Status::of(*thread).is_none_or(|status| status.is_zombie()))
    {
        return Err(Refusal::Ended(process));
    }
    Ok(process)
}

/// Why a thread could not be seized.
pub(super) fn refusal(process: i32, thread: i32, source: io::Error) -> Refusal {
    if source.raw_os_error() == Some(libc::ESRCH) {
        return Refusal::Missing(process);
    }
    let Some(status) = Status::of(thread) else {
        return Refusal::Missing(process);
    };
    if let Some(tracer) = status.tracer() {
        return Refusal::Traced { process, tracer };
    }
    let own = Status::of(std::process::id().cast_signed());
    let (user, own) = (status.number("Uid:"), own.and_then(|own| own.number("Uid:")));
    if let (Some(user), Some(own)) = (user, own)
        && user != own
        && own != 0
    {
        return Refusal::User {
            process,
            user: user.cast_unsigned(),
        };
    }
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    match scope.trim() {
        "1" if own != Some(0) => Refusal::YamaAncestors,
        "2" if own != Some(0) => Refusal::YamaRoot,
        "3" => Refusal::YamaNobody,
        _ => Refusal::Other { process, source },
    }
}

fn is_kernel_thread(process: i32) -> bool {
    let stat = proc::read(process, "stat").unwrap_or_default();
    // The name, in parentheses, may hold anything; behind it come the state and six numbers, then the flags.
    let behind = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
    let flags = behind
        .split_ascii_whitespace()
        .nth(6)
        .and_then(|flags| flags.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & KERNEL_THREAD != 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn what_cannot_be_traced_is_told_before_anything_is_done() {
        let own = std::process::id().cast_signed();
        assert!(matches!(leader(own), Err(Refusal::Own(_))));
        assert!(matches!(leader(i32::MAX), Err(Refusal::Missing(i32::MAX))));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let number = child.id().cast_signed();
        while !Status::of(number).unwrap().is_zombie() {
            std::thread::yield_now();
        }
        assert!(matches!(leader(number), Err(Refusal::Ended(_))));
        child.wait().unwrap();
    }

    #[test]
    fn a_thread_stands_for_its_process() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let number = child.id().cast_signed();
        assert_eq!(leader(number).unwrap(), number);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_process_may_have_any_name() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join(std::ffi::OsStr::from_bytes(b"sleep\xff"));
        fs::copy("/bin/sleep", &program).unwrap();
        let mut child = std::process::Command::new(program).arg("60").spawn().unwrap();
        let number = child.id().cast_signed();
        assert_eq!(leader(number).unwrap(), number);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
