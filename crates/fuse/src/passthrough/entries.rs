//! Names: finding, making, moving and removing them.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags, linkat, makedev, mkdirat, mknodat, openat2, readlinkat,
    renameat_with, symlinkat, unlinkat,
};

use super::Passthrough;
use super::attr;
use super::credentials::UmaskGuard;
use super::handle::Pinned;
use super::identity::{Identity, Pin};
use super::inode::Node;
use super::procfs::FdName;
use crate::fs::{Caller, Create, Entry, Errno, Name, NodeId, Result};
use crate::wire::{self, InitFlags};

/// The name is one component, so these hold against mistakes here rather than against the guest.
pub(super) const INSIDE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

/// Opens what `name` stands for, be it a symbolic link or a device, without any effect on it.
pub(super) fn open_path(parent: BorrowedFd<'_>, name: Name<'_>) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat2(parent, name.as_c_str(), flags, Mode::empty(), INSIDE)?)
}

/// A node just looked up, counted once, with an O_PATH descriptor of it.
pub(super) struct Found {
    pub(super) entry: Entry,
    pub(super) node: Arc<Node>,
    pub(super) path: Arc<OwnedFd>,
}

impl Passthrough {
    pub(super) fn look_up(&self, parent: &Node, name: Name<'_>) -> Result<Entry> {
        Ok(self.find(parent, name)?.entry)
    }

    pub(super) fn find(&self, parent: &Node, name: Name<'_>) -> Result<Found> {
        self.adopt(parent, open_path(parent.descriptor()?.as_fd(), name)?, Some(name))
    }

    /// Counts a lookup of the inode behind the O_PATH descriptor `path`, found in `parent` by `name` if it has one.
    pub(super) fn adopt(&self, parent: &Node, path: OwnedFd, name: Option<Name<'_>>) -> Result<Found> {
        let path = Arc::new(path);
        let stat = attr::stat(path.as_fd())?;
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        let handle = self.anchors.handle(path.as_fd(), kind, stat.stx_mnt_id, &self.proc)?;
        let (handle, anchor) = handle.unzip();
        let node = self
            .inodes
            .look_up(attr::key(&stat, handle), kind, self.dax_files.names(name), || {
                Ok(match anchor {
                    Some(anchor) => Identity::Handle {
                        anchor,
                        pin: Pin::default(),
                    },
                    None => Identity::Descriptor {
                        fd: Arc::clone(&path),
                        _permit: Some(self.budget.take()?),
                    },
                })
            })?;
        let entry = self.entry(parent, &node, &stat);
        Ok(Found { entry, node, path })
    }

    fn entry(&self, parent: &Node, node: &Node, stat: &rustix::fs::Statx) -> Entry {
        let mut attributes = self.to_wire(node, stat);
        // Another device on the same mount (a btrfs subvolume) counts inodes anew, which the guest must be able to tell.
        let elsewhere = (node.key.mount, node.key.device) != (parent.key.mount, parent.key.device);
        if elsewhere && node.kind == FileType::Directory && self.has(InitFlags::SUBMOUNTS) {
            attributes.flags |= wire::ATTR_SUBMOUNT;
        }
        let timeout = self.options.cache.timeout();
        Entry {
            node: Some(node.id),
            generation: 0, // node ids are never used twice
            attr: attributes,
            attr_timeout: timeout,
            entry_timeout: timeout,
        }
    }

