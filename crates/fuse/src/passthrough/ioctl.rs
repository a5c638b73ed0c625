//! The ioctls that act on the file alone: inode flags (lsattr, chattr) and `struct fsxattr` (project ids).
//!
//! No other ioctl reaches the host: a driver behind an unknown command could do anything. The host allows the owner
//! of a file to move it out of a project's quota. Therefore the permission for that is decided here.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::fcntl_dupfd_cloexec;

use super::Passthrough;
use super::handle::Opened;
use crate::arguments::malformed;
use crate::cause::HostResult as _;
use crate::fs::{Caller, Errno, Handle, NodeId, Result};
use crate::reply::NO_ROOM;
use crate::sys;

impl Passthrough {
    pub(super) fn control(
        &self,
        by: &Caller,
        node: NodeId,
        handle: Handle,
        command: u32,
        input: &[u8],
        out_size: u32,
    ) -> Result<Vec<u8>> {
        match command {
            sys::FS_IOC_GETFLAGS => {
                let flags = supported(
                    sys::inode_flags(self.any_open(node, handle)?.as_fd()),
                    "FS_IOC_GETFLAGS",
                )?;
                fitting(&flags.to_ne_bytes(), out_size)
            }
            sys::FS_IOC_FSGETXATTR => {
                let value = supported(sys::fsxattr(self.any_open(node, handle)?.as_fd()), "FS_IOC_FSGETXATTR")?;
                fitting(&value, out_size)
            }
            sys::FS_IOC_SETFLAGS => {
                let flags = *input.first_chunk().ok_or_else(malformed)?;
                self.change(by, node, handle, &Change::Flags(u32::from_ne_bytes(flags)))
            }
            sys::FS_IOC_FSSETXATTR => {
                let value = *input.first_chunk().ok_or_else(malformed)?;
                self.change(by, node, handle, &Change::Extended(value))
            }
            _ => Err(Errno::ENOTTY.rule("no ioctl but those for the flags of a file reaches the host")),
        }
    }

    /// Guests before Linux 5.13 leave it to us to check who may change flags, so the host does it for the caller. Later ones have
    /// checked, and with idmapped mounts name no caller.
    fn change(&self, by: &Caller, node: NodeId, handle: Handle, change: &Change) -> Result<Vec<u8>> {
        self.writable()?;
        self.prepare_thread()?;
        let fd = self.any_open(node, handle)?;
        if let Some(rule) = project_rule(self.options.allow_project_ids, by.uid)
            && !change.keeps_project(fd.as_fd())?
        {
            return Err(Errno::EPERM.rule(rule));
        }
        let _caller = (!by.is_unnamed())
            .then(|| self.credentials.become_caller_powerless(by))
            .transpose()?;
        change.make(fd.as_fd())?;
        Ok(Vec::new())
    }

    /// The open file or directory behind `handle`.
    fn any_open(&self, node: NodeId, handle: Handle) -> Result<OwnedFd> {
        let copy = match self.files.get(node, handle) {
            Ok(file) => fcntl_dupfd_cloexec(file.fd(), 0),
            Err(_) => fcntl_dupfd_cloexec(self.directories.get(node, handle)?.fd(), 0),
        };
        copy.of(|| "fcntl(file, F_DUPFD_CLOEXEC)".into())
    }
}

/// New attributes of a file, all of a kind at once.
enum Change {
    Flags(u32),
    Extended(sys::FsXattr),
}

impl Change {
    /// Whether the file's project, and whether a directory hands it on, are what they were.
    fn keeps_project(&self, file: BorrowedFd<'_>) -> Result<bool> {
        Ok(match self {
            Change::Flags(flags) => {
                let now = supported(sys::inode_flags(file), "FS_IOC_GETFLAGS")?;
                inherits(now) == inherits(*flags)
            }
            Change::Extended(value) => {
                let now = supported(sys::fsxattr(file), "FS_IOC_FSGETXATTR")?;
                project(&now) == project(value)
            }
        })
    }

    fn make(&self, file: BorrowedFd<'_>) -> Result<()> {
        match *self {
            Change::Flags(flags) => supported(sys::set_inode_flags(file, flags), "FS_IOC_SETFLAGS"),
            Change::Extended(value) => supported(sys::set_fsxattr(file, value), "FS_IOC_FSSETXATTR"),
        }
    }
}

/// Why `uid` of the guest may not change project ids. `None`: it may.
fn project_rule(allowed: bool, uid: u32) -> Option<&'static str> {
    match (allowed, uid) {
        (true, 0) => None,
        (true, _) => Some("only the guest's root may change project ids (--allow-project-ids)"),
        (false, _) => Some("guests may not change project ids (--allow-project-ids)"),
    }
}

/// Whether a directory with these inode flags hands its project on (FS_PROJINHERIT_FL).
fn inherits(flags: u32) -> bool {
    flags & 0x2000_0000 != 0
}

/// The project id of a `struct fsxattr`, and whether a directory hands it on (FS_XFLAG_PROJINHERIT).
fn project(value: &sys::FsXattr) -> (u32, bool) {
    let word = |at: usize| u32::from_ne_bytes([value[at], value[at + 1], value[at + 2], value[at + 3]]);
    (word(12), word(0) & 0x200 != 0)
}

/// Callers (overlayfs copying up) take ENOTTY for "this file system has none", but EOPNOTSUPP for a failure.
fn supported<T>(result: io::Result<T>, command: &str) -> Result<T> {
    result
        .of(|| format!("ioctl(file, {command})"))
        .map_err(|error| match error {
            Errno::EOPNOTSUPP | Errno::ENOSYS => Errno::ENOTTY.in_place_of_the_last(),
            error => error,
        })
}

fn fitting(value: &[u8], out_size: u32) -> Result<Vec<u8>> {
    if value.len() > out_size as usize {
        Err(Errno::EINVAL.rule(NO_ROOM))
    } else {
        Ok(value.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projects_are_changed_by_nobody_unless_the_guests_root_may() {
        for (allowed, uid, may) in [
            (false, 0, false),
            (false, 1000, false),
            (true, 0, true),
            (true, 1000, false),
            // A caller that an idmapped mount has no name for.
            (true, u32::MAX, false),
        ] {
            let rule = project_rule(allowed, uid);
            assert_eq!(rule.is_none(), may, "{allowed} {uid}");
            assert!(rule.is_none_or(|rule| rule.contains("--allow-project-ids")));
        }
    }

    #[test]
    fn a_project_is_an_id_and_whether_it_is_handed_on() {
        // Flags, extent size hint, extents, project id, copy-on-write hint.
        let value = |words: [u32; 5]| -> sys::FsXattr {
            let mut value = sys::FsXattr::default();
            for (place, word) in value.chunks_exact_mut(4).zip(words) {
                place.copy_from_slice(&word.to_ne_bytes());
            }
            value
        };
        assert_eq!(project(&value([0x200, 0, 0, 100, 0])), (100, true));
        assert_eq!(project(&value([!0x200, 5, 6, 100, 7])), (100, false));
        assert_eq!(project(&value([0x80, 0, 0, u32::MAX, 0])), (u32::MAX, false));
        assert!(inherits(0x2000_0040) && !inherits(!0x2000_0000));
    }
}
