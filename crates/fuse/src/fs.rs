//! The trait of a file system: one method per operation, with names and lengths already checked by `request`.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use guestmem::{CursorError, Reader, Writer};

use crate::check::Check;
use crate::wire;

/// What is left of a read that would have had to wait: puts the rest of the bytes into `out`, as [`FileSystem::read`] does. Called
/// on any thread; it keeps the open file alive.
pub type RestOfRead = Box<dyn FnOnce(&mut Writer<'_>) -> Result<()> + Send>;

/// What every operation answers.
pub type Result<T> = std::result::Result<T, Errno>;

/// A Linux errno, positive, as the guest will see it (`out.error = -errno`, FUSE 7.31).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl From<CursorError> for Errno {
    fn from(error: CursorError) -> Self {
        match error {
            CursorError::Short { .. } => Self::EINVAL.rule("it is shorter than its length says"),
            CursorError::Fault => Self::EFAULT.rule("the guest's memory cannot be reached"),
        }
    }
}

macro_rules! errnos {
    ($($name:ident)*) => {
        #[allow(missing_docs, reason = "the names are those of errno(3)")]
        impl Errno {
            $(pub const $name: Errno = Errno(libc::$name);)*
        }
    };
}
errnos! {
    E2BIG EACCES EAGAIN EBADF EBUSY EEXIST EFAULT EFBIG EINTR EINVAL EIO EISDIR ELOOP EMFILE ENAMETOOLONG ENFILE ENODATA ENODEV ENOENT
    ENOMEM ENOSYS ENOTCONN ENOTDIR ENOTTY ENXIO EOPNOTSUPP EOVERFLOW EPERM EPROTO ERANGE EROFS ESTALE EXDEV
}

/// A node the guest knows: the root is 1, every other comes from an [`Entry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The shared directory itself (FUSE_ROOT_ID).
    pub const ROOT: NodeId = NodeId(1);
}

/// An open file or directory, as answered by `open`, `create` or `opendir`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle(pub u64);

/// One component of a path: not empty, no `/`, neither `.` nor `..`; any other bytes, UTF-8 or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a>(&'a CStr);

impl<'a> Name<'a> {
    /// `None` if `name` could name anything but an entry of its parent.
    pub fn new(name: &'a CStr) -> Option<Self> {
        let bytes = name.to_bytes();
        let single = !bytes.is_empty() && bytes != b"." && bytes != b".." && !bytes.contains(&b'/');
        (single || !Check::Name.is_on()).then_some(Self(name))
    }

    /// The name as system calls take it.
    pub fn as_c_str(self) -> &'a CStr {
        self.0
    }
}

/// On whose behalf the guest asks. A claim of the guest, not a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// User id in the guest's `fuse_in_header`; [`Caller::UNNAMED`] where FUSE_ALLOW_IDMAP leaves it out.
    pub uid: u32,
    /// Group id in the guest's `fuse_in_header`; likewise.
    pub gid: u32,
    /// Process id in the guest; 0 for requests of the guest kernel itself.
    pub pid: u32,
    /// The one supplementary group that FUSE_CREATE_SUPP_GROUP (FUSE 7.38) sends with operations that create.
    pub supplementary_group: Option<u32>,
}

impl Caller {
    /// The id of nobody (`FUSE_INVALID_UIDGID`): the guest's kernel has checked what the caller may do, and does not say who it is.
    pub const UNNAMED: u32 = u32::MAX;

    /// Whether user or group are left out.
    pub fn is_unnamed(&self) -> bool {
        self.uid == Self::UNNAMED || self.gid == Self::UNNAMED
    }
}

/// A node found or made; the guest's lookup count of `node` has grown by one.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The node.
    pub node: NodeId,
    /// Distinguishes two lives of one node id.
    pub generation: u64,
    /// The node's attributes.
    pub attr: wire::Attr,
    /// How long the guest may trust `attr`.
    pub attr_timeout: Duration,
    /// How long the guest may trust the name.
    pub entry_timeout: Duration,
}

/// What `open`, `create`, `tmpfile` and `opendir` answer.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// The new handle.
    pub handle: Handle,
    /// `FOPEN_*` flags for the guest.
    pub flags: u32,
}

/// A time to set, as utimensat(2) knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The host's present time.
    Now,
    /// Seconds since the epoch and nanoseconds below 1,000,000,000.
    At(i64, u32),
}

