//! Attributes of nodes and figures of their file systems.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::fs::{
    Access, AtFlags, FileType, Gid, Mode, Statx, StatxFlags, Timespec, Timestamps, Uid, accessat, chmodat, chownat,
    fstatvfs, ftruncate, statx, utimensat,
};

use super::credentials::UNMAPPED;
use super::handle::Opened;
use super::inode::{Node, Place};
use super::procfs::FdName;
use super::stat::{self, ITSELF};
use super::{Passthrough, syscall_text};
use crate::cause::HostResult as _;
use crate::fs::{Caller, Errno, Handle, NodeId, Result, SetAttr, SetTime};
use crate::sys;
use crate::wire::{self, InitFlags};

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
        let mut attributes = stat::statx_to_wire(&stat);
        attributes.ino = self.shown_number(Place::of(&stat).device, attributes.ino);
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
            let owner = (change.uid.map(user).transpose()?, change.gid.map(group).transpose()?);
            match chownat(fd, c"", owner.0, owner.1, ITSELF) {
                Err(rustix::io::Errno::INVAL) => return Err(Errno::EINVAL.rule(UNMAPPED)),
                answer => answer.of(|| {
                    let id = |id: Option<u32>| id.map_or(-1, i64::from);
                    let (user, group) = (id(change.uid), id(change.gid));
                    format!("fchownat(node, \"\", {user}, {group}, AT_EMPTY_PATH)")
                })?,
            }
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
        Ok((self.to_wire(&node, &stat::of(fd)?), self.options.cache.timeout()))
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

/// Why a change of owner to -1 is refused.
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
