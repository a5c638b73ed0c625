//! Room for nodes: a budget of memory, because a guest may look up every file that there is and forget none.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::fs::{Errno, Result};

/// A limited number of rooms, one per node.
#[derive(Debug)]
pub(super) struct Rooms {
    limit: u64,
    taken: AtomicU64,
}

/// The right to add one node, given back on drop unless a node occupies it.
#[derive(Debug)]
pub(super) struct Room<'r>(&'r Rooms);

impl Rooms {
    pub(super) fn new(limit: u64) -> Rooms {
        Rooms {
            limit,
            taken: AtomicU64::new(0),
        }
    }

    /// ENFILE if there is no room left.
    pub(super) fn take(&self) -> Result<Room<'_>> {
        let Rooms { limit, taken } = self;
        taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                (taken < *limit).then_some(taken + 1)
            })
            // Not ENOMEM: on ENFILE, Linux drops an outdated name that it checks, and forgets its node.
            .map_err(|_| Errno::ENFILE.rule("the guest knows as many files as it may (--max-nodes)"))?;
        Ok(Room(self))
    }

    /// A node that occupied a room is gone.
    pub(super) fn vacate(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Room<'_> {
    /// A node was added, until [`Rooms::vacate`].
    pub(super) fn occupy(self) {
        std::mem::forget(self);
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.0.vacate();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_free_again_when_its_node_goes_or_never_came() {
        let rooms = Rooms::new(2);
        rooms.take().unwrap().occupy();
        let unused = rooms.take().unwrap();
        assert_eq!(rooms.take().err(), Some(Errno::ENFILE));
        drop(unused);
        rooms.take().unwrap().occupy();
        assert_eq!(rooms.take().err(), Some(Errno::ENFILE));
        rooms.vacate();
        rooms.take().unwrap();
    }
}
