//! Files that the guest can map, and the policy for which of them it should map.

mod device;
mod error;
mod policy;
mod serve;
mod views;

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::fs::{FileType, OFlags, Statx};
use rustix::io::Errno as HostErrno;
use tracing::warn;

pub use self::device::FuseDevice;
pub use self::policy::DaxFiles;
pub(super) use self::views::Views;
use super::budget::Permit;
use super::inode::{Node, Place};
use super::opening::{CheckedPath, OpenFd};
use super::{Passthrough, stat};
use crate::cause::HostResult as _;
use crate::fs::{Errno, Mappable, NodeId, Result};
use crate::sys;
use crate::wire::{self, InitFlags};

/// The descriptors that mappings of the guest hold, by node.
#[derive(Debug, Default)]
pub(super) struct MappedFiles(Mutex<HashMap<NodeId, Mapped>>);

/// One descriptor, or two once a read-only one did not suffice.
#[derive(Debug)]
struct Mapped {
    file: Weak<OwnedFd>,
    writable: bool,
    _permit: Permit,
    before: Option<Box<Mapped>>,
}

impl Mapped {
    fn is_mapped(&self) -> bool {
        self.file.strong_count() > 0 || self.before.as_ref().is_some_and(|before| before.is_mapped())
    }
}

impl MappedFiles {
    fn get(&self, node: NodeId, write: bool) -> Option<Mappable> {
        let files = self.lock();
        let mapped = files.get(&node)?;
        let writable = mapped.writable;
        let file = mapped.file.upgrade().filter(|_| writable || !write)?;
        Some(Mappable { file, writable })
    }

    fn insert(&self, node: NodeId, mappable: &Mappable, permit: Permit) {
        let mut files = self.lock();
        // Entries of files that are no longer mapped go when the table would grow.
        if files.len() == files.capacity() {
            files.retain(|_, mapped| mapped.is_mapped());
        }
        let before = files.remove(&node).filter(Mapped::is_mapped).map(Box::new);
        let mapped = Mapped {
            file: Arc::downgrade(&mappable.file),
            writable: mappable.writable,
            _permit: permit,
            before,
        };
        files.insert(node, mapped);
    }

    /// Gives back the permits of files that are no longer mapped.
    pub(super) fn forget_unmapped(&self) {
        self.lock().retain(|_, mapped| mapped.is_mapped());
    }

    /// Of a node that was forgotten.
    pub(super) fn remove(&self, node: NodeId) {
        self.lock().remove(&node);
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Mapped>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Passthrough {
    pub(super) fn open_mappable(&self, id: NodeId, write: bool) -> Result<Mappable> {
        if write {
            self.writable()?;
        }
        let node = self.node(id)?;
        if let Some(known) = self.mapped.get(id, write) {
            return Ok(known);
        }
        if node.kind != FileType::RegularFile {
            return Err(Errno::ENODEV.rule("only regular files are mapped")); // as mmap(2) has it
        }
        let permit = self.permit()?;
        let path = node.descriptor()?;
        let (file, writable) = self.open_to_map(path.as_fd(), write)?;
        sys::check_mappable(file.as_fd()).of(|| "mmap(node)".into())?;
        let file = self.view(file, writable)?;
        let mappable = Mappable {
            file: Arc::new(file),
            writable,
        };
        self.mapped.insert(id, &mappable, permit);
        Ok(mappable)
    }

    /// For writing wherever the host lets us. Not programs, unless the guest means to write: the host cannot run a program that
    /// is open for writing (ETXTBSY).
    fn open_to_map(&self, path: BorrowedFd<'_>, write: bool) -> Result<(OpenFd, bool)> {
        let path = CheckedPath::of(&path)?;
        let program = path.stat().stx_mode & 0o111 != 0;
        if write || !(self.options.readonly || program) {
            match path.open(&self.proc, OFlags::RDWR) {
                Ok(file) => return Ok((file, true)),
                Err(error) if write => return Err(error),
                Err(_) => {}
            }
        }
        Ok((path.open(&self.proc, OFlags::RDONLY)?, false))
    }

    /// Whether the file could be opened for writing now. QEMU (11.1) maps everything for writing, so that the guest had better read
    /// other files than fail to map them.
    fn may_write(&self, node: &Arc<Node>) -> bool {
        !self.options.readonly && node.descriptor().is_ok_and(|path| self.proc.may_write(path.as_fd()))
    }

    /// What the front end gets in place of `file`, so that it can map beyond its end.
    fn view(&self, file: OpenFd, writable: bool) -> Result<OwnedFd> {
        let Some(views) = &self.views else {
            return Ok(file.into_fd());
        };
        match views.view(file.as_fd(), writable) {
            // File systems stacked as deep as the kernel lets them have no views.
            Err(HostErrno::LOOP) => Ok(file.into_fd()),
            made => made.of(|| "openat(private FUSE mount)".into()),
        }
    }

    /// Attributes as FUSE carries them, with the flag that has the guest use DAX (FUSE_HAS_INODE_DAX).
    pub(super) fn to_wire(&self, node: &Arc<Node>, stat: &Statx) -> wire::Attr {
        let mut attributes = stat::to_wire(stat);
        attributes.ino = self.shown_number(Place::of(stat).device, attributes.ino);
        if self.has(InitFlags::HAS_INODE_DAX) && self.dax_files.includes(node, stat) && self.may_write(node) {
            attributes.flags |= wire::ATTR_DAX;
        }
        attributes
    }
}

/// Views, if they are asked for and the daemon may make them.
pub(super) fn views(device: Option<FuseDevice>) -> Option<Views> {
    Views::new(device?)
        .inspect_err(|reason| {
            warn!("QEMU cannot map beyond the end of files, because that needs a private FUSE mount: {reason}");
        })
        .ok()
}
