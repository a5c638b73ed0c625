//! The structures, operation codes and flags of FUSE 7.31 to 7.45, with the layout of Linux'
//! `include/uapi/linux/fuse.h`.
//!
//! Everything is in host byte order: a guest with the other byte order is refused at INIT.

#![allow(
    missing_docs,
    reason = "fields and flags bear the names of fuse.h, where their meaning is written"
)]

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The one major version there is.
pub const MAJOR: u32 = 7;
/// The newest minor version we speak.
pub const MINOR: u32 = 45;
/// The oldest minor version we speak: the first with virtio-fs (Linux 5.4).
pub const MINOR_OLDEST: u32 = 31;

/// Defines wire structures, each with its size: `IntoBytes` proves that no padding hides in them, the assertion that none was
/// forgotten.
macro_rules! wire {
    ($($(#[$doc:meta])* $name:ident = $size:literal { $($field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        pub struct $name { $(pub $field: $type,)* }
        const _: () = assert!(size_of::<$name>() == $size);
    )*};
}

wire! {
    /// Starts every request.
    InHeader = 40 { len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32, total_extlen: u16, padding: u16, }
    /// Starts every reply; `error` is 0 or a negative errno.
    OutHeader = 16 { len: u32, error: i32, unique: u64, }

    /// What stat(2) tells of a node; `flags` are `ATTR_*`.
    Attr = 88 {
        ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64, atimensec: u32, mtimensec: u32, ctimensec: u32,
        mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32, blksize: u32, flags: u32,
    }
    /// A time within [`Statx`].
    StatxTime = 16 { tv_sec: i64, tv_nsec: u32, reserved: i32, }
    /// What statx(2) tells of a node, bit for bit (FUSE 7.39).
    Statx = 256 {
        mask: u32, blksize: u32, attributes: u64, nlink: u32, uid: u32, gid: u32, mode: u16, spare0: u16, ino: u64, size: u64,
        blocks: u64, attributes_mask: u64, atime: StatxTime, btime: StatxTime, ctime: StatxTime, mtime: StatxTime,
        rdev_major: u32, rdev_minor: u32, dev_major: u32, dev_minor: u32, spare2: [u64; 14],
    }
    /// What statfs(2) tells of a file system.
    Statfs = 80 {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, bsize: u32, namelen: u32, frsize: u32, padding: u32,
        spare: [u32; 6],
    }

    /// FORGET.
    ForgetIn = 8 { nlookup: u64, }
    /// BATCH_FORGET, followed by `count` times [`ForgetOne`].
    BatchForgetIn = 8 { count: u32, dummy: u32, }
    /// One node of BATCH_FORGET.
    ForgetOne = 16 { nodeid: u64, nlookup: u64, }
    /// GETATTR; `fh` counts if [`GETATTR_FH`] is set.
    GetattrIn = 16 { getattr_flags: u32, dummy: u32, fh: u64, }
    /// STATX.
    StatxIn = 24 { getattr_flags: u32, reserved: u32, fh: u64, sx_flags: u32, sx_mask: u32, }
    /// SETATTR; `valid` is `FATTR_*`.
    SetattrIn = 88 {
        valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64, atime: u64, mtime: u64, ctime: u64, atimensec: u32,
        mtimensec: u32, ctimensec: u32, mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    }
    /// MKNOD, followed by the name.
    MknodIn = 16 { mode: u32, rdev: u32, umask: u32, padding: u32, }
    /// MKDIR, followed by the name.
    MkdirIn = 8 { mode: u32, umask: u32, }
    /// RENAME, followed by the old and the new name.
    RenameIn = 8 { newdir: u64, }
    /// RENAME2, followed by the old and the new name.
    Rename2In = 16 { newdir: u64, flags: u32, padding: u32, }
    /// LINK, followed by the new name.
    LinkIn = 8 { oldnodeid: u64, }
    /// OPEN and OPENDIR; `open_flags` is [`OPEN_KILL_SUIDGID`].
    OpenIn = 8 { flags: u32, open_flags: u32, }
    /// CREATE, followed by the name, and TMPFILE, followed by a name without meaning.
    CreateIn = 16 { flags: u32, mode: u32, umask: u32, open_flags: u32, }
    /// RELEASE and RELEASEDIR.
    ReleaseIn = 24 { fh: u64, flags: u32, release_flags: u32, lock_owner: u64, }
    /// FLUSH.
    FlushIn = 24 { fh: u64, unused: u32, padding: u32, lock_owner: u64, }
    /// READ, READDIR and READDIRPLUS.
    ReadIn = 40 { fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32, }
    /// WRITE, followed by `size` bytes; `write_flags` are `WRITE_*`.
    WriteIn = 40 { fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32, }
    /// FSYNC and FSYNCDIR.
    FsyncIn = 16 { fh: u64, fsync_flags: u32, padding: u32, }
    /// SETXATTR with SETXATTR_EXT in force, followed by name and value.
    SetxattrIn = 16 { size: u32, flags: u32, setxattr_flags: u32, padding: u32, }
    /// SETXATTR without SETXATTR_EXT, followed by name and value.
    SetxattrShortIn = 8 { size: u32, flags: u32, }
    /// GETXATTR, followed by the name, and LISTXATTR.
    GetxattrIn = 8 { size: u32, padding: u32, }
    /// ACCESS.
    AccessIn = 8 { mask: u32, padding: u32, }
    /// INIT with INIT_EXT.
    InitIn = 64 { major: u32, minor: u32, max_readahead: u32, flags: u32, flags2: u32, unused: [u32; 11], }
    /// INIT before FUSE 7.36, and the start of every later one.
    InitShortIn = 16 { major: u32, minor: u32, max_readahead: u32, flags: u32, }
    /// IOCTL, followed by `in_size` bytes; `flags` are `IOCTL_*`.
    IoctlIn = 32 { fh: u64, flags: u32, cmd: u32, arg: u64, in_size: u32, out_size: u32, }
    /// FALLOCATE.
    FallocateIn = 32 { fh: u64, offset: u64, length: u64, mode: u32, padding: u32, }
    /// LSEEK.
    LseekIn = 24 { fh: u64, offset: u64, whence: u32, padding: u32, }
    /// COPY_FILE_RANGE and COPY_FILE_RANGE_64.
    CopyFileRangeIn = 56 { fh_in: u64, off_in: u64, nodeid_out: u64, fh_out: u64, off_out: u64, len: u64, flags: u64, }
    /// SETUPMAPPING; `flags` are `SETUPMAPPING_*`, `moffset` is where in the window. `fh` has no meaning: Linux sends none.
    SetupmappingIn = 40 { fh: u64, foffset: u64, len: u64, flags: u64, moffset: u64, }
    /// REMOVEMAPPING, followed by `count` times [`RemovemappingOne`].
    RemovemappingIn = 4 { count: u32, }
    /// One range of the window in REMOVEMAPPING.
    RemovemappingOne = 16 { moffset: u64, len: u64, }
    /// SYNCFS.
    SyncfsIn = 8 { padding: u64, }

    /// Starts one extension of a request (FUSE 7.38); `size` counts the header. A `kind` up to [`EXT_SECURITY_CONTEXTS_MAX`] is
    /// the number of security contexts that follow.
    ExtHeader = 8 { size: u32, kind: u32, }

    /// Answers INIT; `time_gran` in nanoseconds, `map_alignment` as log2.
    InitOut = 64 {
        major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16, congestion_threshold: u16, max_write: u32,
        time_gran: u32, max_pages: u16, map_alignment: u16, flags2: u32, max_stack_depth: u32, request_timeout: u16,
        unused: [u16; 11],
    }
    /// Answers LOOKUP and all that makes a node.
    EntryOut = 128 {
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64, entry_valid_nsec: u32, attr_valid_nsec: u32, attr: Attr,
    }
    /// Answers GETATTR and SETATTR.
    AttrOut = 104 { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: Attr, }
    /// Answers STATX.
    StatxOut = 288 { attr_valid: u64, attr_valid_nsec: u32, flags: u32, spare: [u64; 2], stat: Statx, }
    /// Answers OPEN and OPENDIR, and follows the entry in CREATE and TMPFILE; `open_flags` are `FOPEN_*`.
    OpenOut = 16 { fh: u64, open_flags: u32, backing_id: i32, }
    /// Answers WRITE and COPY_FILE_RANGE.
    WriteOut = 8 { size: u32, padding: u32, }
    /// Answers GETXATTR and LISTXATTR of size 0.
    GetxattrOut = 8 { size: u32, padding: u32, }
    /// Answers IOCTL, followed by the output.
    IoctlOut = 16 { result: i32, flags: u32, in_iovs: u32, out_iovs: u32, }
    /// Answers LSEEK.
    LseekOut = 8 { offset: u64, }
    /// Answers COPY_FILE_RANGE_64.
    CopyFileRangeOut = 8 { bytes_copied: u64, }
    /// One entry of READDIR, followed by `namelen` bytes and zeros up to a multiple of 8; READDIRPLUS puts an [`EntryOut`] first.
    Dirent = 24 { ino: u64, off: u64, namelen: u32, kind: u32, }
}

/// Defines the operation codes and the way from a number to one.
macro_rules! opcodes {
    ($($name:ident = $number:literal,)*) => {
        /// What a request asks for.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Opcode { $($name = $number,)* }

        impl Opcode {
            /// All that fuse.h knows, in the order of their numbers.
            pub const ALL: &[Opcode] = &[$(Opcode::$name,)*];

            /// The operation of this number, if FUSE 7.45 has it.
            pub fn from_number(number: u32) -> Option<Opcode> {
                match number {
                    $($number => Some(Opcode::$name),)*
                    _ => None,
                }
            }

            /// Its name in fuse.h without `FUSE_`, such as `COPY_FILE_RANGE`.
            pub fn name(self) -> String {
                let mut name = String::new();
                for letter in format!("{self:?}").chars() {
                    if letter.is_ascii_uppercase() && !name.is_empty() {
                        name.push('_');
                    }
                    name.push(letter.to_ascii_uppercase());
                }
                name.replace("RANGE64", "RANGE_64")
            }
        }
    };
}
opcodes! {
    Lookup = 1, Forget = 2, Getattr = 3, Setattr = 4, Readlink = 5, Symlink = 6, Mknod = 8, Mkdir = 9, Unlink = 10, Rmdir = 11,
    Rename = 12, Link = 13, Open = 14, Read = 15, Write = 16, Statfs = 17, Release = 18, Fsync = 20, Setxattr = 21, Getxattr = 22,
    Listxattr = 23, Removexattr = 24, Flush = 25, Init = 26, Opendir = 27, Readdir = 28, Releasedir = 29, Fsyncdir = 30,
    Getlk = 31, Setlk = 32, Setlkw = 33, Access = 34, Create = 35, Interrupt = 36, Bmap = 37, Destroy = 38, Ioctl = 39, Poll = 40,
    NotifyReply = 41, BatchForget = 42, Fallocate = 43, Readdirplus = 44, Rename2 = 45, Lseek = 46, CopyFileRange = 47,
    Setupmapping = 48, Removemapping = 49, Syncfs = 50, Tmpfile = 51, Statx = 52, CopyFileRange64 = 53,
}

/// [`Opcode::Init`] as a guest of the other byte order sends it.
pub const INIT_OTHER_ENDIAN: u32 = (Opcode::Init as u32).swap_bytes();

/// The header of a request, as it is to a guest of the other byte order.
pub(crate) fn in_other_order(header: &InHeader) -> InHeader {
    InHeader {
        len: header.len.swap_bytes(),
        opcode: header.opcode.swap_bytes(),
        unique: header.unique.swap_bytes(),
        nodeid: header.nodeid.swap_bytes(),
        uid: header.uid.swap_bytes(),
        gid: header.gid.swap_bytes(),
        pid: header.pid.swap_bytes(),
        total_extlen: header.total_extlen.swap_bytes(),
        padding: header.padding.swap_bytes(),
    }
}

bitflags! {
    /// What INIT negotiates: `flags` in the low half, `flags2` in the high half.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct InitFlags: u64 {
        const ASYNC_READ = 1;
        const POSIX_LOCKS = 1 << 1;
        const FILE_OPS = 1 << 2;
        const ATOMIC_O_TRUNC = 1 << 3;
        const EXPORT_SUPPORT = 1 << 4;
        const BIG_WRITES = 1 << 5;
        const DONT_MASK = 1 << 6;
        const SPLICE_WRITE = 1 << 7;
        const SPLICE_MOVE = 1 << 8;
        const SPLICE_READ = 1 << 9;
        const FLOCK_LOCKS = 1 << 10;
        const HAS_IOCTL_DIR = 1 << 11;
        const AUTO_INVAL_DATA = 1 << 12;
        const DO_READDIRPLUS = 1 << 13;
        const READDIRPLUS_AUTO = 1 << 14;
        const ASYNC_DIO = 1 << 15;
        const WRITEBACK_CACHE = 1 << 16;
        const NO_OPEN_SUPPORT = 1 << 17;
        const PARALLEL_DIROPS = 1 << 18;
        const HANDLE_KILLPRIV = 1 << 19;
        const POSIX_ACL = 1 << 20;
        const ABORT_ERROR = 1 << 21;
        const MAX_PAGES = 1 << 22;
        const CACHE_SYMLINKS = 1 << 23;
        const NO_OPENDIR_SUPPORT = 1 << 24;
        const EXPLICIT_INVAL_DATA = 1 << 25;
        const MAP_ALIGNMENT = 1 << 26;
        const SUBMOUNTS = 1 << 27;
        const HANDLE_KILLPRIV_V2 = 1 << 28;
        const SETXATTR_EXT = 1 << 29;
        const INIT_EXT = 1 << 30;
        const SECURITY_CTX = 1 << 32;
        const HAS_INODE_DAX = 1 << 33;
        const CREATE_SUPP_GROUP = 1 << 34;
        const HAS_EXPIRE_ONLY = 1 << 35;
        const DIRECT_IO_ALLOW_MMAP = 1 << 36;
        const PASSTHROUGH = 1 << 37;
        const NO_EXPORT_SUPPORT = 1 << 38;
        const HAS_RESEND = 1 << 39;
        const ALLOW_IDMAP = 1 << 40;
        const OVER_IO_URING = 1 << 41;
        const REQUEST_TIMEOUT = 1 << 42;
    }
}

