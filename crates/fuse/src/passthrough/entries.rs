//! Names: lookup, creation, rename and removal.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FileType, Mode, RenameFlags, Statx, linkat, makedev, mkdirat, mknodat, readlinkat, renameat_with,
    symlinkat, unlinkat,
};

use super::Passthrough;
use super::birth::{Birth, Look};
use super::budget::Permit;
use super::by_name::Moving;
use super::credentials::UmaskGuard;
use super::held::Held;
use super::identity::{Anchor, Identity};
use super::inode::{Key, Node, Place};
use super::opening::{NodeFd, PathFd};
use super::procfs::FdName;
use super::room::Room;
use super::syscall_text::{self, Quoted};
use super::{pause, stat};
use crate::cause::{self, HostResult as _};
use crate::check::Check;
use crate::fs::{Caller, Create, Entry, Errno, Name, NodeId, Result};
use crate::sys::FileHandle;
use crate::wire::{self, InitFlags};

/// A node just looked up, counted once.
pub(super) struct Found {
    pub(super) entry: Entry,
    pub(super) node: Arc<Node>,
}

impl Passthrough {
    pub(super) fn look_up(&self, parent: &Arc<Node>, name: Name<'_>) -> Result<Entry> {
        Ok(self.find(parent, name, None)?.entry)
    }

    /// `room` is for its node, if that is new.
    pub(super) fn find(&self, parent: &Arc<Node>, name: Name<'_>, room: Option<Room<'_>>) -> Result<Found> {
        self.find_in(parent, parent.descriptor()?.as_fd(), name, room)
    }

    /// Looks `name` up in `parent`, of which `directory` is a descriptor. What is known already is found by its attributes alone;
    /// what is new takes a handle, or a descriptor. Attributes and node are of one inode, whatever becomes of the name meanwhile.
    pub(super) fn find_in(
        &self,
        parent: &Arc<Node>,
        directory: BorrowedFd<'_>,
        name: Name<'_>,
        room: Option<Room<'_>>,
    ) -> Result<Found> {
        let seen = Seen::at(directory, name)?;
        pause::between_steps();
        // Looks by attributes follow no link.
        if let Some(birth) = seen.birth.filter(|_| Check::Beneath.is_on()) {
            if let Some(node) = self.inodes.look_up_by_birth(Place::of(&seen.stat), birth) {
                node.found_by(parent, name);
                let entry = self.entry(parent, &node, &seen.stat);
                return Ok(Found { entry, node });
            }
            if let Some(met) = self.meet(directory, name, &seen)? {
                let anchor = met.anchor;
                let node = self.count(&met.stat, Some(birth), Some(met.handle), Some(name), room, || {
                    let held = Held::default();
                    Ok(Identity::Handle { anchor, held })
                })?;
                let entry = self.entry(parent, &node, &met.stat);
                return Ok(Found { entry, node });
            }
        }
        let path = Arc::new(PathFd::of_name(directory, name)?);
        self.adopt(parent, path.as_fd(), Some(name), room, || Ok(Arc::clone(&path)))
    }

    /// The handle of the inode that was `seen`, and its attributes anew, without opening it. `None`: only a descriptor can tell what
    /// belongs together.
    ///
    /// Between the two looks at `name` it may have meant something else. But an inode that is seen with the same old birth before and
    /// after was there all the time, and had its number and mount to itself: a handle with both is its own.
    fn meet(&self, directory: BorrowedFd<'_>, name: Name<'_>, seen: &Seen) -> Result<Option<Met>> {
        let Some((handle, anchor)) = self.handle_at(directory, name, &seen.stat) else {
            return Ok(None);
        };
        pause::between_steps();
        let Seen { stat, birth } = Seen::at(directory, name)?;
        let same = birth.is_some() && birth == seen.birth && Place::of(&stat) == Place::of(&seen.stat);
        Ok(same.then_some(Met { stat, handle, anchor }))
    }

