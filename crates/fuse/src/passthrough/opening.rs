//! The only module that opens files of the share.
//!
//! A guest makes device nodes and FIFOs in the share, and opening one of those acts on the host. Therefore
//! descriptors have types. A [`PathFd`] is of an inode of any kind and open for nothing (O_PATH). An [`OpenFd`] is
//! open for I/O and always of a regular file or directory. There are five ways to get an `OpenFd`, and each proves
//! the kind on the inode that it opens:
//!
//! * [`CheckedPath::open`]: statx(2) of a descriptor reports a regular file, and the magic link of that same
//!   descriptor is opened. An inode never changes its kind, and a magic link leads to no other inode.
//! * [`OpenFd::again`]: the magic link of a descriptor that is already an `OpenFd`.
//! * [`OpenFd::directory`]: `.` exists only in directories, and O_DIRECTORY refuses everything else.
//! * [`OpenFd::create`]: O_CREAT|O_EXCL opens only the regular file that this call has made.
//! * [`OpenFd::create_unnamed`]: so does O_TMPFILE.
//!
//! Attributes from any other call do not count here, least of all those of a LOOKUP: the name may refer to another
//! inode by now.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Statx, openat, openat2};

use super::procfs::{FdName, ProcSelfFd};
use super::syscall_text::{self, Quoted};
use super::{pause, stat};
use crate::cause::HostResult as _;
use crate::check::Check;
use crate::fs::{Errno, Name, Result};
use crate::sys::FileHandle;

/// The name is one component, so these hold against mistakes here rather than against the guest.
fn inside() -> ResolveFlags {
    if Check::Beneath.is_on() {
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
    } else {
        ResolveFlags::empty()
    }
}

/// An O_PATH descriptor: of an inode of any kind, open for nothing.
#[derive(Debug)]
pub(super) struct PathFd(OwnedFd);

impl PathFd {
    /// The directory to share, by its path on the host.
    pub(super) fn of_share(directory: &Path) -> rustix::io::Result<PathFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, directory, flags, Mode::empty()).map(PathFd)
    }

    /// What `name` stands for in `parent`, be it a symbolic link or a device.
    pub(super) fn of_name(parent: BorrowedFd<'_>, name: Name<'_>) -> Result<PathFd> {
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        flags.set(OFlags::NOFOLLOW, Check::Beneath.is_on());
        openat2(parent, name.as_c_str(), flags, Mode::empty(), inside())
            .of(|| {
                format!(
                    "openat2(parent, {}, {})",
                    Quoted(name.as_c_str()),
                    syscall_text::open(flags)
                )
            })
            .map(PathFd)
    }

    /// The inode that `handle` names on the mount of `mount`. `ESTALE`: it is gone.
    pub(super) fn of_handle(handle: &FileHandle, mount: &OpenFd) -> io::Result<PathFd> {
        handle.open_path(mount.as_fd()).map(PathFd)
    }

    /// The inode of an open file.
    pub(super) fn of_open(file: &OpenFd, proc: &ProcSelfFd) -> Result<PathFd> {
        reopen(file.as_fd(), proc, OFlags::PATH).map(PathFd)
    }
}

/// A descriptor that is known to be of a regular file, because statx(2) of that descriptor says so.
#[derive(Debug)]
pub(super) struct CheckedPath<'fd> {
    fd: BorrowedFd<'fd>,
    stat: Statx,
}

impl<'fd> CheckedPath<'fd> {
    /// `ESTALE` if it is of anything else.
    pub(super) fn of(fd: &'fd impl AsFd) -> Result<CheckedPath<'fd>> {
        let fd = fd.as_fd();
        // A kind that is known is right: it never changes.
        let stat = stat::cached(fd)?;
        match FileType::from_raw_mode(stat.stx_mode.into()) {
            FileType::RegularFile => Ok(CheckedPath { fd, stat }),
            _ if !Check::Kind.is_on() => Ok(CheckedPath { fd, stat }),
            _ => Err(Errno::ESTALE.rule("the node is no regular file")),
        }
    }

    /// Kind, mode and group of the file.
    pub(super) fn stat(&self) -> &Statx {
        &self.stat
    }

    /// Opens the file for I/O.
    pub(super) fn open(&self, proc: &ProcSelfFd, flags: OFlags) -> Result<OpenFd> {
        pause::between_steps();
        reopen(self.fd, proc, flags).map(OpenFd)
    }
}

/// A descriptor that is open for I/O: of a regular file or a directory.
#[derive(Debug)]
pub(super) struct OpenFd(OwnedFd);

impl OpenFd {
    /// The same file once more, with flags of its own.
    pub(super) fn again(&self, proc: &ProcSelfFd, flags: OFlags) -> Result<OpenFd> {
        reopen(self.0.as_fd(), proc, flags).map(OpenFd)
    }

    /// The directory behind `fd`, for being listed or synced. `ENOTDIR` if it is none.
    pub(super) fn directory(fd: &impl AsFd) -> Result<OpenFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(fd, c".", flags, Mode::empty())
            .of(|| format!("openat(node, \".\", {})", syscall_text::open(flags)))
            .map(OpenFd)
    }

    /// Makes the regular file `name` in `directory`. `EEXIST` if the name is taken, by whatever.
    pub(super) fn create(directory: BorrowedFd<'_>, name: Name<'_>, flags: OFlags, mode: Mode) -> Result<OpenFd> {
        let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat2(directory, name.as_c_str(), flags, mode, inside())
            .of(|| {
                let (name, mode) = (Quoted(name.as_c_str()), mode.bits());
                format!("openat2(parent, {name}, {}, 0{mode:o})", syscall_text::open(flags))
            })
            .map(OpenFd)
    }

    /// Makes a regular file without a name in `directory`; with O_EXCL it never gets one.
    pub(super) fn create_unnamed(directory: BorrowedFd<'_>, flags: OFlags, mode: Mode) -> Result<OpenFd> {
        let flags = flags | OFlags::TMPFILE | OFlags::CLOEXEC;
        openat2(directory, c".", flags, mode, inside())
            .of(|| {
                let mode = mode.bits();
                format!("openat2(parent, \".\", {}, 0{mode:o})", syscall_text::open(flags))
            })
            .map(OpenFd)
    }

    /// Gives the descriptor away.
    pub(super) fn into_fd(self) -> OwnedFd {
        self.0
    }
}

/// A descriptor of a node, to name its inode by: whatever is at hand.
#[derive(Clone, Debug)]
pub(super) enum NodeFd {
    /// Open for nothing.
    Path(Arc<PathFd>),
    /// A file that the guest has open.
    Open(Arc<OpenFd>),
}

impl NodeFd {
    /// Whether both are the same descriptor.
    pub(super) fn is(&self, other: &NodeFd) -> bool {
        match (self, other) {
            (NodeFd::Path(one), NodeFd::Path(other)) => Arc::ptr_eq(one, other),
            (NodeFd::Open(one), NodeFd::Open(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl AsFd for PathFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for OpenFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for NodeFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            NodeFd::Path(fd) => fd.as_fd(),
            NodeFd::Open(fd) => fd.as_fd(),
        }
    }
}

/// Opens the inode of `fd` by its magic link, whatever it is: for this module alone.
fn reopen(fd: BorrowedFd<'_>, proc: &ProcSelfFd, flags: OFlags) -> Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    openat(proc.directory(), FdName::of(fd).as_c_str(), flags, Mode::empty())
        .of(|| format!("open(node, {})", syscall_text::open(flags)))
}

#[cfg(test)]
mod tests;