impl InitFlags {
    /// Joins the two words of INIT; bits that FUSE 7.45 does not know are dropped.
    pub fn from_words(flags: u32, flags2: u32) -> Self {
        Self::from_bits_truncate(u64::from(flags) | u64::from(flags2) << 32)
    }

    /// `flags` and `flags2`.
    pub fn words(self) -> (u32, u32) {
        (self.bits() as u32, (self.bits() >> 32) as u32)
    }
}

/// [`SetattrIn::valid`]: which attributes to change.
pub const FATTR_MODE: u32 = 1;
pub const FATTR_UID: u32 = 1 << 1;
pub const FATTR_GID: u32 = 1 << 2;
pub const FATTR_SIZE: u32 = 1 << 3;
pub const FATTR_ATIME: u32 = 1 << 4;
pub const FATTR_MTIME: u32 = 1 << 5;
pub const FATTR_FH: u32 = 1 << 6;
pub const FATTR_ATIME_NOW: u32 = 1 << 7;
pub const FATTR_MTIME_NOW: u32 = 1 << 8;
pub const FATTR_LOCKOWNER: u32 = 1 << 9;
pub const FATTR_CTIME: u32 = 1 << 10;
pub const FATTR_KILL_SUIDGID: u32 = 1 << 11;

/// [`OpenOut::open_flags`]: how the guest is to treat the open file.
pub const FOPEN_DIRECT_IO: u32 = 1;
pub const FOPEN_KEEP_CACHE: u32 = 1 << 1;
pub const FOPEN_NONSEEKABLE: u32 = 1 << 2;
pub const FOPEN_CACHE_DIR: u32 = 1 << 3;
pub const FOPEN_STREAM: u32 = 1 << 4;
pub const FOPEN_NOFLUSH: u32 = 1 << 5;
pub const FOPEN_PARALLEL_DIRECT_WRITES: u32 = 1 << 6;
pub const FOPEN_PASSTHROUGH: u32 = 1 << 7;

