//! Safe wrappers for system calls of the host that rustix does not wrap.

#![expect(
    unsafe_code,
    reason = "raw system calls; every wrapper owns its buffers and checks what comes back"
)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

/// The longest handle that the kernel makes (MAX_HANDLE_SZ).
const HANDLE_MAX: usize = 128;

/// `struct file_handle` with room for the longest handle.
#[repr(C)]
struct RawHandle {
    handle_bytes: u32,
    handle_type: i32,
    bytes: [u8; HANDLE_MAX],
}

/// The kernel's name of an inode: stays valid without an open descriptor and differs for two lives of one inode number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileHandle {
    kind: i32,
    bytes: HandleBytes,
}

/// Those of local file systems are short, and there may be one for each of a million nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum HandleBytes {
    Short(u8, [u8; HANDLE_SHORT]),
    Long(Box<[u8]>),
}

/// As long as a btrfs handle.
const HANDLE_SHORT: usize = 20;

/// `FILEID_INO32_GEN` (linux/exportfs.h) as ext4 and most others fill it: inode and generation. tmpfs has it with three words:
/// generation, and the inode's low and high half.
const INO32_GEN: i32 = 1;
/// XFS: the same with 64 bits of inode.
const INO64_GEN: i32 = 0x81;
/// btrfs: inode, subvolume and generation.
const BTRFS: i32 = 0x4d;
/// The root directory of every subvolume has this number, each on a device of its own.
const BTRFS_SUBVOLUME: u64 = 256;

/// A mount as name_to_handle_at(2) numbers it: used again after the mount is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MountId(libc::c_int);

impl FileHandle {
    /// The handle of the inode behind `fd`, which may be an O_PATH descriptor, and its mount. `EOPNOTSUPP`: the file system has none.
    pub(crate) fn of(fd: BorrowedFd<'_>) -> io::Result<(FileHandle, MountId)> {
        FileHandle::named(fd, c"", libc::AT_EMPTY_PATH)
    }

    /// The handle of what `name` stands for in `directory`, without following it if it is a symbolic link, and its mount.
    pub(crate) fn at(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<(FileHandle, MountId)> {
        FileHandle::named(directory, name, 0)
    }

    fn named(at: BorrowedFd<'_>, name: &CStr, flags: libc::c_int) -> io::Result<(FileHandle, MountId)> {
        let mut raw = RawHandle {
            handle_bytes: HANDLE_MAX as u32,
            handle_type: 0,
            bytes: [0; HANDLE_MAX],
        };
        let mut mount_id: libc::c_int = 0;
        // SAFETY: `raw` has the layout of `struct file_handle` followed by `handle_bytes` bytes, and lives through the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                at.as_raw_fd(),
                name.as_ptr(),
                &raw mut raw,
                &raw mut mount_id,
                flags,
            )
        };
        check(result)?;
        let length = (raw.handle_bytes as usize).min(HANDLE_MAX);
        let handle = FileHandle {
            kind: raw.handle_type,
            bytes: HandleBytes::new(&raw.bytes[..length]),
        };
        Ok((handle, MountId(mount_id)))
    }

    /// The inode's number, where the kind of handle is known to tell it, and that number means one inode of the directory's device.
    pub(crate) fn inode(&self) -> Option<u64> {
        let bytes = self.bytes.as_slice();
        let low = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let long = || Some(u64::from_ne_bytes(bytes.get(..8)?.try_into().ok()?));
        match (self.kind, bytes.len()) {
            (INO32_GEN, 8) => low(0).map(u64::from),
            (INO32_GEN, 12) => Some(u64::from(low(4)?) | u64::from(low(8)?) << 32),
            (INO64_GEN, 12) => long(),
            (BTRFS, 20) => long().filter(|&inode| inode != BTRFS_SUBVOLUME),
            _ => None,
        }
    }

    /// An O_PATH descriptor of the inode on the mount that `mount` (not itself O_PATH) belongs to. `ESTALE`: it is gone.
    pub(crate) fn open_path(&self, mount: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        let bytes = self.bytes.as_slice();
        let mut raw = RawHandle {
            handle_bytes: bytes.len() as u32,
            handle_type: self.kind,
            bytes: [0; HANDLE_MAX],
        };
        raw.bytes[..bytes.len()].copy_from_slice(bytes);
        // SAFETY: `raw` has the layout of `struct file_handle` followed by `handle_bytes` bytes, and lives through the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_open_by_handle_at,
                mount.as_raw_fd(),
                &raw mut raw,
                libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC,
            )
        };
        let fd = check(result)?;
        // SAFETY: the kernel has just made this descriptor for us, nobody else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }
}

