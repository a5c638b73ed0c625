//! Why a process cannot be confined: what was refused, and what to switch off.

use std::io;
use std::path::PathBuf;

use crate::refusal::Refusal;

/// What the system refused.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what failed, and on what")]
pub enum Error {
    #[error("no seccomp filter exists for {0}; use --seccomp none")]
    Architecture(&'static str),
    #[error("cannot build the seccomp filter: {0}; use --seccomp none")]
    Filter(seccompiler::BackendError),
    #[error("cannot install the seccomp filter: {0}; use --seccomp none")]
    Seccomp(seccompiler::Error),
    #[error("cannot {what}: {source}")]
    Capabilities { what: &'static str, source: io::Error },
    #[error("capabilities remain that no device declared: {0}")]
    CapabilitiesRemain(String),
    #[error("cannot {what}: {source}; use --sandbox auto or --sandbox none")]
    Namespace { what: &'static str, source: io::Error },
    #[error("{0}")]
    Trial(String),
    #[error(
        "cannot make namespaces: the process has capabilities but not CAP_SYS_ADMIN; use --sandbox auto or --sandbox chroot"
    )]
    NoSysAdmin,
    #[error("cannot use {option}: {why}")]
    Map { option: &'static str, why: String },
    #[error("cannot map several {several} and one {one}: give several to {option} too, or have {file} grant you some")]
    MapAlone {
        several: &'static str,
        one: &'static str,
        option: &'static str,
        file: &'static str,
    },
    #[error(
        "cannot use --uid-map and --gid-map: they are for an ordinary user, and this process has capabilities of its own; leave them out"
    )]
    MapsOfRoot,
    #[error("cannot use --uid-map and --gid-map: {0}; leave them out, and another sandbox is used")]
    MapsRefused(String),
    #[error("cannot use --uid-map and --gid-map without namespaces; use --sandbox namespace")]
    MapsWithoutNamespaces,
    #[error(
        "cannot map users and groups: {0}; this takes newuidmap and newgidmap (Debian package uidmap) and ranges that /etc/subuid and /etc/subgid grant you"
    )]
    Helper(String),
    #[error("cannot confine the process: it has {0} threads and may have one; use --sandbox landlock")]
    Threads(usize),
    #[error("cannot count the threads of the process: {0}; mount /proc or use --sandbox landlock")]
    CountThreads(io::Error),
    #[error("cannot change the root to {directory}: {source}; use --sandbox auto or --sandbox none", directory = .directory.display())]
    Chroot { directory: PathBuf, source: io::Error },
    #[error("cannot use Landlock: {0}; use --sandbox none")]
    Landlock(String),
    #[error("cannot open {path}: {source}", path = .path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("no sandbox works here ({}); use --sandbox none", list(.0))]
    NothingWorks(Vec<Refusal>),
}

fn list(refusals: &[Refusal]) -> String {
    let all: Vec<_> = refusals.iter().map(ToString::to_string).collect();
    all.join("; ")
}

impl Error {
    /// Names the step of making namespaces that failed.
    pub(crate) fn namespace<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Error {
        move |source| Error::Namespace {
            what,
            source: source.into(),
        }
    }

    /// Names the change of capabilities that failed.
    pub(crate) fn capabilities<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Error {
        move |source| Error::Capabilities {
            what,
            source: source.into(),
        }
    }
}
