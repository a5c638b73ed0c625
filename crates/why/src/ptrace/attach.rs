//! Attaches to a process that runs already, and lets it go again as it was.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use super::sys::{self, Stop};
use super::trace::Trace;
use super::wake::Wake;
use super::{Error, Report, Watch, system};
use crate::proc;

/// Threads that wait for a disk do not stop before it answers: that long is waited for those.
const STOPPING: Duration = Duration::from_millis(300);
/// That long is waited for threads to stop so that they can be let go; the others are when this process ends.
const LETTING_GO: Duration = Duration::from_secs(2);
/// The flag of `/proc/PID/stat` for threads of the kernel (`PF_KTHREAD`).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// Why a process is not attached to.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No process has this number.
    #[error("there is no process {0}")]
    Missing(i32),
    /// Only its parent has not heard of its end yet.
    #[error("process {0} has ended already, and only waits for its parent to notice (a zombie)")]
    Ended(i32),
    /// It is this one.
    #[error("{0} is innkeeper itself, which cannot trace itself")]
    Own(i32),
    /// A thread of the kernel makes no system calls.
    #[error("{0} is a thread of the kernel, which makes no system calls")]
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
    #[error("process {process} is of user {user}: run innkeeper as that user or as root")]
    User {
        /// The process.
        process: i32,
        /// Whose it is.
        user: u32,
    },
    /// Yama lets a process be traced by its ancestors alone.
    #[error(
        "Yama lets users trace what they started themselves alone (kernel.yama.ptrace_scope is 1): run innkeeper as root, or \
         start the command with it"
    )]
    YamaAncestors,
    /// Yama lets root trace.
    #[error("Yama lets root alone trace (kernel.yama.ptrace_scope is 2): run innkeeper as root")]
    YamaRoot,
    /// Yama lets nobody trace.
    #[error(
        "Yama lets nobody attach until the next boot (kernel.yama.ptrace_scope is 3): start the command with innkeeper"
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

/// A process to attach to.
pub struct Process<'b> {
    /// Its number, or that of one of its threads.
    pub number: i32,
    /// How long to stay; to its end if there is none.
    pub time: Option<Duration>,
    /// Is told how many threads there are, once they are traced.
    pub begun: &'b mut dyn FnMut(usize),
}

/// Attaches to a process and reports which calls of its threads and new children failed, until it ends, the time is over
/// or this process gets SIGINT, SIGTERM or SIGHUP. Then the process goes on as before. It does so as well if this process is
/// killed.
///
/// # Errors
/// The process is not there or may not be traced; all its threads then are as they were.
pub fn attach(process: Process<'_>, watch: &mut impl Watch) -> Result<Report, Error> {
    let leader = leader(process.number)?;
    let mut wake = Wake::new().map_err(system("wait with an end"))?;
    let mut trace = Trace::new(watch);
    let seized = trace.seize(leader).inspect_err(|_| trace.let_go(&mut wake))?;
    let begun = trace.hold(&seized, &mut wake).map_err(system("stop the threads"));
    let held = begun.inspect_err(|_| trace.let_go(&mut wake))?;
    let alive = held.iter().filter(|(_, stop)| !matches!(stop, Stop::Ended(_)));
    let alive: Vec<i32> = alive.map(|(thread, _)| *thread).collect();
    trace.busy = trace
        .traced
        .iter()
        .copied()
        .filter(|thread| !alive.contains(thread))
        .collect();
    trace.watch.started(&alive);
    (process.begun)(trace.traced.len());
    let until = process.time.and_then(|time| Instant::now().checked_add(time));
    let mut status = held.into_iter().fold(None, |status, (thread, stop)| {
        trace.stopped(thread, stop, leader).or(status)
    });
    while status.is_none() && !trace.traced.is_empty() && !Wake::asked() {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            break;
        }
        match sys::wait_now() {
            Ok(Some((thread, stop))) => status = trace.stopped(thread, stop, leader),
            Ok(None) => wake.wait(left).map_err(system("wait for the process"))?,
            Err(error) => {
                trace.let_go(&mut wake);
                return Err(system("wait for the process")(error));
            }
        }
    }
    trace.let_go(&mut wake);
    Ok(trace.report(status.unwrap_or(0)))
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