/// The attributes a SETATTR changes; `None` stays as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// The open file the guest changes, if it named one (FATTR_FH).
    pub handle: Option<Handle>,
    /// Permission bits, with set-user-id, set-group-id and sticky.
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New length in bytes.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of contents.
    pub mtime: Option<SetTime>,
    /// Drop set-user-id and set-group-id as part of this change (FATTR_KILL_SUIDGID, FUSE 7.33).
    pub kill_suid_gid: bool,
}

/// How a new node is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Create {
    /// File type and permission bits.
    pub mode: u32,
    /// The caller's umask; to be applied by us when FUSE_DONT_MASK was negotiated, else already applied.
    pub umask: u32,
    /// Linux `O_*` flags (CREATE and TMPFILE; 0 elsewhere).
    pub flags: u32,
    /// Device number in Linux' 32-bit encoding (MKNOD; 0 elsewhere).
    pub device: u32,
}

/// What INIT agreed on, told to the file system before any other operation.
#[derive(Clone, Copy, Debug)]
pub struct Negotiated {
    /// The minor version both sides speak.
    pub minor: u32,
    /// The `FUSE_*` INIT flags in force, both 32-bit words joined.
    pub flags: wire::InitFlags,
}

/// Where a WRITE goes.
#[derive(Clone, Copy, Debug)]
pub struct WriteTo {
    /// The open file.
    pub handle: Handle,
    /// The byte of the file to start at.
    pub offset: u64,
    /// How many bytes; as many are there to be read.
    pub len: u32,
    /// `wire::WRITE_*`.
    pub flags: u32,
    /// Linux `O_*` flags that the open file has now; fcntl(2) in the guest may have changed them since it was opened.
    pub open_flags: u32,
}

/// One range copied between two open files.
#[derive(Clone, Copy, Debug)]
pub struct CopyRange {
    /// Node of the file read, then its handle and offset.
    pub from: (NodeId, Handle, u64),
    /// Node of the file written, then its handle and offset.
    pub to: (NodeId, Handle, u64),
    /// Bytes asked for.
    pub len: u64,
    /// copy_file_range(2) flags, 0 today.
    pub flags: u64,
}

/// A file open for being mapped into the guest.
#[derive(Clone, Debug)]
pub struct Mappable {
    /// The file. All mappings of a node share one descriptor, so that they are known to be of the same file.
    pub file: Arc<OwnedFd>,
    /// Whether it is open for writing.
    pub writable: bool,
}

/// A reply of variable length for READDIR and READDIRPLUS: refuses the entry that no longer fits.
pub trait DirectorySink {
    /// Adds one entry; `offset` is where the next read goes on. `false`: no room left, the entry was not added.
    fn add(&mut self, name: &CStr, inode: u64, kind: u32, offset: u64) -> bool;
    /// Whether an entry of this name would fit, so that no lookup count is taken for one that does not.
    fn fits(&self, name: &CStr) -> bool;
    /// READDIRPLUS: adds one entry with its attributes. `None` as `entry` for `.` and `..`, which take no lookup count.
    fn add_plus(&mut self, name: &CStr, inode: u64, kind: u32, offset: u64, entry: Option<&Entry>) -> bool;
}

/// A value of GETXATTR or LISTXATTR: the bytes, or only their length when the guest asked with size 0.
#[derive(Clone, Debug)]
pub enum XattrReply {
    /// The value itself.
    Value(Vec<u8>),
    /// How long the value is.
    Size(u32),
}

/// The operations of a file system. Every method may be called from several lanes at once. A method left out answers ENOSYS,
/// which makes Linux stop asking.
#[allow(unused_variables, reason = "the defaults answer without looking at their arguments")]
pub trait FileSystem: Send + Sync {
    /// Which of the `offered` INIT flags this file system wants.
    fn wants(&self, offered: wire::InitFlags) -> wire::InitFlags;
    /// A session began with these terms; everything of an earlier session is gone.
    fn init(&self, negotiated: Negotiated) -> Result<()> {
        Ok(())
    }
    /// The session ended (DESTROY, a new INIT, device reset, disconnect): drop all nodes and handles.
    fn destroy(&self) {}
    /// The path of `node` in what is shared, for people to read; starts with `/`. `None`: there is no such node, or it cannot be told.
    /// Only asked when a request failed.
    fn path_of(&self, node: NodeId) -> Option<Vec<u8>> {
        None
    }

