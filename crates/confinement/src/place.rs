//! What a sandbox is made around, and what it leaves of the old root.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::Error;
use crate::declaration::Shared;

pub(crate) const PROC_SELF_FD: &str = "/proc/self/fd";

/// What a sandbox is made around.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'p> {
    pub(crate) shared: Option<&'p Shared>,
    pub(crate) outside: &'p [&'p Path],
    pub(crate) network: bool,
}

/// What is left of the old root.
#[derive(Debug)]
pub(crate) struct Outside {
    pub(crate) proc_self_fd: OwnedFd,
    pub(crate) directories: Vec<OwnedFd>,
}

impl Place<'_> {
    pub(crate) fn open_outside(&self) -> Result<Vec<OwnedFd>, Error> {
        self.outside.iter().map(|path| open(path)).collect()
    }
}

/// An O_PATH descriptor of a directory.
pub(crate) fn open(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(|errno| Error::Open {
        path: path.into(),
        source: errno.into(),
    })
}
