//! A directory of the host as a file system for a guest.
//!
//! The guest's kernel checks permissions (virtio-fs is always mounted with `default_permissions`). The daemon ensures
//! that the guest reaches nothing outside the share:
//!
//! * Every operation starts at the descriptor of a node and takes at most one name, which is a single component.
//!   `openat2` follows neither symbolic nor magic links.
//! * Only regular files and directories are ever opened, which `opening` proves at each open: the guest opens FIFOs,
//!   sockets and devices itself.
//! * The guest cannot use up the descriptors that the daemon needs to continue, or more memory for nodes than
//!   [`Options::max_nodes`] take: descriptors that it does not use are closed, and at last it gets ENFILE.
//! * A node that is opened again, by handle or by name, is the inode that it was (`by_name`).
//! * File handles are made and kept here; the guest sees only node ids.
//!
//! As root, be it of a user namespace with several users, nodes are made in the caller's name
//! ([`Passthrough::changes_identity`]). Otherwise everything belongs to the daemon's user, and chown(2) fails as the host decides.
//!
//! A thread that calls in here gets its own umask, working directory and supplementary groups, and keeps them. Lanes
//! should therefore be threads that do nothing else. Make a [`Passthrough`] after the last fork(2), because it holds
//! `/proc/self/fd`.

mod attr;
mod birth;
mod budget;
mod by_name;
mod credentials;
mod dax;
mod directory;
mod entries;
mod error;
mod handle;
mod held;
mod identity;
mod inode;
mod ioctl;
mod mounts;
mod numbers;
mod open;
mod opening;
mod options;
mod outside;
mod path;
mod pause;
mod procfs;
mod read;
mod recent;
mod room;
mod stat;
mod syscall_text;
mod xattr;

use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use guestmem::{Reader, Writer};
use rustix::fs::FileType;

use self::budget::{Budget, Permit};
use self::by_name::NamedNodes;
use self::credentials::Credentials;
pub use self::dax::{DaxFiles, FuseDevice};
use self::dax::{MappedFiles, Views};
use self::directory::OpenDirectory;
use self::entries::KeptBy;
pub use self::error::Error;
use self::handle::{Handles, OpenFile};
use self::identity::{Anchor, Anchors};
use self::inode::{Inodes, Node, Place};
use self::mounts::Mounts;
use self::numbers::InodeNumbers;
use self::opening::NodeFd;
pub use self::options::{CacheMode, InodeHandles, MAX_NODES, Options};
pub use self::outside::Outside;
use self::procfs::ProcSelfFd;
use crate::fs::{
    Caller, CopyRange, Create, DirectorySink, Entry, Errno, FileSystem, Handle, Mappable, Name, Negotiated, NodeId,
    Opened, RestOfRead, Result, SetAttr, WriteTo, XattrReply,
};
use crate::wire::{self, InitFlags};

/// Why a request that would change a read-only share is refused.
const READ_ONLY: &str = "the share is read-only (--readonly)";

/// A shared directory.
#[derive(Debug)]
pub struct Passthrough {
    options: Options,
    credentials: Credentials,
    budget: Budget,
    proc: ProcSelfFd,
    anchors: Anchors,
    named: Arc<NamedNodes>,
    kept_in_root: KeptBy,
    /// Keeps the anchor of the share's own mount: the root's children must find the same one every time.
    _root_anchor: Option<Arc<Anchor>>,
    inodes: Inodes,
    files: Handles<OpenFile>,
    directories: Handles<OpenDirectory>,
    mounts: Mounts,
    numbers: InodeNumbers,
    mapped: MappedFiles,
    dax_files: DaxFiles,
    views: Option<Views>,
    /// The `InitFlags` in force.
    negotiated: AtomicU64,
}

impl Passthrough {
    /// Shares `directory`.
    pub fn new(directory: &Path, options: Options) -> std::result::Result<Passthrough, Error> {
        let outside = Outside::open(directory, options.views.then(FuseDevice::open))?;
        Passthrough::from_outside(outside, options)
    }

