//! The job `why`: which system calls of a command failed.

use std::process::ExitCode;

use why::ptrace::{self, Failure, Outcome};

use crate::args::Why;

/// The status of failures of innkeeper itself, as a shell has them for a command that is not there.
const FAILED: u8 = 125;
const NOT_THERE: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

pub(crate) fn run(job: Why) -> ExitCode {
    match ptrace::run(job.command) {
        Ok(report) => {
            for failure in &report.failures {
                eprintln!("{}", describe(failure));
            }
            if report.dropped > 0 {
                eprintln!("innkeeper: {} more calls failed and were not kept", report.dropped);
            }
            report.status.into()
        }
        Err(error) => {
            eprintln!("innkeeper: {error}");
            match error {
                ptrace::Error::Execute { source, .. } if source.raw_os_error() == Some(libc::ENOENT) => NOT_THERE,
                ptrace::Error::Execute { .. } => NOT_EXECUTABLE,
                _ => FAILED,
            }
            .into()
        }
    }
}

fn describe(failure: &Failure) -> String {
    let program = failure.program.as_deref().unwrap_or("?");
    let call = format!("{}({})", failure.call, failure.arguments.join(", "));
    let name = failure.outcome.name();
    let (result, why) = match failure.outcome {
        Outcome::Errno(_) if failure.filtered => (
            "-1 ",
            "a seccomp filter is on this thread and may have refused it    unknown",
        ),
        Outcome::Errno(_) => (
            "-1 ",
            "the kernel refused it; ptrace sees no kernel function    unknown",
        ),
        Outcome::Sigsys => ("", "a seccomp filter refused it before the kernel began    certain"),
    };
    format!(
        "{call} = {result}{name}    {program}[{}]\n  why:    {why}",
        failure.thread
    )
}