impl HandleBytes {
    /// At most [`HANDLE_MAX`] bytes.
    fn new(bytes: &[u8]) -> HandleBytes {
        let mut short = [0; HANDLE_SHORT];
        match short.get_mut(..bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                HandleBytes::Short(bytes.len() as u8, short)
            }
            None => HandleBytes::Long(bytes.into()),
        }
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            HandleBytes::Short(length, bytes) => &bytes[..usize::from(*length).min(HANDLE_SHORT)],
            HandleBytes::Long(bytes) => bytes,
        }
    }
}

/// Gives the calling thread a working directory and umask of its own.
pub(crate) fn unshare_fs() -> io::Result<()> {
    // SAFETY: CLONE_FS touches working directory, root and umask alone, no memory and no descriptors.
    check(unsafe { libc::unshare(libc::CLONE_FS) }.into()).map(drop)
}

/// truncate(2): sets the length of a regular file.
pub(crate) fn truncate(path: &CStr, length: i64) -> io::Result<()> {
    // SAFETY: `path` is a terminated string that lives through the call.
    check(unsafe { libc::truncate64(path.as_ptr(), length) }.into()).map(drop)
}

/// An ioctl that reads or writes one `T` through its pointer.
fn ioctl_with<T>(fd: BorrowedFd<'_>, command: u32, argument: &mut T) -> io::Result<()> {
    // SAFETY: private to this module; each caller pairs a command with the type that the kernel reads or writes for it.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), command as libc::Ioctl, argument as *mut T) };
    check(result.into()).map(drop)
}

/// `struct fsxattr` as bytes: five `u32` fields and eight bytes of padding.
pub(crate) type FsXattr = [u8; 28];

// _IOC(direction, 'f' or 'X', number, size) of linux/fs.h. The size in the first two says `long`, the kernel moves an `int`.
pub(crate) const FS_IOC_GETFLAGS: u32 = ioc(2, b'f', 1, size_of::<libc::c_long>());
pub(crate) const FS_IOC_SETFLAGS: u32 = ioc(1, b'f', 2, size_of::<libc::c_long>());
pub(crate) const FS_IOC_FSGETXATTR: u32 = ioc(2, b'X', 31, size_of::<FsXattr>());
pub(crate) const FS_IOC_FSSETXATTR: u32 = ioc(1, b'X', 32, size_of::<FsXattr>());

// On architectures with another layout (MIPS, PowerPC, SPARC) this does not build.
const _: () = assert!(FS_IOC_GETFLAGS as libc::Ioctl == libc::FS_IOC_GETFLAGS);
const _: () = assert!(FS_IOC_SETFLAGS as libc::Ioctl == libc::FS_IOC_SETFLAGS);

/// The number of an ioctl as most architectures build it (asm-generic/ioctl.h).
const fn ioc(direction: u32, group: u8, number: u32, size: usize) -> u32 {
    direction << 30 | (size as u32) << 16 | (group as u32) << 8 | number
}

/// `struct fuse_backing_map` of linux/fuse.h.
#[repr(C)]
struct BackingMap {
    fd: i32,
    flags: u32,
    padding: u64,
}

const FUSE_DEV_IOC_BACKING_OPEN: u32 = ioc(1, 229, 1, size_of::<BackingMap>());
const FUSE_DEV_IOC_BACKING_CLOSE: u32 = ioc(1, 229, 2, size_of::<u32>());

