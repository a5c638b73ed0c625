//! Runs a command under ptrace, or attaches to a process, and collects the system calls that failed. Needs no privilege.

mod address;
mod arguments;
mod attach;
mod flags;
mod signatures;
mod sys;
mod wake;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;

use serde::{Deserialize, Serialize};
use sys::{Stop, Syscall};
use wake::Wake;

use crate::context::Context;
use crate::kernel_log::{self, KernelLog};
use crate::{errno_name, syscall_name};

pub(crate) use arguments::Object;
pub use attach::{Process, Refusal, attach, leader};

/// The audit number of x86-64: calls of other kinds (i386) have other numbers.
pub const AUDIT_X86_64: u32 = 0xc000_003e;
/// `ERESTARTSYS` and its kin: the kernel calls again by itself, the program never sees them.
const RESTARTS: std::ops::RangeInclusive<i64> = 512..=516;
/// Failed calls that are kept; a command in a loop must not fill the memory.
const KEPT: usize = 10_000;

/// Calls by which shells and execvp() look for a program, and how many failures before its start may be of those.
const SEARCHING: [&str; 6] = ["execve", "stat", "newfstatat", "access", "faccessat", "faccessat2"];
const SEARCHED: usize = 64;

/// A system call that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The thread that called.
    pub thread: i32,
    /// The name of its program's file, if it could be read.
    pub program: Option<String>,
    /// Number of the call.
    pub number: u64,
    /// Whose number that is, as audit counts architectures: 32-bit programs have calls of their own.
    #[serde(default = "native")]
    pub architecture: u32,
    /// Name of the call, or its number where there is no name.
    pub call: String,
    /// The arguments as a person would write them.
    pub arguments: Vec<String>,
    /// How it failed.
    pub outcome: Outcome,
    /// Whether a seccomp filter was on this thread, which may have refused the call before any kernel function saw it.
    pub filtered: bool,
    /// Whether it was looked for a program here that then was found elsewhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub searching: bool,
    /// What it was measured against.
    #[serde(default)]
    pub context: Context,
    /// What the kernel logged between the call's entry and its end, whoever that was about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<kernel_log::Line>,
}

fn native() -> u32 {
    AUDIT_X86_64
}

impl Failure {
    /// Whether it is one of the kernel's own calls, and none of those that it has for 32-bit programs.
    #[must_use]
    pub fn is_native(&self) -> bool {
        self.architecture == native()
    }
}

/// How a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It returned this errno.
    Errno(i32),
    /// A seccomp filter sent SIGSYS in its place.
    Sigsys,
}

impl Outcome {
    /// The name as in `EACCES`, or the number.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Errno(errno) => errno_name(errno).map_or_else(|| errno.to_string(), str::to_owned),
            Self::Sigsys => "SIGSYS".to_owned(),
        }
    }
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The failed calls in the order of their returns.
    pub failures: Vec<Failure>,
    /// Failed calls that were not kept because there were too many.
    pub dropped: u64,
    /// The exit status, or 128 plus the signal that ended it; 0 for a process that was let go before its end.
    pub status: u8,
    /// Set if the command itself could not be executed, of which the failed calls tell more.
    pub not_run: Option<NotRun>,
}

/// There is no such program, or it cannot be executed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot run {program}: {}", io::Error::from_raw_os_error(*errno))]
pub struct NotRun {
    /// The command's first word.
    pub program: String,
    /// What the kernel said.
    pub errno: i32,
}

/// What kept a command from being run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A word of the command holds a NUL byte, or there are none.
    #[error("the command is empty or has a NUL byte in it")]
    Command,
    /// The process is not attached to.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The system refused to trace.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Is told of the command's calls as they happen; the thread that a call is of is stopped meanwhile.
pub trait Watch {
    /// These threads are there, and make no calls before this returns: one that has not executed the command yet, or those
    /// of a process that was attached to.
    fn started(&mut self, threads: &[i32]);
    /// A thread is about to enter the call of this number.
    fn entered(&mut self, thread: i32, number: u64);
    /// A thread has returned from its call.
    fn left(&mut self, thread: i32, failed: bool);
    /// A thread is no more; its last call never returned.
    fn ended(&mut self, thread: i32);
}

