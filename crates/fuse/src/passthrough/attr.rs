//! Attributes of nodes and figures of their file systems.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::fs::{
    Access, AtFlags, FileType, Gid, Mode, Statx, StatxFlags, StatxTimestamp, Timespec, Timestamps, Uid, accessat,
    chmodat, chownat, fstatvfs, ftruncate, makedev, statx, utimensat,
};

use super::handle::Opened;
use super::inode::{Node, Place};
use super::procfs::FdName;
use super::{Passthrough, syscall_text};
use crate::cause::HostResult as _;
use crate::fs::{Caller, Errno, Handle, Name, NodeId, Result, SetAttr, SetTime};
use crate::sys;
use crate::wire::{self, InitFlags};

/// Asks for a mount id that is never used twice (Linux 6.8); without it, STATX_MNT_ID gives one that may be.
const STATX_MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
/// A descriptor itself, whatever it is of.
const ITSELF: AtFlags = AtFlags::EMPTY_PATH.union(AtFlags::SYMLINK_NOFOLLOW);

/// What [`stat`] asks for: what tells an inode from all others, besides what the guest wants to know.
const ALL: StatxFlags = StatxFlags::BASIC_STATS
    .union(StatxFlags::BTIME)
    .union(StatxFlags::MNT_ID)
    .union(STATX_MNT_ID_UNIQUE);

/// Attributes of the inode behind `fd`, with its mount.
pub(super) fn stat(fd: BorrowedFd<'_>) -> Result<Statx> {
    statx(fd, c"", ITSELF, ALL).of(|| format!("statx(node, \"\", {})", syscall_text::statx(ITSELF)))
}

