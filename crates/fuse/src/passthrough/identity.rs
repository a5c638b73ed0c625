//! How a node refers to its inode: by a handle from which the kernel opens a descriptor, by a name, or by a descriptor.
//!
//! A handle costs no descriptor, but needs a file system that supports handles (NFS export), CAP_DAC_READ_SEARCH, and
//! one ordinary descriptor on the inode's mount to open it from.

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::fs::{FileType, OFlags, fstatfs};

use super::InodeHandles;
use super::budget::{Budget, Permit};
use super::by_name::Named;
use super::held::Held;
use super::mounts::Manners;
use super::opening::{CheckedPath, OpenFd, PathFd};
use super::procfs::ProcSelfFd;
use super::recent::RecentNodes;
use crate::cause::HostResult as _;
use crate::fs::{Errno, Result};
use crate::sys::{FileHandle, MountId};

/// What a node keeps.
#[derive(Debug)]
pub(super) enum Identity {
    /// In a box, so that it takes no space of the others, which there may be a million of.
    WithoutHandle(Box<WithoutHandle>),
    /// The handle in the node's key, the mount it opens on, and descriptors where the handle alone might not do.
    Handle { anchor: Arc<Anchor>, held: Held },
}

/// What a node keeps where its handle does not open.
#[derive(Debug)]
pub(super) enum WithoutHandle {
    /// The name by which it can be found again.
    Name(Named),
    /// An O_PATH descriptor, which all but the root's have from the budget.
    Descriptor { fd: Arc<PathFd>, _permit: Option<Permit> },
}

impl Identity {
    /// Of a node that always has a descriptor.
    pub(super) fn descriptor(fd: Arc<PathFd>, permit: Option<Permit>) -> Identity {
        let _permit = permit;
        Identity::WithoutHandle(Box::new(WithoutHandle::Descriptor { fd, _permit }))
    }

    /// What the node keeps if it is found again by name.
    pub(super) fn named(&self) -> Option<&Named> {
        match self {
            Identity::WithoutHandle(kept) => match &**kept {
                WithoutHandle::Name(named) => Some(named),
                WithoutHandle::Descriptor { .. } => None,
            },
            Identity::Handle { .. } => None,
        }
    }

    /// The same, of a node that nobody else knows any more.
    pub(super) fn named_mut(&mut self) -> Option<&mut Named> {
        match self {
            Identity::WithoutHandle(kept) => match &mut **kept {
                WithoutHandle::Name(named) => Some(named),
                WithoutHandle::Descriptor { .. } => None,
            },
            Identity::Handle { .. } => None,
        }
    }

    /// What is held of a node that needs no descriptor at all times.
    pub(super) fn held(&self) -> Option<&Held> {
        match self {
            Identity::Handle { held, .. } => Some(held),
            Identity::WithoutHandle(_) => self.named().map(Named::held),
        }
    }
}

/// A descriptor of a mount from which handles are opened.
#[derive(Debug)]
pub(super) struct Anchor {
    mount: OpenFd,
    /// Nobody else's as long as `mount` is open.
    id: MountId,
    births: bool,
    recent: Arc<RecentNodes>,
}

impl Anchor {
    /// An O_PATH descriptor of the inode.
    pub(super) fn path(&self, handle: &FileHandle) -> io::Result<PathFd> {
        PathFd::of_handle(handle, &self.mount)
    }

    /// Whether `mount` is the one that handles open on here.
    pub(super) fn is_of(&self, mount: MountId) -> bool {
        self.id == mount
    }

    /// Whether inodes here can be told by number and birth.
    pub(super) fn tells_births(&self) -> bool {
        self.births
    }

    /// The nodes of this and all other mounts whose descriptors are worth keeping for a while.
    pub(super) fn recent(&self) -> &RecentNodes {
        &self.recent
    }
}

/// The anchors of all mounts that nodes lie on; a mount whose last node is forgotten can be unmounted again.
#[derive(Debug)]
pub(super) struct Anchors {
    mode: InodeHandles,
    recent: Arc<RecentNodes>,
    /// `None`: handles do not open on this mount.
    by_mount: Mutex<ByMount>,
}

type ByMount = HashMap<u64, Option<Weak<Anchor>>>;

impl Anchors {
    pub(super) fn new(mode: InodeHandles, budget: Budget) -> Anchors {
        Anchors {
            mode,
            recent: Arc::new(RecentNodes::few(budget)),
            by_mount: Mutex::default(),
        }
    }

    /// The nodes that remember a descriptor.
    pub(super) fn recent(&self) -> &RecentNodes {
        &self.recent
    }

