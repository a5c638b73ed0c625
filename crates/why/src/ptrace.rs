//! Runs a command under ptrace, or attaches to a process, and collects the system calls that failed. Needs no privilege.

mod address;
mod arguments;
mod attach;
mod calls;
mod flags;
mod kept;
mod rights;
mod signatures;
mod sys;
mod trace;
mod wake;

use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;

use serde::{Deserialize, Serialize};
use trace::Trace;
use wake::Wake;

use crate::context::Context;
use crate::kernel_log;
use crate::words::errno_name;

pub(crate) use arguments::Object;
pub use attach::{Process, Refusal, attach, leader};

/// The audit number of x86-64: calls of other kinds (i386) have other numbers.
pub const AUDIT_X86_64: u32 = 0xc000_003e;

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
    /// Whether that it failed was seen by what came after it alone: nothing in a recording is known to be of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inferred: bool,
    /// Failures of the same call with the same errno, of this thread, that were not kept and lie before this one: a recording
    /// has them all.
    #[serde(default, skip_serializing_if = "is_none")]
    pub dropped_before: usize,
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

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_none(count: &usize) -> bool {
    *count == 0
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
    /// A seccomp filter sent SIGSYS in its place, or ended the thread by that.
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
    /// Failed calls between the first and the last ones that were not kept because there were too many.
    pub dropped: u64,
    /// The exit status, or 128 plus the signal that ended it; 0 for a process that was let go before its end.
    pub status: u8,
    /// Set if the command itself could not be executed, of which the failed calls tell more.
    pub not_run: Option<NotRun>,
    /// Programs that ran without the rights which they have untraced, a sentence each.
    pub withheld: Vec<String>,
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
    /// of a process that was attached to, which may be told of in several parts and at first be none.
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