    /// The handle of what `name` means now, if its mount and its inode's number are those of `stat`. It may be another inode's. `None`
    /// also where numbers and births tell nothing.
    fn handle_at(&self, directory: BorrowedFd<'_>, name: Name<'_>, stat: &Statx) -> Option<(FileHandle, Arc<Anchor>)> {
        let anchor = self.anchors.known(stat.stx_mnt_id)?;
        if !anchor.tells_births() {
            return None;
        }
        let (handle, mount) = FileHandle::at(directory, name.as_c_str()).ok()?;
        (anchor.is_of(mount) && handle.inode() == Some(stat.stx_ino)).then_some((handle, anchor))
    }

    /// Counts a lookup of the inode behind `fd`, found in `parent` by `name` if it has one. `path` gives an O_PATH descriptor of
    /// it to hold where that is necessary.
    pub(super) fn adopt(
        &self,
        parent: &Arc<Node>,
        fd: BorrowedFd<'_>,
        name: Option<Name<'_>>,
        room: Option<Room<'_>>,
        path: impl Fn() -> Result<Arc<PathFd>>,
    ) -> Result<Found> {
        let Seen { stat, birth } = Seen::of(fd)?;
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        let manners = self.mounts.manners(stat.stx_mnt_id, fd);
        let birth = birth.filter(|_| manners.births);
        let tells = manners.handles_tell || manners.subvolumes;
        let mount = stat.stx_mnt_id;
        let (handle, anchor) = self.anchors.handle(fd, kind, mount, &self.proc, tells)?;
        let told = handle.is_some() && manners.handles_tell;
        let node = self.count(&stat, birth, handle, name, room, || {
            Ok(match (anchor, name) {
                (Some(anchor), _) => Identity::Handle {
                    anchor,
                    held: Held::default(),
                },
                (None, Some(name)) if told => self.named.found(parent, name),
                (None, None) if told => self.named.kept(path()?, self.permit()?),
                (None, _) => Identity::descriptor(path()?, Some(self.permit()?)),
            })
        })?;
        if let (Some(named), Some(name)) = (node.named(), name) {
            node.found_by(parent, name);
            // Without a descriptor to hold it will be opened by its name.
            if named.held().any().is_none()
                && let Ok(path) = cause::aside(&path)
            {
                node.remember(&path);
            }
        }
        let entry = self.entry(parent, &node, &stat);
        Ok(Found { entry, node })
    }

    /// Counts a lookup of the inode that `stat`, `birth` and `handle` are of, all three.
    fn count(
        &self,
        stat: &Statx,
        birth: Option<Birth>,
        handle: Option<FileHandle>,
        name: Option<Name<'_>>,
        room: Option<Room<'_>>,
        identity: impl FnOnce() -> Result<Identity>,
    ) -> Result<Arc<Node>> {
        let place = Place::of(stat);
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        let dax_by_name = self.dax_files.names(name);
        self.inodes
            .look_up(Key { place, handle }, birth, kind, dax_by_name, room, identity)
    }

    fn entry(&self, parent: &Node, node: &Arc<Node>, stat: &Statx) -> Entry {
        let mut attributes = self.to_wire(node, stat);
        // Another device on the same mount (a btrfs subvolume) counts inodes anew, which the guest must be able to tell.
        let elsewhere =
            (node.key.place.mount, node.key.place.device) != (parent.key.place.mount, parent.key.place.device);
        if elsewhere && node.kind == FileType::Directory && self.has(InitFlags::SUBMOUNTS) {
            attributes.flags |= wire::ATTR_SUBMOUNT;
        }
        let timeout = self.options.cache.timeout();
        Entry {
            node: node.id,
            generation: 0, // node ids are never used twice
            attr: attributes,
            attr_timeout: timeout,
            entry_timeout: timeout,
        }
    }