    /// The handle of the inode behind `fd`, and the anchor that it opens from; no anchor if it does not open. The handle is also
    /// left out where nobody wants to know it unless it opens (`tells`: also to tell one inode from another). Answers the same for
    /// one inode as long as a node of its mount is known, since the handle is part of a node's key.
    pub(super) fn handle(
        &self,
        fd: BorrowedFd<'_>,
        kind: FileType,
        mount: u64,
        proc: &ProcSelfFd,
        tells: bool,
    ) -> Result<(Option<FileHandle>, Option<Arc<Anchor>>)> {
        let opens = self.mode != InodeHandles::Never;
        if !opens && !tells {
            return Ok((None, None));
        }
        let (handle, id) = match FileHandle::of(fd).of(|| "name_to_handle_at(node)".into()) {
            Ok(found) => found,
            Err(error) => return self.without(error).map(|()| (None, None)),
        };
        let mut anchor = None;
        if opens {
            let found = self.anchor((&handle, id), fd, kind, mount, proc);
            match found.and_then(|anchor| anchor.ok_or_else(no_handles)) {
                Ok(found) => anchor = Some(found),
                Err(error) => self.without(error)?,
            }
        }
        let handle = (tells || anchor.is_some()).then_some(handle);
        Ok((handle, anchor))
    }

    /// Whether the inode may do without a handle after `error`.
    fn without(&self, error: Errno) -> Result<()> {
        match self.mode {
            InodeHandles::Never => Ok(()),
            InodeHandles::Prefer if means_no_handles(error) => Ok(()),
            InodeHandles::Prefer | InodeHandles::Mandatory => Err(error),
        }
    }

    /// The anchor of `mount`, if handles are known to open there.
    pub(super) fn known(&self, mount: u64) -> Option<Arc<Anchor>> {
        known(&self.lock(), mount).flatten()
    }

    fn anchor(
        &self,
        handle: (&FileHandle, MountId),
        fd: BorrowedFd<'_>,
        kind: FileType,
        mount: u64,
        proc: &ProcSelfFd,
    ) -> Result<Option<Arc<Anchor>>> {
        if let Some(known) = known(&self.lock(), mount) {
            return Ok(known);
        }
        // Without the lock: a mount that hangs must not hold up lookups on others.
        let probed = match open_real(fd, kind, proc) {
            Ok(None) => return Ok(None),
            Ok(Some(real)) => self.probe(real, handle).map(Arc::new),
            Err(error) => Err(error),
        };
        let mut by_mount = self.lock();
        if let Some(known) = known(&by_mount, mount) {
            return Ok(known); // another lane was faster
        }
        by_mount.retain(|_, anchor| anchor.as_ref().is_none_or(|anchor| anchor.strong_count() > 0));
        match &probed {
            Ok(anchor) => drop(by_mount.insert(mount, Some(Arc::downgrade(anchor)))),
            Err(error) if means_no_handles(*error) => drop(by_mount.insert(mount, None)),
            Err(_) => {}
        }
        probed.map(Some)
    }

    /// Some file systems encode handles that they cannot decode, FUSE forgets those of inodes that leave its cache, and an
    /// unprivileged daemon may open none.
    fn probe(&self, mount: OpenFd, (handle, id): (&FileHandle, MountId)) -> Result<Anchor> {
        let stat = fstatfs(&mount).of(|| "fstatfs(node)".into())?;
        if stat.f_type == libc::FUSE_SUPER_MAGIC {
            return Err(no_handles());
        }
        let anchor = Anchor {
            mount,
            id,
            births: Manners::of(&stat).births,
            recent: Arc::clone(&self.recent),
        };
        anchor.path(handle).of(|| "open_by_handle_at(node, O_PATH)".into())?;
        Ok(anchor)
    }

    fn lock(&self) -> MutexGuard<'_, ByMount> {
        self.by_mount.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of `mount`; `Some(None)`: handles do not open there.
fn known(by_mount: &ByMount, mount: u64) -> Option<Option<Arc<Anchor>>> {
    match by_mount.get(&mount)? {
        None => Some(None),
        Some(anchor) => anchor.upgrade().map(Some),
    }
}

/// open_by_handle_at(2) takes no O_PATH descriptor. `None`: what is neither file nor directory is not opened for that.
fn open_real(fd: BorrowedFd<'_>, kind: FileType, proc: &ProcSelfFd) -> Result<Option<OpenFd>> {
    Ok(match kind {
        FileType::Directory => Some(OpenFd::directory(&fd)?),
        FileType::RegularFile => Some(CheckedPath::of(&fd)?.open(proc, OFlags::RDONLY)?),
        _ => None,
    })
}

/// Whether handles will never work here, rather than not this time.
fn means_no_handles(error: Errno) -> bool {
    matches!(
        error,
        Errno::EACCES
            | Errno::EINVAL
            | Errno::ENOSYS
            | Errno::EOPNOTSUPP
            | Errno::EOVERFLOW
            | Errno::EPERM
            | Errno::ESTALE
    )
}

fn no_handles() -> Errno {
    Errno::EOPNOTSUPP.rule("file handles do not open on this mount (--inode-file-handles)")
}
