//! /dev/fuse, and a mount that is served through it.
#![expect(unsafe_code, reason = "an ioctl has no safe wrapper among our dependencies")]

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, open, statx};
use rustix::io::Errno;
use rustix::ioctl::{Setter, ioctl, opcode};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

/// `FUSE_DEV_IOC_CLONE` of linux/fuse.h.
const CLONE: u32 = opcode::read::<u32>(229, 0);

/// A new connection to the kernel, not yet that of a mount.
pub(super) fn connect() -> rustix::io::Result<OwnedFd> {
    open(
        "/dev/fuse",
        OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// One more descriptor of the connection `device`, for another thread: a reply goes where its request was read.
pub(super) fn duplicate(device: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let duplicate = connect()?;
    let number = device.as_raw_fd().cast_unsigned();
    // SAFETY: this ioctl takes a pointer to one u32, which it reads.
    let clone = unsafe { Setter::<CLONE, u32>::new(number) };
    // SAFETY: as said; no memory of ours changes.
    unsafe { ioctl(&duplicate, clone) }?;
    Ok(duplicate)
}

/// Mounts the connection, attached nowhere yet. Permissions are checked by the kernel, for every user (`allow_other`), as in a
/// virtual machine. Like what fusermount mounts, it has neither devices nor set-user-id programs: whoever runs the daemon is not
/// trusted with these.
pub(super) fn mount(device: BorrowedFd<'_>, source: &Path) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", source)?;
    let device = device.as_raw_fd().to_string();
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    for (key, value) in [
        ("subtype", "innkeeper"),
        ("fd", &device),
        ("rootmode", "40000"),
        ("user_id", &user.as_raw().to_string()),
        ("group_id", &group.as_raw().to_string()),
    ] {
        fsconfig_set_string(&context, key, value)?;
    }
    for flag in ["default_permissions", "allow_other"] {
        fsconfig_set_flag(&context, flag)?;
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Attaches what [`mount`] made to the directory `mountpoint`, and answers by which number the mount is known there.
pub(super) fn attach(mount: &OwnedFd, mountpoint: &Path) -> rustix::io::Result<u64> {
    move_mount(mount, "", CWD, mountpoint, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    mount_number(mountpoint)
}

/// How a [`detach`] went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detached {
    /// Gone.
    Wholly,
    /// No path leads there any more, but somebody still works in it.
    Lazily,
    /// Not at all: another mount is on top of it, which is not ours to unmount.
    Covered,
}

/// Takes the mount known as `number` off `mountpoint`. Somebody else may have done so before, lazily.
pub(super) fn detach(mountpoint: &Path, number: u64) -> io::Result<Detached> {
    let there = mount_number(mountpoint);
    if there != Ok(number) {
        let attached = is_attached(&fs::read_to_string("/proc/thread-self/mountinfo")?, number);
        return match there {
            _ if !attached => Ok(Detached::Lazily),
            Ok(_) => Ok(Detached::Covered),
            Err(errno) => Err(errno.into()),
        };
    }
    let detached = match unmount(mountpoint, UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(Detached::Wholly),
        Err(Errno::BUSY) => {
            unmount(mountpoint, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH).map(|()| Detached::Lazily)
        }
        Err(error) => Err(error),
    };
    Ok(detached?)
}

/// Whether `mountinfo` (see proc(5)) has a mount of that number.
fn is_attached(mountinfo: &str, number: u64) -> bool {
    let mut numbers = mountinfo.lines().filter_map(|line| line.split(' ').next());
    numbers.any(|first| first.parse() == Ok(number))
}

/// The mount that `path` is in. Asks no file system: the daemon behind it may hang.
fn mount_number(path: &Path) -> rustix::io::Result<u64> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
    Ok(statx(CWD, path, flags, StatxFlags::MNT_ID)?.stx_mnt_id)
}
