//! Properties of the file system of a mount.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::{PoisonError, RwLock};

use rustix::fs::{StatFs, fstatfs};

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

/// File systems whose inodes are born by this host's clock, and whose device numbers and inode numbers are used by one inode at a time:
/// ext2/3/4, XFS, tmpfs. Not btrfs and bcachefs, where a snapshot has the numbers and births of what it was taken of.
const OWN_CLOCK: [i64; 3] = [0xef53, 0x5846_5342, 0x0102_1994];

/// btrfs and bcachefs: the device number of a subvolume is used again after it is deleted, also while a file of it is open.
const SUBVOLUMES: [i64; 2] = [0x9123_683e, 0xca45_1a4e];

/// It passes close(2) on to others, and has its data in one of those above nearly always.
const OVERLAY: i64 = 0x794c_7630;

/// What a file system does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Manners {
    /// Closing a descriptor may write or report errors. Where it does not, a close in the guest costs no request.
    pub(super) flushes: bool,
    /// Its data comes from a network or from another process, for which a read may wait long.
    pub(super) far: bool,
    /// An inode can be told by its number and birth.
    pub(super) births: bool,
    /// An open descriptor does not keep an inode's numbers from being used again.
    pub(super) subvolumes: bool,
    /// A handle, whether it opens or not, is that of one inode and of none that had or will have its numbers.
    pub(super) handles_tell: bool,
}

impl Manners {
    /// Those of the file system that `stat` is of.
    pub(super) fn of(stat: &StatFs) -> Manners {
        let kind = i64::from(stat.f_type as u32);
        let local = LOCAL.contains(&kind);
        Manners {
            flushes: !local,
            far: !local && kind != OVERLAY,
            births: OWN_CLOCK.contains(&kind),
            subvolumes: SUBVOLUMES.contains(&kind),
            handles_tell: OWN_CLOCK.contains(&kind) || SUBVOLUMES.contains(&kind),
        }
    }
}

/// Asked once a mount.
#[derive(Debug, Default)]
pub(super) struct Mounts(RwLock<HashMap<u64, Manners>>);

impl Mounts {
    /// Of the mount of id `mount`, on which `fd` is.
    pub(super) fn manners(&self, mount: u64, fd: BorrowedFd<'_>) -> Manners {
        if let Some(&manners) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&mount) {
            return manners;
        }
        let Ok(stat) = fstatfs(fd) else {
            // Without an answer the careful way is right, but not for good.
            return Manners {
                flushes: true,
                far: true,
                births: false,
                subvolumes: true,
                handles_tell: false,
            };
        };
        let manners = Manners::of(&stat);
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(mount, manners);
        manners
    }

    /// Before Linux 6.8 a mount id may be used again; a new session asks anew.
    pub(super) fn clear(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