    /// Shares what was opened before. Opens nothing by path. [`Options::views`] says nothing any more.
    pub fn from_outside(outside: Outside, options: Options) -> std::result::Result<Passthrough, Error> {
        let Outside { path, root, proc, fuse } = outside;
        let failed = |error: Errno| io::Error::from_raw_os_error(error.0);
        let credentials = Credentials::detect().map_err(|error| Error::Capabilities(failed(error)))?;
        let unopened = |source| Error::Directory {
            path: path.clone(),
            source,
        };
        let stat = stat::of(root.as_fd()).map_err(|error| unopened(failed(error)))?;
        let budget = Budget::of_process();
        let anchors = Anchors::new(options.inode_file_handles, budget.clone());
        let (mount, mounts) = (stat.stx_mnt_id, Mounts::default());
        let tells = mounts.manners(mount, root.as_fd()).handles_tell;
        let (handle, anchor) = anchors
            .handle(root.as_fd(), FileType::Directory, mount, &proc, tells)
            .map_err(|error| Error::Handles {
                path: path.clone(),
                source: failed(error),
            })?;
        let kept_in_root = match (&anchor, &handle) {
            (Some(_), _) => KeptBy::Handle,
            (None, Some(_)) => KeptBy::Name,
            (None, None) => KeptBy::Descriptor,
        };
        let views = dax::views(fuse);
        let max_nodes = options.max_nodes;
        let dax_files = options.dax_files.clone();
        let dax_files = dax_files.unwrap_or_else(|| DaxFiles::by_default(views.is_some()));
        Ok(Passthrough {
            options,
            credentials,
            named: NamedNodes::new(budget.clone()),
            budget,
            proc,
            anchors,
            kept_in_root,
            _root_anchor: anchor,
            inodes: Inodes::new(Place::of(&stat), Arc::new(root), max_nodes),
            files: Handles::new(2),
            directories: Handles::new(1),
            mounts,
            numbers: InodeNumbers::new(Place::of(&stat).device),
            mapped: MappedFiles::default(),
            dax_files,
            views,
            negotiated: AtomicU64::new(0),
        })
    }

    /// Whether nodes that the guest makes belong to the caller. `false`: the daemon is not privileged (CAP_SETUID, CAP_SETGID),
    /// and they belong to its own user.
    pub fn changes_identity(&self) -> bool {
        self.credentials.switches()
    }

    /// Whether nodes of the share's own mount are kept by file handle.
    pub fn uses_file_handles(&self) -> bool {
        self._root_anchor.is_some()
    }

    fn has(&self, flag: InitFlags) -> bool {
        InitFlags::from_bits_retain(self.negotiated.load(Ordering::Relaxed)).contains(flag)
    }

    /// EROFS if the share is read-only.
    fn writable(&self) -> Result<()> {
        if self.options.readonly {
            Err(Errno::EROFS.rule(READ_ONLY))
        } else {
            Ok(())
        }
    }

    /// To be called where an operation relies on the thread's umask, working directory or groups.
    fn prepare_thread(&self) -> Result<()> {
        self.credentials.prepare_thread(self.proc.directory())
    }

    /// The right to hold one more descriptor for the guest. What is only remembered gives way.
    fn permit(&self) -> Result<Permit> {
        self.budget.take().or_else(|_| {
            self.anchors.recent().forget_all();
            self.mapped.forget_unmapped();
            loop {
                let taken = self.budget.take();
                if taken.is_ok() || !self.named.recent().forget_one() {
                    return taken;
                }
            }
        })
    }

    fn node(&self, id: NodeId) -> Result<Arc<Node>> {
        self.inodes.get(id)
    }

    /// The node's descriptor, for operations that need nothing else of the node.
    fn descriptor(&self, id: NodeId) -> Result<NodeFd> {
        self.node(id)?.descriptor()
    }
}