    /// Finds `name` in `parent`; ENOENT if it is not there.
    fn lookup(&self, by: &Caller, parent: NodeId, name: Name<'_>) -> Result<Entry> {
        Err(Errno::ENOSYS)
    }
    /// How long the guest may trust that a name which [`lookup`](Self::lookup) did not find is not there.
    fn absence_timeout(&self) -> Duration {
        Duration::ZERO
    }
    /// Takes `count` off the lookup count of `node`; whether that was the end of the node, so that the guest can have nothing of it
    /// mapped any more. Never fails, never blocks on I/O that requests wait for.
    fn forget(&self, node: NodeId, count: u64) -> bool {
        false
    }
    /// Attributes, and how long the guest may trust them.
    fn getattr(&self, by: &Caller, node: NodeId, handle: Option<Handle>) -> Result<(wire::Attr, Duration)> {
        Err(Errno::ENOSYS)
    }
    /// Extended attributes as statx(2) gives them (FUSE 7.39); `mask` is the guest's `STATX_*`.
    fn statx(
        &self,
        by: &Caller,
        node: NodeId,
        handle: Option<Handle>,
        flags: u32,
        mask: u32,
    ) -> Result<(wire::Statx, Duration)> {
        Err(Errno::ENOSYS)
    }
    /// Changes attributes and answers the new ones.
    fn setattr(&self, by: &Caller, node: NodeId, change: &SetAttr) -> Result<(wire::Attr, Duration)> {
        Err(Errno::ENOSYS)
    }
    /// The target of a symbolic link.
    fn readlink(&self, by: &Caller, node: NodeId) -> Result<Vec<u8>> {
        Err(Errno::ENOSYS)
    }
    /// Makes a symbolic link `name` in `parent` to `target`.
    fn symlink(&self, by: &Caller, parent: NodeId, name: Name<'_>, target: &CStr) -> Result<Entry> {
        Err(Errno::ENOSYS)
    }
    /// Makes a file, fifo, socket or device node.
    fn mknod(&self, by: &Caller, parent: NodeId, name: Name<'_>, create: &Create) -> Result<Entry> {
        Err(Errno::ENOSYS)
    }
    /// Makes a directory.
    fn mkdir(&self, by: &Caller, parent: NodeId, name: Name<'_>, create: &Create) -> Result<Entry> {
        Err(Errno::ENOSYS)
    }
    /// Removes a name that is not a directory.
    fn unlink(&self, by: &Caller, parent: NodeId, name: Name<'_>) -> Result<()> {
        Err(Errno::ENOSYS)
    }
    /// Removes an empty directory.
    fn rmdir(&self, by: &Caller, parent: NodeId, name: Name<'_>) -> Result<()> {
        Err(Errno::ENOSYS)
    }
    /// Renames; `flags` are renameat2(2)'s.
    fn rename(&self, by: &Caller, from: (NodeId, Name<'_>), to: (NodeId, Name<'_>), flags: u32) -> Result<()> {
        Err(Errno::ENOSYS)
    }
    /// Makes a hard link to `node`.
    fn link(&self, by: &Caller, node: NodeId, parent: NodeId, name: Name<'_>) -> Result<Entry> {
        Err(Errno::ENOSYS)
    }
    /// Opens a file; `flags` are Linux `O_*`. `kill_suid_gid`: FUSE_OPEN_KILL_SUIDGID.
    fn open(&self, by: &Caller, node: NodeId, flags: u32, kill_suid_gid: bool) -> Result<Opened> {
        Err(Errno::ENOSYS)
    }
    /// Makes and opens a file in one step.
    fn create(
        &self,
        by: &Caller,
        parent: NodeId,
        name: Name<'_>,
        create: &Create,
        kill_suid_gid: bool,
    ) -> Result<(Entry, Opened)> {
        Err(Errno::ENOSYS)
    }
    /// Makes and opens a file without a name in `parent` (FUSE 7.37).
    fn tmpfile(&self, by: &Caller, parent: NodeId, create: &Create) -> Result<(Entry, Opened)> {
        Err(Errno::ENOSYS)
    }
    /// Puts up to `len` bytes at `offset` into `out`; short only at end of file.
    fn read(&self, node: NodeId, handle: Handle, offset: u64, len: u32, out: &mut Writer<'_>) -> Result<()> {
        Err(Errno::ENOSYS)
    }
    /// As `read`, but waits for no disk and no network: puts into `out` what is there, and gives what would wait for the rest.
    fn read_at_once(
        &self,
        node: NodeId,
        handle: Handle,
        offset: u64,
        len: u32,
        out: &mut Writer<'_>,
    ) -> Result<Option<RestOfRead>> {
        self.read(node, handle, offset, len, out).map(|()| None)
    }
    /// Writes the next `to.len` bytes of `data`; answers how many were written.
    fn write(&self, by: &Caller, node: NodeId, to: &WriteTo, data: &mut Reader<'_>) -> Result<u32> {
        Err(Errno::ENOSYS)
    }
    /// A descriptor of the open file was closed in the guest.
    fn flush(&self, node: NodeId, handle: Handle) -> Result<()> {
        Err(Errno::ENOSYS)
    }
    /// The last reference to the handle is gone.
    fn release(&self, node: NodeId, handle: Handle) -> Result<()> {
        Err(Errno::ENOSYS)
    }
    /// Makes contents durable; with `data_only` metadata may lag.
    fn fsync(&self, node: NodeId, handle: Handle, data_only: bool) -> Result<()> {
        Err(Errno::ENOSYS)
    }
    /// Makes the whole share durable (FUSE 7.34).
    fn syncfs(&self, node: NodeId) -> Result<()> {
        Err(Errno::ENOSYS)
    }
    /// Opens a directory.
    fn opendir(&self, by: &Caller, node: NodeId, flags: u32) -> Result<Opened> {
        Err(Errno::ENOSYS)
    }
    /// Lists a directory from `offset` on into `sink`; with `plus` each entry with attributes and a lookup count.
    fn readdir(
        &self,
        by: &Caller,
        node: NodeId,
        handle: Handle,
        offset: u64,
        plus: bool,
        sink: &mut dyn DirectorySink,
    ) -> Result<()> {
        Err(Errno::ENOSYS)
    }
    /// The last reference to the directory handle is gone.
    fn releasedir(&self, node: NodeId, handle: Handle) -> Result<()> {
        Err(Errno::ENOSYS)
    }
    /// Makes a directory's entries durable.
    fn fsyncdir(&self, node: NodeId, handle: Handle, data_only: bool) -> Result<()> {
        Err(Errno::ENOSYS)
    }
    /// Figures of the file system under `node`.
    fn statfs(&self, node: NodeId) -> Result<wire::Statfs> {
        Err(Errno::ENOSYS)
    }
    /// Whether the caller may access; `mask` is access(2)'s.
    fn access(&self, by: &Caller, node: NodeId, mask: u32) -> Result<()> {
        Err(Errno::ENOSYS)
    }
    /// Sets an extended attribute; `flags` are setxattr(2)'s. `kill_sgid`: FUSE_SETXATTR_ACL_KILL_SGID.
    fn setxattr(
        &self,
        by: &Caller,
        node: NodeId,
        name: &CStr,
        value: &[u8],
        flags: u32,
        kill_sgid: bool,
    ) -> Result<()> {
        Err(Errno::ENOSYS)
    }
    /// Reads an extended attribute into at most `size` bytes; 0 asks for the length.
    fn getxattr(&self, by: &Caller, node: NodeId, name: &CStr, size: u32) -> Result<XattrReply> {
        Err(Errno::ENOSYS)
    }
    /// Lists extended attributes into at most `size` bytes; 0 asks for the length.
    fn listxattr(&self, by: &Caller, node: NodeId, size: u32) -> Result<XattrReply> {
        Err(Errno::ENOSYS)
    }
    /// Removes an extended attribute.
    fn removexattr(&self, by: &Caller, node: NodeId, name: &CStr) -> Result<()> {
        Err(Errno::ENOSYS)
    }
    /// Allocates, punches, zeroes, collapses or inserts a range, as fallocate(2) with `mode`.
    fn fallocate(&self, by: &Caller, node: NodeId, handle: Handle, mode: u32, offset: u64, len: u64) -> Result<()> {
        Err(Errno::ENOSYS)
    }
    /// Finds data or holes; `whence` is lseek(2)'s.
    fn lseek(&self, node: NodeId, handle: Handle, offset: u64, whence: u32) -> Result<u64> {
        Err(Errno::ENOSYS)
    }
    /// Copies between two open files on the host.
    fn copy_file_range(&self, by: &Caller, range: &CopyRange) -> Result<u64> {
        Err(Errno::ENOSYS)
    }
    /// Opens a file for mapping, without a handle of the guest: for writing if `write`, and preferably in any case, so that the
    /// mapping need not be replaced when the guest comes to write. Only asked while there is a window.
    fn open_for_mapping(&self, node: NodeId, write: bool) -> Result<Mappable> {
        Err(Errno::ENOSYS)
    }
    /// An ioctl; `input` is what the guest sent, at most `out_size` bytes come back. Unknown commands answer ENOTTY.
    fn ioctl(
        &self,
        by: &Caller,
        node: NodeId,
        handle: Handle,
        command: u32,
        input: &[u8],
        out_size: u32,
    ) -> Result<Vec<u8>> {
        Err(Errno::ENOTTY)
    }
}
