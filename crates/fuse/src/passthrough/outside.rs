//! What a share takes of the host by path: opened first, so that the daemon can be confined to where none of it can be reached any more.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::dax;
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
    pub(super) fuse: Option<io::Result<OwnedFd>>,
}

impl Outside {
    /// Opens all of it. `views` as in [`Options::views`](super::Options::views).
    ///
    /// # Errors
    ///
    /// [`Error::Directory`] and [`Error::Proc`]. Without `/dev/fuse` there are no views, which is logged when the share is made.
    pub fn open(directory: &Path, views: bool) -> Result<Outside, Error> {
        let root = PathFd::of_share(directory).map_err(|error| Error::Directory {
            path: directory.to_owned(),
            source: error.into(),
        })?;
        Ok(Outside {
            path: directory.to_owned(),
            root,
            proc: ProcSelfFd::open().map_err(|error| Error::Proc(error.into()))?,
            fuse: views.then(dax::device),
        })
    }

    /// The directory to share.
    #[must_use]
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Shares `root` in place of the directory itself: the same directory in a mount of the daemon's own.
    ///
    /// # Errors
    ///
    /// [`Error::Directory`] if it is none, or cannot be opened.
    pub fn through(mut self, root: BorrowedFd<'_>) -> Result<Outside, Error> {
        self.root = PathFd::of_root(root).map_err(|error| Error::Directory {
            path: self.path.clone(),
            source: error.into(),
        })?;
        Ok(self)
    }
}
