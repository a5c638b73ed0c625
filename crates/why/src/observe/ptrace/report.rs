//! The report of a trace of a command or process.

use std::io;

use crate::observe::failure::Failure;

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
