//! The ioctls that act on the file alone: inode flags (lsattr, chattr) and `struct fsxattr` (project ids). Nothing else reaches the
//! host: a driver behind an unknown command could do anything.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::fcntl_dupfd_cloexec;

use super::Passthrough;
use super::handle::Opened;
use crate::fs::{Caller, Errno, Handle, NodeId, Result};
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
                let flags = supported(sys::inode_flags(self.any_open(node, handle)?.as_fd()))?;
                fitting(&flags.to_ne_bytes(), out_size)
            }
            sys::FS_IOC_FSGETXATTR => {
                let value = supported(sys::fsxattr(self.any_open(node, handle)?.as_fd()))?;
                fitting(&value, out_size)
            }
            sys::FS_IOC_SETFLAGS => {
                let flags = *input.first_chunk().ok_or(Errno::EINVAL)?;
                self.change(by, node, handle, |fd| {
                    sys::set_inode_flags(fd.as_fd(), u32::from_ne_bytes(flags))
                })
            }
            sys::FS_IOC_FSSETXATTR => {
                let value = *input.first_chunk().ok_or(Errno::EINVAL)?;
                self.change(by, node, handle, |fd| sys::set_fsxattr(fd.as_fd(), value))
            }
            _ => Err(Errno::ENOTTY),
        }
    }

    /// Guests before Linux 5.13 leave it to us to check who may change flags, so the host does it for the caller. Later ones have
    /// checked, and with idmapped mounts name no caller.
    fn change(
        &self,
        by: &Caller,
        node: NodeId,
        handle: Handle,
        change: impl FnOnce(&OwnedFd) -> std::io::Result<()>,
    ) -> Result<Vec<u8>> {
        self.writable()?;
        self.prepare_thread()?;
        let fd = self.any_open(node, handle)?;
        let _caller = self.credentials.become_caller_powerless(by)?;
        supported(change(&fd))?;
        Ok(Vec::new())
    }

    /// The open file or directory behind `handle`.
    fn any_open(&self, node: NodeId, handle: Handle) -> Result<OwnedFd> {
        let copy = match self.files.get(node, handle) {
            Ok(file) => fcntl_dupfd_cloexec(file.fd(), 0),
            Err(_) => fcntl_dupfd_cloexec(self.directories.get(node, handle)?.fd(), 0),
        };
        Ok(copy?)
    }
}

/// Callers (overlayfs copying up) take ENOTTY for "this file system has none", but EOPNOTSUPP for a failure.
fn supported<T>(result: std::io::Result<T>) -> Result<T> {
    result.map_err(|error| match error.into() {
        Errno::EOPNOTSUPP | Errno::ENOSYS => Errno::ENOTTY,
        error => error,
    })
}

fn fitting(value: &[u8], out_size: u32) -> Result<Vec<u8>> {
    if value.len() > out_size as usize {
        Err(Errno::EINVAL)
    } else {
        Ok(value.to_vec())
    }
}
