//! Inode numbers for a guest that sees one device where the share has several (mounts within it). Tools such as tar
//! and cp take two names with the same device and number for one file.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

/// Numbers of file systems seldom reach up here.
const SHIFT: u32 = 48;

/// The devices met so far, in the order of their meeting.
#[derive(Debug)]
pub(super) struct InodeNumbers {
    root: u64,
    others: RwLock<HashMap<u64, u64>>,
}

impl InodeNumbers {
    /// Numbers on the share's own device, `root`, stay as they are.
    pub(super) fn new(root: u64) -> InodeNumbers {
        InodeNumbers {
            root,
            others: RwLock::default(),
        }
    }

    /// What the guest is shown as the number of `inode` on `device`.
    pub(super) fn shown(&self, device: u64, inode: u64) -> u64 {
        if device == self.root {
            return inode;
        }
        let known = self
            .others
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&device)
            .copied();
        let index = known.unwrap_or_else(|| {
            let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
            let next = others.len() as u64 + 1;
            *others.entry(device).or_insert(next)
        });
        inode ^ index << SHIFT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_on_several_devices_is_several_and_stays_what_it_was() {
        let numbers = InodeNumbers::new(7);
        let shown = [7, 8, 9].map(|device| numbers.shown(device, 2));
        assert_eq!(shown, [2, 1 << 48 | 2, 2 << 48 | 2]);
        assert_eq!([7, 8, 9].map(|device| numbers.shown(device, 2)), shown);
    }
}
