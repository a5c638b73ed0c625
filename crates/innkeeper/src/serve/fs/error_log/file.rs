//! The file of the error log. It may lie in the share, so that an existing file may be the work of an earlier guest:
//! links to other files of the host, FIFOs that block, devices. None of those is written to.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::super::error::Error;
use crate::regular_file::{self, Found};

const WRITING: OFlags = OFlags::WRONLY
    .union(OFlags::APPEND)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// Opens `path` to be appended to; makes it, for its owner alone, if it is not there.
pub(super) fn open(path: &Path) -> Result<OwnedFd, Error> {
    let refused = |error: Errno| match error {
        Errno::LOOP => Error::LogBehindLink { path: path.into() },
        error => Error::LogFile {
            path: path.into(),
            source: io::Error::from(error),
        },
    };
    let way = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let made = openat2(
        CWD,
        path,
        WRITING | OFlags::CREATE | OFlags::EXCL,
        Mode::RUSR | Mode::WUSR,
        way,
    );
    match made {
        Err(Errno::EXIST) => {}
        made => return made.map_err(refused),
    }
    // To open a fifo or a device has effects already.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let there = openat2(CWD, path, flags, Mode::empty(), way).map_err(refused)?;
    match regular_file::open(&there, WRITING).map_err(refused)? {
        Found::File(file) => Ok(file),
        Found::Other(FileType::Symlink) => Err(refused(Errno::LOOP)),
        Found::Other(_) => Err(Error::LogNoFile { path: path.into() }),
    }
}
