//! The choice of nodes whose descriptors are kept for reuse: recently used ones, by the clock algorithm, so that a
//! use costs only a flag.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::budget::Budget;
use super::held::Held;
use super::inode::Node;
use super::opening::PathFd;

/// At most so many, and no more than this part of what the guest may have the daemon hold.
const LIMIT: u64 = 4096;
const SHARE_OF_BUDGET: u64 = 8;

/// Nodes that remember a descriptor, in the order in which they are asked to give it up.
#[derive(Debug)]
pub(super) struct RecentNodes {
    budget: Budget,
    limit: usize,
    clock: Mutex<VecDeque<Weak<Node>>>,
}

impl RecentNodes {
    pub(super) fn new(budget: Budget) -> RecentNodes {
        RecentNodes {
            limit: LIMIT.min(budget.limit() / SHARE_OF_BUDGET) as usize,
            budget,
            clock: Mutex::default(),
        }
    }

    /// Has every node give up what it remembers.
    pub(super) fn forget_all(&self) {
        let nodes = std::mem::take(&mut *self.clock.lock().unwrap_or_else(PoisonError::into_inner));
        for node in nodes.iter().filter_map(Weak::upgrade) {
            drop(node.held().and_then(Held::take_remembered));
        }
    }

    /// Has `node` remember `fd`, and another node forget its own where there would be too many.
    pub(super) fn remember(&self, node: &Arc<Node>, fd: &Arc<PathFd>) {
        // Without a descriptor to spare this one is opened anew next time.
        let (Some(held), Ok(permit)) = (node.held(), self.budget.take()) else {
            return;
        };
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        if !held.remember(fd, permit) {
            return;
        }
        clock.push_back(Arc::downgrade(node));
        // Once round, every node has lost its flag.
        for _ in 0..clock.len() {
            if clock.len() <= self.limit {
                break;
            }
            let Some(oldest) = clock.pop_front() else { break };
            let remembers = oldest
                .upgrade()
                .is_some_and(|node| node.held().is_some_and(|held| held.tire()));
            if remembers {
                clock.push_back(oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::{Options, Passthrough};
    use crate::fs::{Name, NodeId};

    /// A node that is used meanwhile must not keep what nobody would ever ask it to give up again.
    #[test]
    fn what_is_to_be_forgotten_is_forgotten_or_stays_known() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("f"), "").unwrap();
        let fs = Passthrough::new(directory.path(), Options::default()).unwrap();
        let root = fs.node(NodeId::ROOT).unwrap();
        let node = fs.find(&root, Name::new(c"f").unwrap(), None).unwrap().node;
        if node.held().is_none() {
            eprintln!("skipped: no file handles");
            return;
        }
        let stop = AtomicBool::new(false);
        let mut orphaned = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    drop(node.descriptor().unwrap());
                }
            });
            for turn in 0..20_000 {
                fs.anchors.recent().forget_all();
                let in_clock = !fs.anchors.recent().clock.lock().unwrap().is_empty();
                if !in_clock && node.held().unwrap().any().is_some() {
                    // Not just between the two steps of `remember`.
                    std::thread::sleep(std::time::Duration::from_millis(1));
                    let clock = fs.anchors.recent().clock.lock().unwrap();
                    if clock.is_empty() && node.held().unwrap().any().is_some() {
                        eprintln!("orphaned in turn {turn}");
                        orphaned += 1;
                        break;
                    }
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        fs.anchors.recent().forget_all();
        fs.anchors.recent().forget_all();
        assert!(node.held().unwrap().any().is_none(), "orphaned: {orphaned}");
    }
}
