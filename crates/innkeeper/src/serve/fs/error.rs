//! Errors of a share: what failed, on what, why, and what to do.

use std::io;
use std::path::PathBuf;

/// Why a directory cannot be shared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot share {path}: no such directory; create it or name another", path = .path.display())]
    NoDirectory { path: PathBuf },
    #[error("cannot share {path}: not a directory; share the directory that holds it", path = .path.display())]
    NotADirectory { path: PathBuf },
    #[error(
        "cannot share {path}: user {user} may not read and enter it; change its mode or run innkeeper as its owner",
        path = .path.display()
    )]
    NoPermission { path: PathBuf, user: u32 },
    #[error("cannot share {path}: {source}; check that its file system is mounted and sound", path = .path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("cannot give the tag {tag:?} to more than one share; choose a tag for each (the root's is {root:?})")]
    TagTaken { tag: String, root: &'static str },

    #[error("cannot share {path}: {reason}; try other options", path = .path.display())]
    Export { path: PathBuf, reason: String },
    #[error(
        "cannot log errors to {path}: the path has a symbolic link, which a guest may have made; name the real path (`realpath` prints it)",
        path = .path.display()
    )]
    LogBehindLink { path: PathBuf },
    #[error("cannot log errors to {path}: not a regular file; name another", path = .path.display())]
    LogNoFile { path: PathBuf },
    #[error(
        "cannot log errors to {path}: {source}; name a file in a directory that exists and that you may write to",
        path = .path.display()
    )]
    LogFile { path: PathBuf, source: io::Error },
    #[error(
        "this sandbox cannot open files by their handles; use --sandbox namespace, or omit --inode-file-handles mandatory"
    )]
    HandlesInSandbox,
    #[error(transparent)]
    Process(#[from] process::Error),
}

impl From<Error> for crate::serve::error::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Process(error) => Self::Process(error),
            error => Self::Device(Box::new(error)),
        }
    }
}