impl Watch for () {
    fn started(&mut self, _: &[i32]) {}
    fn entered(&mut self, _: i32, _: u64) {}
    fn left(&mut self, _: i32, _: bool) {}
    fn ended(&mut self, _: i32) {}
}

/// Runs a command to its end and reports which of its calls failed, those of its threads and children included.
///
/// Signals reach the command as they would without ptrace. Descendants that outlive the command go on untraced.
///
/// # Errors
/// The command is none, or the system does not let it be traced. That it cannot be executed is part of the report.
pub fn run(command: Vec<OsString>) -> Result<Report, Error> {
    run_watched(command, &mut ())
}

/// As [`run`], telling `watch` of each call.
///
/// # Errors
/// As [`run`].
pub fn run_watched(command: Vec<OsString>, watch: &mut impl Watch) -> Result<Report, Error> {
    let program = command.first().ok_or(Error::Command)?.to_string_lossy().into_owned();
    let words: Result<Vec<_>, _> = command.into_iter().map(|word| CString::new(word.into_vec())).collect();
    let mut child = sys::fork(&words.map_err(|_| Error::Command)?).map_err(system("start a process"))?;
    child
        .seize()
        .map_err(system("trace the command (is ptrace allowed here?)"))?;
    let signals = sys::pass_signals_on(child.pid);
    // It stops before it executes the command, and from there on each call is seen.
    sys::interrupt(child.pid);
    watch.started(&[child.pid]);
    child.execute().map_err(system("let the command go"))?;
    let mut trace = Trace::new(watch);
    let status = trace.until_end_of(child.pid).map_err(system("wait for the command"))?;
    drop(signals);
    // What outlives the command may be a server that this process needs next. Else it goes on when this process ends.
    if let Ok(mut wake) = Wake::new() {
        trace.let_go(&mut wake);
    }
    Ok(Report {
        not_run: child.failure().map(|errno| NotRun { program, errno }),
        ..trace.report(status)
    })
}

fn system(doing: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::System { doing, source }
}

struct Trace<'w, W> {
    watch: &'w mut W,
    /// The threads that are traced, and perhaps some that are no more.
    traced: BTreeSet<i32>,
    /// Who started each of those that were born while traced.
    parents: BTreeMap<i32, i32>,
    /// The call that each thread is in.
    calls: BTreeMap<i32, Syscall>,
    /// None where it may not be read.
    log: Option<KernelLog>,
    failures: Vec<Failure>,
    dropped: u64,
}

impl<'w, W: Watch> Trace<'w, W> {
    fn new(watch: &'w mut W) -> Self {
        Self {
            watch,
            traced: BTreeSet::new(),
            parents: BTreeMap::new(),
            calls: BTreeMap::new(),
            log: KernelLog::open(),
            failures: Vec::new(),
            dropped: 0,
        }
    }

    fn report(self, status: u8) -> Report {
        Report {
            failures: self.failures,
            dropped: self.dropped,
            status,
            not_run: None,
        }
    }

    fn until_end_of(&mut self, leader: i32) -> io::Result<u8> {
        loop {
            let (thread, stop) = sys::wait()?;
            if let Some(status) = self.stopped(thread, stop, leader) {
                return Ok(status);
            }
        }
    }

