//! The ioctls that act on the file alone: inode flags (lsattr, chattr) and `struct fsxattr` (project ids). Nothing else reaches the
//! host: a driver behind an unknown command could do anything.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::fcntl_dupfd_cloexec;

use super::Passthrough;
use super::handle::Opened;
use crate::cause::HostResult as _;
use crate::fs::{Caller, Errno, Handle, NodeId, Result};
use crate::reply::NO_ROOM;
use crate::request::malformed;
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
                self.change(by, node, handle, "FS_IOC_SETFLAGS", |fd| {
                    sys::set_inode_flags(fd.as_fd(), u32::from_ne_bytes(flags))
                })
            }
            sys::FS_IOC_FSSETXATTR => {
                let value = *input.first_chunk().ok_or_else(malformed)?;
                self.change(by, node, handle, "FS_IOC_FSSETXATTR", |fd| {
                    sys::set_fsxattr(fd.as_fd(), value)
                })
            }
            _ => Err(Errno::ENOTTY.rule("no ioctl but those for the flags of a file reaches the host")),
        }
    }

    /// Guests before Linux 5.13 leave it to us to check who may change flags, so the host does it for the caller. Later ones have
    /// checked, and with idmapped mounts name no caller.
    fn change(
        &self,
        by: &Caller,
        node: NodeId,
        handle: Handle,
        command: &str,
        change: impl FnOnce(&OwnedFd) -> std::io::Result<()>,
    ) -> Result<Vec<u8>> {
        self.writable()?;
        self.prepare_thread()?;
        let fd = self.any_open(node, handle)?;
        let _caller = (!by.is_unnamed())
            .then(|| self.credentials.become_caller_powerless(by))
            .transpose()?;
        supported(change(&fd), command)?;
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

/// Callers (overlayfs copying up) take ENOTTY for "this file system has none", but EOPNOTSUPP for a failure.
fn supported<T>(result: std::io::Result<T>, command: &str) -> Result<T> {
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