impl FileSystem for Passthrough {
    fn wants(&self, offered: InitFlags) -> InitFlags {
        let options = &self.options;
        let mut wanted = InitFlags::ASYNC_READ
            | InitFlags::ASYNC_DIO
            | InitFlags::ATOMIC_O_TRUNC
            | InitFlags::AUTO_INVAL_DATA
            | InitFlags::HANDLE_KILLPRIV_V2
            | InitFlags::HAS_IOCTL_DIR
            | InitFlags::PARALLEL_DIROPS;
        let caches = options.cache != CacheMode::Never;
        wanted.set(InitFlags::CACHE_SYMLINKS, caches); // a link's target cannot change, and a new link is a new node
        wanted.set(
            InitFlags::DO_READDIRPLUS | InitFlags::READDIRPLUS_AUTO,
            options.readdirplus && caches,
        );
        wanted.set(InitFlags::SUBMOUNTS, options.announce_submounts);
        wanted.set(InitFlags::WRITEBACK_CACHE, options.writes_back());
        wanted.set(InitFlags::DIRECT_IO_ALLOW_MMAP, options.allow_mmap);
        wanted |= InitFlags::HAS_INODE_DAX; // offered only where there is a window
        wanted.set(InitFlags::CREATE_SUPP_GROUP, self.changes_identity());
        // A mapped caller's files are to be those of the id that it is mapped to.
        wanted.set(InitFlags::ALLOW_IDMAP, options.allow_idmap && self.changes_identity());
        // ACLs decide about the umask, so the host must apply it, and about set-group-id, which SETXATTR_EXT tells us to drop.
        let acl = InitFlags::POSIX_ACL | InitFlags::DONT_MASK | InitFlags::SETXATTR_EXT;
        wanted.set(acl, options.posix_acl && options.xattr && offered.contains(acl));
        wanted & offered
    }

    fn init(&self, negotiated: Negotiated) -> Result<()> {
        self.destroy();
        self.negotiated.store(negotiated.flags.bits(), Ordering::Relaxed);
        Ok(())
    }

    fn destroy(&self) {
        self.files.clear();
        self.directories.clear();
        self.inodes.clear();
        self.named.recent().forget_all();
        self.mounts.clear();
        self.mapped.clear();
        self.negotiated.store(0, Ordering::Relaxed);
    }

    fn path_of(&self, node: NodeId) -> Option<Vec<u8>> {
        self.path_in_share(node)
    }

    fn lookup(&self, _by: &Caller, parent: NodeId, name: Name<'_>) -> Result<Entry> {
        self.look_up(&self.node(parent)?, name)
    }

    fn absence_timeout(&self) -> Duration {
        self.options.cache.absence_timeout()
    }

    fn forget(&self, node: NodeId, count: u64) -> bool {
        let gone = self.inodes.forget(node, count);
        if gone {
            self.mapped.remove(node);
        }
        gone
    }

    fn getattr(&self, _by: &Caller, node: NodeId, handle: Option<Handle>) -> Result<(wire::Attr, Duration)> {
        self.attributes(node, handle)
    }

    fn statx(
        &self,
        _by: &Caller,
        node: NodeId,
        handle: Option<Handle>,
        flags: u32,
        mask: u32,
    ) -> Result<(wire::Statx, Duration)> {
        self.extended_attributes(node, handle, flags, mask)
    }

    fn setattr(&self, _by: &Caller, node: NodeId, change: &SetAttr) -> Result<(wire::Attr, Duration)> {
        self.change_attributes(node, change)
    }

    fn readlink(&self, _by: &Caller, node: NodeId) -> Result<Vec<u8>> {
        self.link_target(node)
    }

    fn symlink(&self, by: &Caller, parent: NodeId, name: Name<'_>, target: &CStr) -> Result<Entry> {
        self.make_symlink(by, parent, name, target)
    }

    fn mknod(&self, by: &Caller, parent: NodeId, name: Name<'_>, create: &Create) -> Result<Entry> {
        self.make_node(by, parent, name, create)
    }

    fn mkdir(&self, by: &Caller, parent: NodeId, name: Name<'_>, create: &Create) -> Result<Entry> {
        self.make_directory(by, parent, name, create)
    }

    fn unlink(&self, _by: &Caller, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.remove(parent, name, rustix::fs::AtFlags::empty())
    }

    fn rmdir(&self, _by: &Caller, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.remove(parent, name, rustix::fs::AtFlags::REMOVEDIR)
    }

    fn rename(&self, by: &Caller, from: (NodeId, Name<'_>), to: (NodeId, Name<'_>), flags: u32) -> Result<()> {
        self.move_entry(by, from, to, flags)
    }

    fn link(&self, by: &Caller, node: NodeId, parent: NodeId, name: Name<'_>) -> Result<Entry> {
        self.make_link(by, node, parent, name)
    }

    fn open(&self, _by: &Caller, node: NodeId, flags: u32, kill_suid_gid: bool) -> Result<Opened> {
        self.open_node(&self.node(node)?, flags, kill_suid_gid)
    }

