//! Runs a command under ptrace, to its end.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;

use super::error::{Error, system};
use super::report::{NotRun, Report};
use super::sys;
use super::tracer::Tracer;
use super::wake::Wake;
use super::watch::Watch;

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
    let mut trace = Tracer::new(watch);
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