impl<W: Watch> Trace<'_, W> {
    /// Seizes all threads and has them stop; those that come meanwhile are seized at their birth.
    fn seize(&mut self, process: i32) -> Result<Vec<i32>, Error> {
        let mut seized = Vec::new();
        loop {
            let threads = threads(process).into_iter();
            let new: Vec<i32> = threads.filter(|thread| !self.traced.contains(thread)).collect();
            let before = seized.len();
            for thread in new {
                match sys::seize(thread) {
                    Ok(()) => {}
                    Err(_) if Status::of(thread).is_none_or(|status| status.is_zombie()) => continue,
                    // It was born of one that is traced.
                    Err(_) if Status::of(thread).is_some_and(|status| status.is_ours()) => {}
                    Err(source) => return Err(refusal(process, thread, source).into()),
                }
                self.traced.insert(thread);
                seized.push(thread);
                sys::interrupt(thread);
            }
            if seized.len() == before {
                return if seized.is_empty() {
                    Err(Refusal::Missing(process).into())
                } else {
                    Ok(seized)
                };
            }
        }
    }

    /// Waits for the threads to stop, and keeps them so: whoever is to be told of them sees each of their calls.
    fn hold(&mut self, seized: &[i32], wake: &mut Wake) -> io::Result<Vec<(i32, Stop)>> {
        let until = Instant::now() + STOPPING;
        let mut waited: BTreeSet<i32> = seized.iter().copied().collect();
        let mut held = Vec::new();
        while !waited.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            match sys::wait_now()? {
                Some((thread, stop)) => {
                    waited.remove(&thread);
                    if !matches!(stop, Stop::Ended(_)) {
                        self.traced.insert(thread);
                    }
                    held.push((thread, stop));
                }
                None if left.is_zero() => break,
                None => wake.wait(Some(left))?,
            }
        }
        Ok(held)
    }

    /// Lets all threads go on untraced; those that were stopped by somebody else stay so.
    pub(super) fn let_go(&mut self, wake: &mut Wake) {
        // One that a call of execve() ended is not told of.
        self.traced.retain(|thread| sys::interrupt(*thread));
        let until = Instant::now() + LETTING_GO;
        while !self.traced.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            match sys::wait_now() {
                Ok(Some((thread, stop))) => {
                    self.traced.remove(&thread);
                    let signal = match stop {
                        Stop::Ended(_) => continue,
                        Stop::Signal(signal) => signal,
                        Stop::Born(child) => {
                            self.traced.insert(child);
                            0
                        }
                        Stop::Syscall | Stop::Group | Stop::Executed(_) | Stop::Ending(_) | Stop::Event => 0,
                    };
                    sys::detach(thread, signal);
                }
                Ok(None) if !left.is_zero() => {
                    if wake.wait(Some(left)).is_err() {
                        return;
                    }
                }
                Ok(None) | Err(_) => return,
            }
        }
    }
}

/// Why a thread could not be seized.
fn refusal(process: i32, thread: i32, source: io::Error) -> Refusal {
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

fn threads(process: i32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{process}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.collect()
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

/// `/proc/PID/status` of a thread.
pub(super) struct Status(String);

impl Status {
    pub(super) fn of(thread: i32) -> Option<Self> {
        proc::read(thread, "status").ok().map(Self)
    }

    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let found = self.0.lines().find_map(|line| line.strip_prefix(name));
        found.map(str::trim)
    }

    pub(super) fn number(&self, name: &str) -> Option<i32> {
        self.field(name)?.split_ascii_whitespace().next()?.parse().ok()
    }

    fn is_zombie(&self) -> bool {
        self.field("State:").is_some_and(|state| state.starts_with(['Z', 'X']))
    }

    /// Whether a thread of this process traces it.
    fn is_ours(&self) -> bool {
        let tracer = self.number("TracerPid:").and_then(Self::of);
        tracer.and_then(|tracer| tracer.number("Tgid:")) == Some(std::process::id().cast_signed())
    }

    /// Name and number of who traces it.
    fn tracer(&self) -> Option<String> {
        let number = self.number("TracerPid:").filter(|tracer| *tracer != 0)?;
        let name = proc::read(number, "comm").unwrap_or_default();
        Some(format!("{}[{number}]", name.trim_end()))
    }
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
