//! What keeps a device from being tried out.

use std::io;
use std::path::PathBuf;

use process::interrupt::Interrupted;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot make a directory in {path}: {source}; name another with --directory", path = .path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("cannot find the program of innkeeper: {0}; mount /proc")]
    Program(io::Error),
    #[error(
        "cannot watch a daemon: {0}; ptrace must be allowed (/proc/sys/kernel/yama/ptrace_scope below 3, no debugger attached)"
    )]
    Trace(#[from] why::ptrace::Error),
    #[error("cannot watch a daemon: {0}")]
    Watch(io::Error),
    #[error("cannot compare system calls: {0}")]
    Confinement(#[from] confinement::Error),
    #[error("cannot try out {device}: {reason}")]
    Device { device: String, reason: String },
    #[error(transparent)]
    Process(#[from] process::Error),
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}
