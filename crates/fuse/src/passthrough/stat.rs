//! statx(2): attributes of an inode, and their form in FUSE.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Statx, StatxFlags, StatxTimestamp, statx};

use super::syscall_text;
use crate::cause::HostResult as _;
use crate::fs::{Name, Result};
use crate::wire;

/// Asks for a mount id that is never used twice (Linux 6.8); without it, STATX_MNT_ID gives one that may be.
const STATX_MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
/// A descriptor itself, whatever it is of.
pub(super) const ITSELF: AtFlags = AtFlags::EMPTY_PATH.union(AtFlags::SYMLINK_NOFOLLOW);

/// What [`of`] asks for: what tells an inode from all others, besides what the guest wants to know.
const ALL: StatxFlags = StatxFlags::BASIC_STATS
    .union(StatxFlags::BTIME)
    .union(StatxFlags::MNT_ID)
    .union(STATX_MNT_ID_UNIQUE);

/// Attributes of the inode behind `fd`, with its mount.
pub(super) fn of(fd: BorrowedFd<'_>) -> Result<Statx> {
    statx(fd, c"", ITSELF, ALL).of(|| format!("statx(node, \"\", {})", syscall_text::statx(ITSELF)))
}

/// The same of what `name` stands for in `directory`, be it a symbolic link or a mount point.
pub(super) fn of_name(directory: BorrowedFd<'_>, name: Name<'_>) -> Result<Statx> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let name = name.as_c_str();
    statx(directory, name, flags, ALL).of(|| {
        format!(
            "statx(parent, {}, {})",
            syscall_text::Quoted(name),
            syscall_text::statx(flags)
        )
    })
}

/// Kind, mode and group of the inode behind `fd`, without asking a server for what is known: fstat(2) has NFS write back what is dirty.
pub(super) fn cached(fd: BorrowedFd<'_>) -> Result<Statx> {
    let flags = ITSELF | AtFlags::STATX_DONT_SYNC;
    let wanted = StatxFlags::TYPE | StatxFlags::MODE | StatxFlags::GID;
    statx(fd, c"", flags, wanted).of(|| format!("statx(node, \"\", {})", syscall_text::statx(flags)))
}

/// What stat(2) tells, as FUSE carries it.
pub(super) fn to_wire(stat: &Statx) -> wire::Attr {
    wire::Attr {
        ino: stat.stx_ino,
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        atime: stat.stx_atime.tv_sec as u64,
        mtime: stat.stx_mtime.tv_sec as u64,
        ctime: stat.stx_ctime.tv_sec as u64,
        atimensec: stat.stx_atime.tv_nsec,
        mtimensec: stat.stx_mtime.tv_nsec,
        ctimensec: stat.stx_ctime.tv_nsec,
        mode: stat.stx_mode.into(),
        nlink: stat.stx_nlink,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        rdev: device_to_wire(stat.stx_rdev_major, stat.stx_rdev_minor),
        blksize: stat.stx_blksize,
        flags: 0,
    }
}

/// Linux' 32-bit device number: 12 bits of major, 20 bits of minor, in three parts.
fn device_to_wire(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & 0xfff00) << 12
}

/// Major and minor of a 32-bit device number.
pub(super) fn device_from_wire(device: u32) -> (u32, u32) {
    (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00)
}

/// What statx(2) tells, as FUSE carries it.
pub(super) fn statx_to_wire(stat: &Statx) -> wire::Statx {
    let time = |time: StatxTimestamp| wire::StatxTime {
        tv_sec: time.tv_sec,
        tv_nsec: time.tv_nsec,
        reserved: 0,
    };
    wire::Statx {
        mask: stat.stx_mask & (StatxFlags::BASIC_STATS | StatxFlags::BTIME).bits(),
        blksize: stat.stx_blksize,
        attributes: stat.stx_attributes.bits(),
        nlink: stat.stx_nlink,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        mode: stat.stx_mode,
        ino: stat.stx_ino,
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        attributes_mask: stat.stx_attributes_mask.bits(),
        atime: time(stat.stx_atime),
        btime: time(stat.stx_btime),
        ctime: time(stat.stx_ctime),
        mtime: time(stat.stx_mtime),
        rdev_major: stat.stx_rdev_major,
        rdev_minor: stat.stx_rdev_minor,
        dev_major: stat.stx_dev_major,
        dev_minor: stat.stx_dev_minor,
        ..wire::Statx::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_survive_the_wire() {
        for device in [(0, 0), (1, 3), (8, 255), (8, 256), (0xfff, 0xfffff), (259, 0x12345)] {
            assert_eq!(device_from_wire(device_to_wire(device.0, device.1)), device);
        }
        assert_eq!(device_to_wire(8, 1), 0x801, "as old stat(2) shows it");
    }
}
