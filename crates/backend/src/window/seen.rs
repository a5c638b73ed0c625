//! The files that windows show or have shown lately, which distinguish announced mappings from guest memory.

use std::collections::HashSet;
use std::os::fd::OwnedFd;

use rustix::fs::fstat;

/// Device and inode.
pub(super) type Identity = (u64, u64);

/// So many files, or twice as many as are mapped, are kept: a guest could otherwise map one file after another and make the daemon
/// grow. The front end announces a mapping before it answers, so that no file is needed once it is unmapped.
const KEPT: usize = 4096;

/// A set of files.
#[derive(Debug)]
pub(super) struct SeenFiles {
    files: HashSet<Identity>,
    full_at: usize,
}

impl Default for SeenFiles {
    fn default() -> Self {
        Self {
            files: HashSet::new(),
            full_at: KEPT,
        }
    }
}

impl SeenFiles {
    pub(super) fn contains(&self, identity: Identity) -> bool {
        self.files.contains(&identity)
    }

    /// Adds a file. `mapped` iterates over the files that are mapped, if those that are not have to go.
    pub(super) fn insert<'f>(&mut self, identity: Identity, mapped: impl Iterator<Item = &'f OwnedFd>) {
        if self.files.len() >= self.full_at {
            self.files = mapped.filter_map(identity_of).collect();
            self.full_at = KEPT.max(2 * self.files.len());
        }
        self.files.insert(identity);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// `None` if the kernel does not tell.
pub(super) fn identity_of(file: &OwnedFd) -> Option<Identity> {
    let stat = fstat(file).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_mapped_no_more_go_when_there_are_many() {
        let mapped: OwnedFd = tempfile::tempfile().unwrap().into();
        let identity = identity_of(&mapped).unwrap();
        let mut seen = SeenFiles::default();
        seen.insert(identity, std::iter::empty());
        // No device has the number 0.
        for inode in 0..10 * KEPT as u64 {
            seen.insert((0, inode), [&mapped].into_iter());
            assert!(seen.contains((0, inode)) && seen.contains(identity));
            assert!(seen.files.len() <= KEPT);
        }
        assert!(!seen.contains((0, 0)));
    }
}
