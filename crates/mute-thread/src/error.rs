//! What can go wrong, each in one sentence.

use std::io;
use std::process::ExitCode;

use crate::header::HeaderError;
use crate::message_id::InvalidId;

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No argument, and nobody pipes a message.
    #[error("give a Message-ID, or a message on standard input")]
    NothingGiven,
    /// The message on standard input has no such header.
    #[error("the message on standard input has no Message-ID header")]
    NoMessageId,
    /// The header is there but cannot be an id.
    #[error("the message's Message-ID header is unusable: {0}")]
    InvalidId(#[from] InvalidId),
    /// The header section of the message on standard input cannot be read.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// Standard input failed.
    #[error("cannot read standard input: {0}")]
    Read(#[source] io::Error),
    /// Standard output failed.
    #[error("cannot write to standard output: {0}")]
    Write(#[source] io::Error),
    /// notmuch does not know these messages.
    #[error("not in the notmuch database: {0} (does `notmuch new` find the message?)")]
    Unknown(String),
    /// notmuch is too old to look threads up within a query.
    #[error("this notmuch has no thread:{{...}} queries; 0.27 or newer is needed, built with field processors")]
    NoThreadQueries,
    /// There is no such program.
    #[error("cannot start notmuch: it is not installed, or not in PATH")]
    NotInstalled,
    /// The program does not start, or talking to it failed.
    #[error("cannot run notmuch: {0}")]
    Run(#[source] io::Error),
    /// notmuch said no.
    #[error("notmuch cannot {job}: {reason}")]
    Notmuch {
        /// What was asked of it.
        job: &'static str,
        /// What it said.
        reason: String,
    },
    /// Another program holds the database's write lock.
    #[error("the notmuch database is locked by another program; gave up after {0} s (--wait)")]
    Locked(u64),
    /// notmuch's answer is not of the form that its manual gives.
    #[error("cannot parse notmuch's answer to {job}: {reason}")]
    Answer {
        /// What was asked.
        job: &'static str,
        /// What is wrong with the answer.
        reason: String,
    },
}

impl Error {
    /// 2 if the input was wrong, as for a wrong command line; 1 if something else is.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::NothingGiven | Self::NoMessageId | Self::InvalidId(_) | Self::Header(_) => ExitCode::from(2),
            _ => ExitCode::from(1),
        }
    }
}

/// The text with each control character made visible, since mail and its senders are not to command the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}