    fn create(
        &self,
        by: &Caller,
        parent: NodeId,
        name: Name<'_>,
        create: &Create,
        kill_suid_gid: bool,
    ) -> Result<(Entry, Opened)> {
        self.create_file(by, parent, name, create, kill_suid_gid)
    }

    fn tmpfile(&self, by: &Caller, parent: NodeId, create: &Create) -> Result<(Entry, Opened)> {
        self.create_unnamed(by, parent, create)
    }

    fn read(&self, node: NodeId, handle: Handle, offset: u64, len: u32, out: &mut Writer<'_>) -> Result<()> {
        self.read_file(node, handle, offset, len, out)
    }

    fn read_at_once(
        &self,
        node: NodeId,
        handle: Handle,
        offset: u64,
        len: u32,
        out: &mut Writer<'_>,
    ) -> Result<Option<RestOfRead>> {
        self.read_what_is_there(node, handle, offset, len, out)
    }

    fn write(&self, by: &Caller, node: NodeId, to: &WriteTo, data: &mut Reader<'_>) -> Result<u32> {
        self.write_file(by, node, to, data)
    }

    fn flush(&self, node: NodeId, handle: Handle) -> Result<()> {
        self.flush_file(node, handle)
    }

    fn release(&self, node: NodeId, handle: Handle) -> Result<()> {
        self.files.remove(node, handle)
    }

    fn fsync(&self, node: NodeId, handle: Handle, data_only: bool) -> Result<()> {
        open::sync(&*self.files.get(node, handle)?, data_only)
    }

    fn syncfs(&self, node: NodeId) -> Result<()> {
        self.sync_file_system(node)
    }

    fn opendir(&self, _by: &Caller, node: NodeId, _flags: u32) -> Result<Opened> {
        self.open_directory(node)
    }

    fn readdir(
        &self,
        _by: &Caller,
        node: NodeId,
        handle: Handle,
        offset: u64,
        plus: bool,
        sink: &mut dyn DirectorySink,
    ) -> Result<()> {
        self.read_directory(node, handle, offset, plus, sink)
    }

    fn releasedir(&self, node: NodeId, handle: Handle) -> Result<()> {
        self.directories.remove(node, handle)
    }

    fn fsyncdir(&self, node: NodeId, handle: Handle, data_only: bool) -> Result<()> {
        open::sync(&*self.directories.get(node, handle)?, data_only)
    }

    fn statfs(&self, node: NodeId) -> Result<wire::Statfs> {
        self.file_system_figures(node)
    }

    fn access(&self, by: &Caller, node: NodeId, mask: u32) -> Result<()> {
        self.check_access(by, node, mask)
    }

    fn setxattr(
        &self,
        by: &Caller,
        node: NodeId,
        name: &CStr,
        value: &[u8],
        flags: u32,
        kill_sgid: bool,
    ) -> Result<()> {
        self.set_xattr(by, node, name, value, flags, kill_sgid)
    }

    fn getxattr(&self, _by: &Caller, node: NodeId, name: &CStr, size: u32) -> Result<XattrReply> {
        self.get_xattr(node, name, size)
    }

    fn listxattr(&self, by: &Caller, node: NodeId, size: u32) -> Result<XattrReply> {
        self.list_xattr(by, node, size)
    }

    fn removexattr(&self, _by: &Caller, node: NodeId, name: &CStr) -> Result<()> {
        self.remove_xattr(node, name)
    }

    fn fallocate(&self, by: &Caller, node: NodeId, handle: Handle, mode: u32, offset: u64, len: u64) -> Result<()> {
        self.allocate(by, node, handle, mode, offset, len)
    }

    fn lseek(&self, node: NodeId, handle: Handle, offset: u64, whence: u32) -> Result<u64> {
        self.seek_data(node, handle, offset, whence)
    }

    fn copy_file_range(&self, by: &Caller, range: &CopyRange) -> Result<u64> {
        self.copy_range(by, range)
    }

    fn open_for_mapping(&self, node: NodeId, write: bool) -> Result<Mappable> {
        self.open_mappable(node, write)
    }

    fn ioctl(
        &self,
        by: &Caller,
        node: NodeId,
        handle: Handle,
        command: u32,
        input: &[u8],
        out_size: u32,
    ) -> Result<Vec<u8>> {
        self.control(by, node, handle, command, input, out_size)
    }
}