    /// Runs `make` in the directory `parent` as the caller, under the caller's umask if that is left to us.
    pub(super) fn make<T>(
        &self,
        by: &Caller,
        parent: &Node,
        mask: u32,
        make: impl FnOnce(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> Result<T> {
        self.writable()?;
        self.prepare_thread()?;
        let directory = parent.descriptor()?;
        // Of what is made the guest gets a node, or a pin, right after.
        let _spare = self.budget.take()?;
        let _caller = self.credentials.become_caller(by)?;
        let _umask = self.has(InitFlags::DONT_MASK).then(|| UmaskGuard::set(mask));
        Ok(make(directory.as_fd())?)
    }

    pub(super) fn make_symlink(&self, by: &Caller, parent: NodeId, name: Name<'_>, target: &CStr) -> Result<Entry> {
        let parent = self.node(parent)?;
        self.make(by, &parent, 0, |directory| {
            symlinkat(target, directory, name.as_c_str())
        })?;
        self.look_up(&parent, name)
    }

    pub(super) fn make_directory(&self, by: &Caller, parent: NodeId, name: Name<'_>, create: &Create) -> Result<Entry> {
        let parent = self.node(parent)?;
        self.make(by, &parent, create.umask, |directory| {
            mkdirat(directory, name.as_c_str(), mode(create))
        })?;
        self.look_up(&parent, name)
    }

    pub(super) fn make_node(&self, by: &Caller, parent: NodeId, name: Name<'_>, create: &Create) -> Result<Entry> {
        let parent = self.node(parent)?;
        let kind = match FileType::from_raw_mode(create.mode) {
            // mknod(2): no file type means a regular file. Directories and links are not made so.
            FileType::Unknown if create.mode & libc::S_IFMT == 0 => FileType::RegularFile,
            FileType::Unknown | FileType::Directory | FileType::Symlink => return Err(Errno::EINVAL),
            kind => kind,
        };
        let device = attr::device_from_wire(create.device);
        let device = makedev(device.0, device.1);
        self.make(by, &parent, create.umask, |directory| {
            mknodat(directory, name.as_c_str(), kind, mode(create), device)
        })?;
        self.look_up(&parent, name)
    }

    pub(super) fn make_link(&self, node: NodeId, parent: NodeId, name: Name<'_>) -> Result<Entry> {
        self.writable()?;
        let (node, parent) = (self.node(node)?, self.node(parent)?);
        let inode = node.descriptor()?;
        let directory = parent.descriptor()?;
        // The magic link leads to the inode itself, also that of a symbolic link or of a file without a name.
        linkat(
            self.proc.directory(),
            FdName::of(inode.as_fd()).as_c_str(),
            &directory,
            name.as_c_str(),
            AtFlags::SYMLINK_FOLLOW,
        )?;
        let stat = attr::stat(inode.as_fd())?;
        self.inodes.look_up_again(&node)?;
        Ok(self.entry(&parent, &node, &stat))
    }

    /// unlink(2), or rmdir(2) with `AtFlags::REMOVEDIR`.
    pub(super) fn remove(&self, parent: NodeId, name: Name<'_>, flags: AtFlags) -> Result<()> {
        self.writable()?;
        let parent = self.node(parent)?;
        let directory = parent.descriptor()?;
        let pinned = self.pin_last_name(&parent, directory.as_fd(), name);
        unlinkat(&directory, name.as_c_str(), flags)?;
        if let Some(pinned) = pinned {
            pinned.until_forgotten();
        }
        Ok(())
    }

    /// A whiteout that `RENAME_WHITEOUT` leaves behind belongs to the daemon: overlayfs makes its whiteouts as root.
    pub(super) fn move_entry(&self, from: (NodeId, Name<'_>), to: (NodeId, Name<'_>), flags: u32) -> Result<()> {
        self.writable()?;
        let flags = RenameFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
        let parent = self.node(to.0)?;
        let (old, new) = (self.descriptor(from.0)?, parent.descriptor()?);
        let replaces = !flags.intersects(RenameFlags::EXCHANGE | RenameFlags::NOREPLACE);
        let pinned = replaces
            .then(|| self.pin_last_name(&parent, new.as_fd(), to.1))
            .flatten();
        renameat_with(&old, from.1.as_c_str(), &new, to.1.as_c_str(), flags)?;
        if let Some(pinned) = pinned {
            pinned.until_forgotten();
        }
        Ok(())
    }

    /// A node under a handle whose last name goes away needs a descriptor to live on until the guest forgets it. Without one
    /// to spare it goes with its name, as if the host had removed it: what frees must not be refused.
    fn pin_last_name(&self, parent: &Node, directory: BorrowedFd<'_>, name: Name<'_>) -> Option<Pinned> {
        // No name to remove leads to another mount, so its node is kept as the parent is.
        let by_handle = match parent.id {
            NodeId::ROOT => self.uses_file_handles(), // the root itself has a descriptor in any case
            _ => parent.has_handle(),
        };
        if !by_handle {
            return None;
        }
        let path = open_path(directory, name).ok()?;
        let stat = attr::stat(path.as_fd()).ok()?;
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        if kind != FileType::Directory && stat.stx_nlink > 1 {
            return None;
        }
        let handle = self.anchors.handle(path.as_fd(), kind, stat.stx_mnt_id, &self.proc);
        let (handle, _) = handle.ok()??;
        let node = self.inodes.known(&attr::key(&stat, Some(handle)))?;
        Pinned::new(node, &Arc::new(path), &self.budget).ok()
    }

    pub(super) fn link_target(&self, node: NodeId) -> Result<Vec<u8>> {
        let node = self.node(node)?;
        if node.kind != FileType::Symlink {
            return Err(Errno::EINVAL);
        }
        Ok(readlinkat(&node.descriptor()?, c"", Vec::new())?.into_bytes())
    }
}

/// Permission bits of a new node, with set-user-id, set-group-id and sticky.
pub(super) fn mode(create: &Create) -> Mode {
    Mode::from_raw_mode(create.mode & 0o7777)
}