/// [`GetattrIn::getattr_flags`]: `fh` is an open file.
pub const GETATTR_FH: u32 = 1;
/// [`WriteIn::write_flags`].
pub const WRITE_CACHE: u32 = 1;
pub const WRITE_LOCKOWNER: u32 = 1 << 1;
pub const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// [`FsyncIn::fsync_flags`]: contents only.
pub const FSYNC_FDATASYNC: u32 = 1;
/// [`Attr::flags`]: the node is the root of a submount.
pub const ATTR_SUBMOUNT: u32 = 1;
/// [`Attr::flags`]: use DAX for this file.
pub const ATTR_DAX: u32 = 1 << 1;
/// [`OpenIn::open_flags`] and [`CreateIn::open_flags`]: drop set-user-id and set-group-id on truncation.
pub const OPEN_KILL_SUIDGID: u32 = 1;
/// [`SetxattrIn::setxattr_flags`]: drop set-group-id along with the new ACL.
pub const SETXATTR_ACL_KILL_SGID: u32 = 1;
/// [`IoctlIn::flags`].
pub const IOCTL_COMPAT: u32 = 1;
pub const IOCTL_UNRESTRICTED: u32 = 1 << 1;
pub const IOCTL_RETRY: u32 = 1 << 2;
pub const IOCTL_32BIT: u32 = 1 << 3;
pub const IOCTL_DIR: u32 = 1 << 4;
pub const IOCTL_COMPAT_X32: u32 = 1 << 5;

/// [`SetupmappingIn::flags`]: the guest may write.
pub const SETUPMAPPING_WRITE: u64 = 1;
/// [`SetupmappingIn::flags`]: the guest may read, as it may in any case.
pub const SETUPMAPPING_READ: u64 = 1 << 1;

/// The largest [`ExtHeader::kind`] that counts security contexts.
pub const EXT_SECURITY_CONTEXTS_MAX: u32 = 31;
/// [`ExtHeader::kind`]: a u32 count and as many u32 group ids follow.
pub const EXT_GROUPS: u32 = 32;

/// Length of a variable record as it lies in a reply or request: the next multiple of 8.
pub const fn record_length(length: usize) -> usize {
    length.next_multiple_of(8)
}