    /// Takes note of a stop and lets the thread go on; gives the exit status once the leader has ended.
    fn stopped(&mut self, thread: i32, stop: Stop, leader: i32) -> Option<u8> {
        self.traced.insert(thread);
        match stop {
            Stop::Ended(status) => {
                self.forget(thread);
                return (thread == leader).then_some(status);
            }
            Stop::Syscall => {
                self.syscall(thread);
                sys::resume(thread, 0);
            }
            Stop::Signal(signal) => {
                if signal == libc::SIGSYS {
                    self.sigsys(thread);
                }
                sys::resume(thread, signal);
            }
            // The thread stays stopped, as the one who stopped it wants, until SIGCONT.
            Stop::Group => sys::listen(thread),
            Stop::Born(child) => {
                self.traced.insert(child);
                self.parents.insert(child, thread);
                sys::resume(thread, 0);
            }
            Stop::Executed(former) => {
                if former != thread {
                    // It has taken the place of the leader, which is no more, nor are the other threads.
                    let call = self.calls.remove(&former);
                    self.forget(former);
                    self.calls.remove(&thread);
                    self.calls.extend(call.map(|call| (thread, call)));
                }
                self.found(thread);
                sys::resume(thread, 0);
            }
            Stop::Event => sys::resume(thread, 0),
        }
        None
    }

    /// A thread executes a program now. It, or the shell that started it, looked for that in other directories of PATH before.
    fn found(&mut self, thread: i32) {
        let name = arguments::program(thread).unwrap_or_default();
        let parent = self.parents.get(&thread);
        for failure in self.failures.iter_mut().rev().take(SEARCHED) {
            let looks = (failure.thread == thread || Some(&failure.thread) == parent)
                && SEARCHING.contains(&failure.call.as_str())
                // One that was there, and could not be executed, is news.
                && failure.context.interpreter.is_none()
                && failure.outcome == Outcome::Errno(libc::ENOENT)
                && failure
                    .arguments
                    .iter()
                    .any(|path| arguments::names_command(path, &name));
            failure.searching |= looks;
        }
    }

    /// A thread is no more.
    fn forget(&mut self, thread: i32) {
        self.traced.remove(&thread);
        self.calls.remove(&thread);
        self.parents.remove(&thread);
        if let Some(log) = &mut self.log {
            log.ended(thread);
        }
        self.watch.ended(thread);
    }

    fn syscall(&mut self, thread: i32) {
        match sys::syscall_info(thread) {
            Some(sys::Info::Entry(call)) => {
                self.calls.insert(thread, call);
                if let Some(log) = &mut self.log {
                    log.entered(thread);
                }
                self.watch.entered(thread, call.number);
            }
            Some(sys::Info::Exit { value, error }) => {
                let errno = value.wrapping_neg();
                let failed = error && !RESTARTS.contains(&errno);
                self.watch.left(thread, failed);
                if let (Some(call), true) = (self.calls.remove(&thread), failed) {
                    self.keep(thread, call, Outcome::Errno(i32::try_from(errno).unwrap_or(i32::MAX)));
                }
            }
            None => {}
        }
    }

    fn sigsys(&mut self, thread: i32) {
        let Some((number, architecture)) = sys::refused_call(thread) else {
            return;
        };
        // The refused call's arguments are known from its entry, unless it was another thread's signal.
        let seen = self.calls.remove(&thread).filter(|call| call.number == number);
        let call = seen.unwrap_or(Syscall {
            architecture,
            number,
            arguments: [0; 6],
        });
        self.keep(thread, call, Outcome::Sigsys);
    }

    fn keep(&mut self, thread: i32, call: Syscall, outcome: Outcome) {
        if self.failures.len() == KEPT {
            self.dropped += 1;
            return;
        }
        let name = (call.architecture == AUDIT_X86_64)
            .then(|| syscall_name(call.number))
            .flatten();
        let errno = match outcome {
            Outcome::Errno(errno) => errno,
            Outcome::Sigsys => libc::ENOSYS,
        };
        let objects = arguments::objects(thread, name, call.arguments);
        self.failures.push(Failure {
            thread,
            number: call.number,
            architecture: call.architecture,
            program: arguments::program(thread),
            arguments: arguments::decode(thread, name, call.arguments),
            call: name.map_or_else(
                || format!("system call {} of {:#x}", call.number, call.architecture),
                str::to_owned,
            ),
            outcome,
            filtered: arguments::filtered(thread),
            searching: false,
            context: Context::of(thread, name.unwrap_or_default(), errno, &objects),
            log: self.log.as_mut().map_or_else(Vec::new, |log| log.since(thread)),
        });
    }
}
