//! Reasons why nothing could be traced.

use std::io;

use super::refusal::Refusal;

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

pub(super) fn system(doing: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::System { doing, source }
}
