//! Errors of preparing a process for a command: what failed, on what, why, and how to fix it.

use std::io;
use std::path::PathBuf;

/// What the system refused the process.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what failed, and on what")]
pub enum Error {
    #[error(
        "cannot listen on {path}: the path has {length} bytes and Linux allows {limit}; choose a shorter one, for example in /run or /tmp",
        path = .path.display()
    )]
    SocketPathTooLong { path: PathBuf, length: usize, limit: usize },
    #[error(
        "cannot listen on {path}: the socket is in use by another process; stop it or choose another --socket-path",
        path = .path.display()
    )]
    SocketBusy { path: PathBuf },
    #[error(
        "cannot listen on {path}: the file exists and is not a socket; remove it or choose another --socket-path",
        path = .path.display()
    )]
    SocketPathTaken { path: PathBuf },
    #[error(
        "cannot listen on {path}: {source}; choose a --socket-path in a directory that exists and that you may write to",
        path = .path.display()
    )]
    SocketListen { path: PathBuf, source: io::Error },
    #[error(
        "cannot give the socket {path} to group {group}: {source}; name a group that you belong to",
        path = .path.display()
    )]
    SocketGroup {
        path: PathBuf,
        group: u32,
        source: io::Error,
    },
    #[error("no group {group} in /etc/group; name an existing one or give its number")]
    NoSuchGroup { group: String },
    #[error(
        "descriptor {number} is not a listening UNIX socket; pass one that is bound and listening, or use --socket-path"
    )]
    NotListening { number: i32 },
    #[error(
        "cannot raise the limit of open files to {wanted}: {source}; set a lower limit with --rlimit-nofile or raise the hard limit"
    )]
    OpenFileLimit { wanted: u64, source: io::Error },
    #[error("cannot {doing}: {source}")]
    System { doing: &'static str, source: io::Error },
}

impl Error {
    /// Makes a [`Self::System`], for `map_err`: the system refused what every command needs, so the message advises nothing.
    pub fn system<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System {
            doing,
            source: source.into(),
        }
    }
}

/// An error with all that led to it, in one sentence.
#[must_use]
pub fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}