    /// Runs `make` in the directory `parent` as the caller, under the caller's umask if that is left to us. Returns the room for the
    /// node of what is made, taken before: nothing is made that cannot be answered.
    pub(super) fn make<T>(
        &self,
        by: &Caller,
        parent: &Arc<Node>,
        mask: u32,
        make: impl FnOnce(BorrowedFd<'_>) -> Result<T>,
    ) -> Result<(T, Room<'_>)> {
        self.writable()?;
        self.prepare_thread()?;
        let directory = parent.descriptor()?;
        // Of what is made the guest gets a node, or a pin, right after.
        let _spare = self.permit()?;
        let room = self.inodes.room()?;
        let _caller = self.credentials.become_caller(by)?;
        let _umask = self.has(InitFlags::DONT_MASK).then(|| UmaskGuard::set(mask));
        Ok((make(directory.as_fd())?, room))
    }

    pub(super) fn make_symlink(&self, by: &Caller, parent: NodeId, name: Name<'_>, target: &CStr) -> Result<Entry> {
        let parent = self.node(parent)?;
        let ((), room) = self.make(by, &parent, 0, |directory| {
            symlinkat(target, directory, name.as_c_str())
                .of(|| format!("symlinkat({}, parent, {})", Quoted(target), Quoted(name.as_c_str())))
        })?;
        Ok(self.find(&parent, name, Some(room))?.entry)
    }

    pub(super) fn make_directory(&self, by: &Caller, parent: NodeId, name: Name<'_>, create: &Create) -> Result<Entry> {
        let parent = self.node(parent)?;
        let ((), room) = self.make(by, &parent, create.umask, |directory| {
            mkdirat(directory, name.as_c_str(), mode(create)).of(|| {
                format!(
                    "mkdirat(parent, {}, 0{:o})",
                    Quoted(name.as_c_str()),
                    create.mode & 0o7777
                )
            })
        })?;
        Ok(self.find(&parent, name, Some(room))?.entry)
    }

    pub(super) fn make_node(&self, by: &Caller, parent: NodeId, name: Name<'_>, create: &Create) -> Result<Entry> {
        let parent = self.node(parent)?;
        let kind = match FileType::from_raw_mode(create.mode) {
            // mknod(2): no file type means a regular file. Directories and links are not made so.
            FileType::Unknown if create.mode & libc::S_IFMT == 0 => FileType::RegularFile,
            FileType::Unknown | FileType::Directory | FileType::Symlink => {
                return Err(Errno::EINVAL.rule("mknod(2) makes no node of that kind"));
            }
            kind => kind,
        };
        let device = stat::device_from_wire(create.device);
        let device = makedev(device.0, device.1);
        let ((), room) = self.make(by, &parent, create.umask, |directory| {
            mknodat(directory, name.as_c_str(), kind, mode(create), device).of(|| {
                let (name, mode) = (Quoted(name.as_c_str()), create.mode);
                format!("mknodat(parent, {name}, 0{mode:o}, {device:#x})")
            })
        })?;
        Ok(self.find(&parent, name, Some(room))?.entry)
    }

    pub(super) fn make_link(&self, by: &Caller, node: NodeId, parent: NodeId, name: Name<'_>) -> Result<Entry> {
        self.writable()?;
        self.prepare_thread()?;
        let (node, parent) = (self.node(node)?, self.node(parent)?);
        let inode = node.descriptor()?;
        let directory = parent.descriptor()?;
        let namer = self.credentials.become_namer(by)?;
        // The magic link leads to the inode itself, also that of a symbolic link or of a file without a name.
        linkat(
            self.proc.directory(),
            FdName::of(inode.as_fd()).as_c_str(),
            &directory,
            name.as_c_str(),
            AtFlags::SYMLINK_FOLLOW,
        )
        .of(|| format!("linkat(node, parent, {})", Quoted(name.as_c_str())))?;
        drop(namer);
        if let Some(named) = node.named() {
            node.found_by(&parent, name);
            named.held().keep_no_longer(); // a file made without a name has one now
        }
        let stat = stat::of(inode.as_fd())?;
        self.inodes.look_up_again(&node)?;
        Ok(self.entry(&parent, &node, &stat))
    }

    /// unlink(2), or rmdir(2) with `AtFlags::REMOVEDIR`.
    pub(super) fn remove(&self, parent: NodeId, name: Name<'_>, flags: AtFlags) -> Result<()> {
        self.writable()?;
        let parent = self.node(parent)?;
        let directory = parent.descriptor()?;
        let last = self.last_name(&parent, directory.as_fd(), name);
        unlinkat(&directory, name.as_c_str(), flags).of(|| {
            let flags = if flags.is_empty() { "0" } else { "AT_REMOVEDIR" };
            format!("unlinkat(parent, {}, {flags})", Quoted(name.as_c_str()))
        })?;
        if let Some(last) = last {
            last.keep();
        }
        Ok(())
    }

    /// A whiteout that `RENAME_WHITEOUT` leaves behind belongs to the daemon: overlayfs makes its whiteouts as root.
    pub(super) fn move_entry(
        &self,
        by: &Caller,
        from: (NodeId, Name<'_>),
        to: (NodeId, Name<'_>),
        flags: u32,
    ) -> Result<()> {
        self.writable()?;
        self.prepare_thread()?;
        let flags =
            RenameFlags::from_bits(flags).ok_or_else(|| Errno::EINVAL.rule("renameat2(2) knows no such flags"))?;
        let (old_parent, parent) = (self.node(from.0)?, self.node(to.0)?);
        let (old, new) = (old_parent.descriptor()?, parent.descriptor()?);
        let replaces = !flags.intersects(RenameFlags::EXCHANGE | RenameFlags::NOREPLACE);
        let last = replaces.then(|| self.last_name(&parent, new.as_fd(), to.1)).flatten();
        let goes = self.moving(&old_parent, old.as_fd(), from.1);
        let exchanges = flags.contains(RenameFlags::EXCHANGE);
        let comes = exchanges.then(|| self.moving(&parent, new.as_fd(), to.1)).flatten();
        let namer = self.credentials.become_namer(by)?;
        renameat_with(&old, from.1.as_c_str(), &new, to.1.as_c_str(), flags).of(|| {
            let (from, to) = (Quoted(from.1.as_c_str()), Quoted(to.1.as_c_str()));
            format!(
                "renameat2(parent, {from}, new parent, {to}, {})",
                syscall_text::rename(flags)
            )
        })?;
        drop(namer);
        if let Some(last) = last {
            last.keep();
        }
        if let Some(goes) = goes {
            goes.arrive(&parent, to.1);
        }
        if let Some(comes) = comes {
            comes.arrive(&old_parent, from.1);
        }
        Ok(())
    }

    /// How nodes of what lies in `directory` are kept. No name to remove leads to another mount, so they are kept as it is, but for
    /// the root, which has a descriptor in any case.
    fn kept_in(&self, directory: &Node) -> KeptBy {
        match &directory.identity {
            Identity::Handle { .. } => KeptBy::Handle,
            Identity::WithoutHandle(_) if directory.id == NodeId::ROOT => self.kept_in_root,
            Identity::WithoutHandle(_) if directory.named().is_some() => KeptBy::Name,
            Identity::WithoutHandle(_) => KeptBy::Descriptor,
        }
    }

    /// The node of what `seen` found by `name` in `directory`, where handles do not open, if the guest knows it.
    fn known_as(&self, seen: &Seen, directory: BorrowedFd<'_>, name: Name<'_>) -> Option<Arc<Node>> {
        let place = Place::of(&seen.stat);
        let told = seen.birth.and_then(|birth| self.inodes.known_by_birth(place, birth));
        told.or_else(|| {
            let (handle, _) = FileHandle::at(directory, name.as_c_str()).ok()?;
            let handle = Some(handle);
            self.inodes.known(&Key { place, handle })
        })
    }

    /// The node that is about to be renamed, if it is found again by name.
    fn moving(&self, parent: &Node, directory: BorrowedFd<'_>, name: Name<'_>) -> Option<Moving> {
        if self.kept_in(parent) != KeptBy::Name {
            return None;
        }
        cause::aside(|| {
            let seen = Seen::at(directory, name).ok()?;
            let node = self.known_as(&seen, directory, name)?;
            Moving::begin(node, parent, name)
        })
    }

    /// A node whose last name goes away needs a descriptor to live on until the guest forgets it, unless it has one in any case. So
    /// does a node that is found by the name that goes away, since no other is known. Without a descriptor to spare it goes with its
    /// name, as if the host had removed it: what frees must not be refused.
    fn last_name(&self, parent: &Node, directory: BorrowedFd<'_>, name: Name<'_>) -> Option<LastName> {
        let kept_by = self.kept_in(parent);
        if kept_by == KeptBy::Descriptor {
            return None;
        }
        let seen = Seen::at(directory, name).ok()?;
        let kind = FileType::from_raw_mode(seen.stat.stx_mode.into());
        let has_others = kind != FileType::Directory && seen.stat.stx_nlink > 1;
        if kept_by == KeptBy::Name {
            let node = self.known_as(&seen, directory, name)?;
            if has_others && !node.named()?.goes_by(parent, name) {
                return None;
            }
            let fd = node.descriptor().ok()?;
            let permit = self.permit().ok()?;
            return Some(LastName { node, fd, permit });
        }
        if has_others {
            return None;
        }
        let permit = self.permit().ok()?;
        let place = Place::of(&seen.stat);
        let mut known = seen.birth.and_then(|birth| self.inodes.known_by_birth(place, birth));
        if known.is_none()
            && let Some((handle, _)) = self.handle_at(directory, name, &seen.stat)
        {
            let handle = Some(handle);
            // The handle decides, whatever was seen before: what it does not find the guest does not know.
            known = Some(self.inodes.known(&Key { place, handle })?);
        }
        if let Some(node) = known {
            let fd = node.descriptor().ok()?;
            return Some(LastName { node, fd, permit });
        }
        let fd = PathFd::of_name(directory, name).ok()?;
        let stat = stat::of(fd.as_fd()).ok()?;
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        let mount = stat.stx_mnt_id;
        let (handle, _) = self.anchors.handle(fd.as_fd(), kind, mount, &self.proc, true).ok()?;
        let key = Key {
            place: Place::of(&stat),
            handle: Some(handle?),
        };
        let node = self.inodes.known(&key)?;
        let fd = NodeFd::Path(Arc::new(fd));
        Some(LastName { node, fd, permit })
    }

    pub(super) fn link_target(&self, node: NodeId) -> Result<Vec<u8>> {
        let node = self.node(node)?;
        if node.kind != FileType::Symlink {
            return Err(Errno::EINVAL.rule("the node is no symbolic link"));
        }
        let target = readlinkat(&node.descriptor()?, c"", Vec::new()).of(|| "readlinkat(node, \"\")".into())?;
        Ok(target.into_bytes())
    }
}

/// How nodes refer to their inodes: see [`Identity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeptBy {
    Handle,
    Name,
    Descriptor,
}

/// What one look at an inode found.
pub(super) struct Seen {
    pub(super) stat: Statx,
    pub(super) birth: Option<Birth>,
}

impl Seen {
    /// At what `name` stands for in `directory`.
    fn at(directory: BorrowedFd<'_>, name: Name<'_>) -> Result<Seen> {
        let look = Look::begin();
        let stat = stat::of_name(directory, name)?;
        let birth = look.birth(&stat);
        Ok(Seen { stat, birth })
    }

    /// At the inode behind `fd`.
    pub(super) fn of(fd: BorrowedFd<'_>) -> Result<Seen> {
        let look = Look::begin();
        let stat = stat::of(fd)?;
        let birth = look.birth(&stat);
        Ok(Seen { stat, birth })
    }
}

/// Attributes and handle of one inode.
struct Met {
    stat: Statx,
    handle: FileHandle,
    anchor: Arc<Anchor>,
}

/// A node that is about to lose its last name.
struct LastName {
    node: Arc<Node>,
    fd: NodeFd,
    permit: Permit,
}

impl LastName {
    /// It has lost it.
    fn keep(self) {
        self.node.keep(self.fd, self.permit);
        if let Some(named) = self.node.named() {
            named.forget_name();
        }
    }
}

/// Permission bits of a new node, with set-user-id, set-group-id and sticky.
pub(super) fn mode(create: &Create) -> Mode {
    Mode::from_raw_mode(create.mode & 0o7777)
}