/// Makes `file` known to the FUSE connection `device` as one to hand requests on to, and answers the number it has there.
pub(crate) fn fuse_backing_open(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<u32> {
    let map = BackingMap {
        fd: file.as_raw_fd(),
        flags: 0,
        padding: 0,
    };
    // SAFETY: the kernel reads one `struct fuse_backing_map`, whose layout `map` has, and which lives through the call.
    let result = unsafe {
        libc::ioctl(
            device.as_raw_fd(),
            FUSE_DEV_IOC_BACKING_OPEN as libc::Ioctl,
            &raw const map,
        )
    };
    check(result.into()).map(|number| number as u32)
}

/// Ends [`fuse_backing_open`]; files opened with that number stay.
pub(crate) fn fuse_backing_close(device: BorrowedFd<'_>, mut number: u32) -> io::Result<()> {
    ioctl_with(device, FUSE_DEV_IOC_BACKING_CLOSE, &mut number)
}

/// The inode flags that lsattr(1) shows.
pub(crate) fn inode_flags(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut flags = 0u32;
    ioctl_with(fd, FS_IOC_GETFLAGS, &mut flags)?;
    Ok(flags)
}

/// Sets the inode flags that chattr(1) sets.
pub(crate) fn set_inode_flags(fd: BorrowedFd<'_>, mut flags: u32) -> io::Result<()> {
    ioctl_with(fd, FS_IOC_SETFLAGS, &mut flags)
}

/// The `struct fsxattr` of a file (project id, extent size hint, flags).
pub(crate) fn fsxattr(fd: BorrowedFd<'_>) -> io::Result<FsXattr> {
    let mut value = FsXattr::default();
    ioctl_with(fd, FS_IOC_FSGETXATTR, &mut value)?;
    Ok(value)
}

/// Sets the `struct fsxattr` of a file.
pub(crate) fn set_fsxattr(fd: BorrowedFd<'_>, mut value: FsXattr) -> io::Result<()> {
    ioctl_with(fd, FS_IOC_FSSETXATTR, &mut value)
}

/// -1 becomes the errno.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// getdents64(2): the next entries of a directory as `struct linux_dirent64` records; 0 at its end.
pub(crate) fn directory_entries(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`, which we borrow exclusively.
    let length =
        check(unsafe { libc::syscall(libc::SYS_getdents64, fd.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) })?;
    Ok(length as usize)
}

/// What mmap(2) says to a shared mapping of `fd`: ENODEV where files cannot be mapped (procfs, some FUSE).
pub(crate) fn check_mappable(fd: BorrowedFd<'_>) -> io::Result<()> {
    let page = rustix::param::page_size();
    // SAFETY: a new mapping at a place of the kernel's choice.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            page,
            libc::PROT_READ,
            libc::MAP_SHARED,
            fd.as_raw_fd(),
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: exactly the mapping made above, to which nothing refers.
    check(unsafe { libc::munmap(address, page) }.into()).map(drop)
}

/// How many pages of a range of `fd`'s file the page cache has, those that are still being read among them (cachestat(2)). `ENOSYS`
/// before Linux 6.5; `EPERM` for files that the daemon could not write.
pub(crate) fn pages_in_cache(fd: BorrowedFd<'_>, offset: u64, length: u64) -> io::Result<u64> {
    /// The number that all architectures have for it but Alpha (asm-generic/unistd.h).
    const SYS_CACHESTAT: libc::c_long = 451;
    /// `struct cachestat_range`.
    #[repr(C)]
    struct Range {
        offset: u64,
        length: u64,
    }
    /// `struct cachestat`.
    #[repr(C)]
    #[derive(Default)]
    struct Statistics {
        cached: u64,
        dirty: u64,
        writeback: u64,
        evicted: u64,
        recently_evicted: u64,
    }
    let range = Range { offset, length };
    let mut statistics = Statistics::default();
    // SAFETY: both structures have the kernel's layout and live through the call.
    check(unsafe { libc::syscall(SYS_CACHESTAT, fd.as_raw_fd(), &raw const range, &raw mut statistics, 0) })?;
    Ok(statistics.cached)
}

/// close(2) with its result: file systems without a cache of their own report there what went wrong.
pub(crate) fn close(fd: OwnedFd) -> io::Result<()> {
    // SAFETY: `fd` was ours alone and is given up here, whatever close(2) says.
    check(unsafe { libc::close(fd.into_raw_fd()) }.into()).map(drop)
}
