//! What a share takes of the host by path: a daemon that is to be confined opens it first, and can reach none of it afterwards.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::dax::FuseDevice;
use super::error::Error;
use super::opening::PathFd;
use super::procfs::ProcSelfFd;

/// The directory to share, `/proc/self/fd`, and `/dev/fuse` where views of files are wanted.
#[derive(Debug)]
pub struct Outside {
    /// As given, for messages.
    pub(super) path: PathBuf,
    pub(super) root: PathFd,
    pub(super) proc: ProcSelfFd,
    /// `None`: no views are wanted.
    pub(super) fuse: Option<FuseDevice>,
}

impl Outside {
    /// Opens `directory` and `/proc/self/fd`. `fuse` is given where views are wanted.
    ///
    /// # Errors
    ///
    /// [`Error::Directory`] and [`Error::Proc`]. Without `/dev/fuse` there are no views, which is logged when the share is made.
    pub fn open(directory: &Path, fuse: Option<FuseDevice>) -> Result<Outside, Error> {
        let proc_self_fd = ProcSelfFd::open().map_err(|error| Error::Proc(error.into()))?;
        Self::with(directory, proc_self_fd, fuse)
    }

    /// Opens `directory`, and takes over what was opened before the daemon was confined: `/proc/self/fd`, and where views are wanted
    /// `/dev/fuse`.
    ///
    /// # Errors
    ///
    /// As for [`Outside::open`].
    pub fn confined(directory: &Path, proc_self_fd: OwnedFd, fuse: Option<FuseDevice>) -> Result<Outside, Error> {
        let proc_self_fd = ProcSelfFd::of(proc_self_fd).map_err(|error| Error::Proc(error.into()))?;
        Self::with(directory, proc_self_fd, fuse)
    }

    fn with(directory: &Path, proc: ProcSelfFd, fuse: Option<FuseDevice>) -> Result<Outside, Error> {
        let root = PathFd::of_share(directory).map_err(|error| Error::Directory {
            path: directory.to_owned(),
            source: error.into(),
        })?;
        Ok(Outside {
            path: directory.to_owned(),
            root,
            proc,
            fuse,
        })
    }
}