/// The same of what `name` stands for in `directory`, be it a symbolic link or a mount point.
pub(super) fn stat_at(directory: BorrowedFd<'_>, name: Name<'_>) -> Result<Statx> {
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
pub(super) fn stat_cached(fd: BorrowedFd<'_>) -> Result<Statx> {
    let flags = ITSELF | AtFlags::STATX_DONT_SYNC;
    let wanted = StatxFlags::TYPE | StatxFlags::MODE | StatxFlags::GID;
    statx(fd, c"", flags, wanted).of(|| format!("statx(node, \"\", {})", syscall_text::statx(flags)))
}

/// Where the inode lies that [`stat`] found.
pub(super) fn place(stat: &Statx) -> Place {
    Place {
        device: makedev(stat.stx_dev_major, stat.stx_dev_minor),
        inode: stat.stx_ino,
        mount: stat.stx_mnt_id,
    }
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

impl Passthrough {
    pub(super) fn attributes(&self, node: NodeId, handle: Option<Handle>) -> Result<(wire::Attr, Duration)> {
        let mask = StatxFlags::BASIC_STATS;
        let stat = self.stat_node(node, handle, AtFlags::empty(), mask)?;
        Ok((self.to_wire(&self.node(node)?, &stat), self.options.cache.timeout()))
    }

    pub(super) fn extended_attributes(
        &self,
        node: NodeId,
        handle: Option<Handle>,
        flags: u32,
        mask: u32,
    ) -> Result<(wire::Statx, Duration)> {
        let sync = AtFlags::from_bits_retain(flags) & (AtFlags::STATX_FORCE_SYNC | AtFlags::STATX_DONT_SYNC);
        // Our mount ids mean nothing to the guest.
        let mask = StatxFlags::from_bits_retain(mask) & (StatxFlags::BASIC_STATS | StatxFlags::BTIME);
        let stat = self.stat_node(node, handle, sync, mask)?;
        let mut attributes = statx_to_wire(&stat);
        attributes.ino = self.shown_number(place(&stat).device, attributes.ino);
        Ok((attributes, self.options.cache.timeout()))
    }

    /// Of an inode, where the guest does not learn that it is on another device than the share.
    pub(super) fn shown_number(&self, device: u64, inode: u64) -> u64 {
        if self.has(InitFlags::SUBMOUNTS) {
            inode
        } else {
            self.numbers.shown(device, inode)
        }
    }

    fn stat_node(&self, node: NodeId, handle: Option<Handle>, sync: AtFlags, mask: StatxFlags) -> Result<Statx> {
        // An open file answers without opening the node, and after the node's last name is gone.
        let file = handle
            .map(|handle| self.files.get(node, handle))
            .transpose()
            .or_else(|error| {
                // fstat(2) of an open directory.
                if error == Errno::EBADF { Ok(None) } else { Err(error) }
            })?;
        let (flags, what) = (ITSELF | sync, if file.is_some() { "file" } else { "node" });
        match file {
            Some(file) => statx(file.fd(), c"", flags, mask),
            None => statx(&self.descriptor(node)?, c"", flags, mask),
        }
        .of(|| format!("statx({what}, \"\", {})", syscall_text::statx(flags)))
    }

    pub(super) fn change_attributes(&self, id: NodeId, change: &SetAttr) -> Result<(wire::Attr, Duration)> {
        self.writable()?;
        let node = self.node(id)?;
        let fd = node.descriptor()?;
        let fd = fd.as_fd();
        let proc = self.proc.directory();
        // chown(2) that keeps both ids drops set-user-id as well, and comes as a change of nothing (HANDLE_KILLPRIV_V2).
        let keeps_all =
            change.mode.is_none() && change.size.is_none() && change.atime.is_none() && change.mtime.is_none();
        // The owner first: a change of owner drops set-user-id, which a mode of the same request may ask for.
        if change.uid.is_some() || change.gid.is_some() || keeps_all {
            chownat(
                fd,
                c"",
                change.uid.map(user).transpose()?,
                change.gid.map(group).transpose()?,
                ITSELF,
            )
            .of(|| {
                let id = |id: Option<u32>| id.map_or(-1, i64::from);
                format!(
                    "fchownat(node, \"\", {}, {}, AT_EMPTY_PATH)",
                    id(change.uid),
                    id(change.gid)
                )
            })?;
        }
        if let Some(mode) = change.mode {
            if node.kind == FileType::Symlink {
                return Err(Errno::EOPNOTSUPP.rule("a symbolic link has no mode"));
            }
            let (name, mode) = (FdName::of(fd), mode & 0o7777);
            chmodat(proc, name.as_c_str(), Mode::from_raw_mode(mode), AtFlags::empty())
                .of(|| format!("chmod(node, 0{mode:o})"))?;
        }
        if let Some(size) = change.size {
            self.set_length(&node, fd, change, size)?;
        }
        if change.atime.is_some() || change.mtime.is_some() {
            let times = Timestamps {
                last_access: timespec(change.atime)?,
                last_modification: timespec(change.mtime)?,
            };
            utimensat(proc, FdName::of(fd).as_c_str(), &times, AtFlags::empty())
                .of(|| format!("utimensat(node, {})", words(&times)))?;
        }
        Ok((self.to_wire(&node, &stat(fd)?), self.options.cache.timeout()))
    }

    fn set_length(&self, node: &Node, fd: BorrowedFd<'_>, change: &SetAttr, size: u64) -> Result<()> {
        let length = i64::try_from(size).map_err(|_| Errno::EFBIG.rule("no file can be that long"))?;
        self.prepare_thread()?;
        // The same inode as that of the open file.
        let _fsetid = change
            .kill_suid_gid
            .then(|| self.credentials.without_fsetid(self.credentials.kill(fd)))
            .transpose()?;
        match change.handle {
            Some(handle) => {
                ftruncate(self.files.get(node.id, handle)?.fd(), size).of(|| format!("ftruncate(file, {size})"))
            }
            None if node.kind == FileType::Directory => Err(Errno::EISDIR.rule("a directory cannot be given a length")),
            None if node.kind != FileType::RegularFile => {
                Err(Errno::EINVAL.rule("what is no regular file cannot be given a length"))
            }
            None => sys::truncate(FdName::of(fd).as_c_str(), length).of(|| format!("truncate(node, {length})")),
        }
    }

    pub(super) fn file_system_figures(&self, node: NodeId) -> Result<wire::Statfs> {
        let figures = fstatvfs(&self.descriptor(node)?).of(|| "fstatfs(node)".into())?;
        Ok(wire::Statfs {
            blocks: figures.f_blocks,
            bfree: figures.f_bfree,
            bavail: figures.f_bavail,
            files: figures.f_files,
            ffree: figures.f_ffree,
            bsize: figures.f_bsize as u32,
            namelen: figures.f_namemax as u32,
            frsize: figures.f_frsize as u32,
            ..wire::Statfs::default()
        })
    }

    /// Linux asks only where it does not check permissions itself.
    pub(super) fn check_access(&self, by: &Caller, node: NodeId, mask: u32) -> Result<()> {
        let access = Access::from_bits(mask).ok_or_else(|| Errno::EINVAL.rule("access(2) knows no such mode"))?;
        if access.contains(Access::WRITE_OK) {
            self.writable()?;
        }
        self.prepare_thread()?;
        let node = self.node(node)?;
        if node.kind == FileType::Symlink {
            return Ok(()); // a link has no permissions of its own
        }
        let fd = node.descriptor()?;
        if by.is_unnamed() {
            return Ok(()); // the guest's kernel has checked
        }
        let _caller = self.credentials.become_caller_powerless(by)?;
        let name = FdName::of(fd.as_fd());
        accessat(self.proc.directory(), name.as_c_str(), access, AtFlags::EACCESS)
            .of(|| format!("faccessat2(node, 0{mask:o}, AT_EACCESS) as {}:{}", by.uid, by.gid))
    }
}

/// A rule.
const NOBODY: &str = "-1 is no user and no group";

fn user(id: u32) -> Result<Uid> {
    // chown(2) reads -1 as "leave unchanged".
    if id == u32::MAX {
        Err(Errno::EINVAL.rule(NOBODY))
    } else {
        Ok(Uid::from_raw(id))
    }
}

fn group(id: u32) -> Result<Gid> {
    if id == u32::MAX {
        Err(Errno::EINVAL.rule(NOBODY))
    } else {
        Ok(Gid::from_raw(id))
    }
}

fn timespec(time: Option<SetTime>) -> Result<Timespec> {
    Ok(match time {
        None => Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT,
        },
        Some(SetTime::Now) => Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_NOW,
        },
        // Beyond that lie the two values above.
        Some(SetTime::At(_, nanoseconds)) if nanoseconds >= 1_000_000_000 => {
            return Err(Errno::EINVAL.rule("the time has more nanoseconds than a second"));
        }
        Some(SetTime::At(seconds, nanoseconds)) => Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds.into(),
        },
    })
}

/// The times to set, in seconds since 1970.
fn words(times: &Timestamps) -> String {
    let word = |time: &Timespec| match time.tv_nsec {
        rustix::fs::UTIME_OMIT => "UTIME_OMIT".into(),
        rustix::fs::UTIME_NOW => "UTIME_NOW".into(),
        nanoseconds => format!("{}.{nanoseconds:09}", time.tv_sec),
    };
    format!("{}, {}", word(&times.last_access), word(&times.last_modification))
}

fn statx_to_wire(stat: &Statx) -> wire::Statx {
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
