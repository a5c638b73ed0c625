//! What a sandbox is made around.

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
    pub(crate) network: bool,
}

/// An O_PATH descriptor of a directory.
pub(crate) fn open(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(|errno| Error::Open {
        path: path.into(),
        source: errno.into(),
    })
}
