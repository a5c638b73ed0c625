//! Which mounts want to know when a descriptor is closed.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::{PoisonError, RwLock};

use rustix::fs::fstatfs;

/// File systems that do nothing in close(2) (no `flush` in their file operations), by statfs(2) number: ext2/3/4, XFS, btrfs,
/// tmpfs, ramfs, F2FS, bcachefs, ZFS.
const LOCAL: [i64; 8] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0x0102_1994,
    0x8584_58f6,
    0xf2f5_2010,
    0xca45_1a4e,
    0x2fc1_2fc1,
];

/// Asked once a mount: every close in the guest would cost a request and two system calls more.
#[derive(Debug, Default)]
pub(super) struct FlushingMounts(RwLock<HashMap<u64, bool>>);

impl FlushingMounts {
    /// Whether closing a descriptor of `fd`'s file may write or report errors. `mount` is its mount id.
    pub(super) fn contains(&self, mount: u64, fd: BorrowedFd<'_>) -> bool {
        if let Some(&flushes) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&mount) {
            return flushes;
        }
        // Without an answer the careful way is right, but not for good.
        let Ok(stat) = fstatfs(fd) else { return true };
        let flushes = !LOCAL.contains(&i64::from(stat.f_type as u32));
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(mount, flushes);
        flushes
    }
}

impl FlushingMounts {
    /// Before Linux 6.8 a mount id may be used again; a new session asks anew.
    pub(super) fn clear(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
