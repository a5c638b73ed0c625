//! The choice of nodes whose descriptors are kept for reuse: recently used ones, by the clock algorithm, so that a
//! use costs only a flag.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::fs::FileType;

use super::budget::{Budget, Permit};
use super::held::{Held, Recent, Tired};
use super::inode::Node;
use super::opening::PathFd;
use crate::cause;

/// At most so many, and no more than this part of what the guest may have the daemon hold.
const LIMIT: u64 = 4096;
const SHARE_OF_BUDGET: u64 = 8;
/// Below this, no nodes that are gone are looked for among those that are asked.
const SMALL: usize = 64;

/// Nodes that remember a descriptor, in the order in which they are asked to give it up.
#[derive(Debug)]
pub(super) struct RecentNodes {
    budget: Budget,
    /// `None`: as many as the budget has.
    limit: Option<usize>,
    clock: Mutex<Clock>,
}

type Clock = VecDeque<Weak<Node>>;

impl RecentNodes {
    /// For nodes that are opened anew at little cost.
    pub(super) fn few(budget: Budget) -> RecentNodes {
        RecentNodes {
            limit: Some(LIMIT.min(budget.limit() / SHARE_OF_BUDGET) as usize),
            budget,
            clock: Mutex::default(),
        }
    }

    /// For nodes that give up a descriptor only where another one is needed.
    pub(super) fn up_to_the_budget(budget: Budget) -> RecentNodes {
        RecentNodes {
            limit: None,
            budget,
            clock: Mutex::default(),
        }
    }

    /// Has every node give up what it remembers.
    pub(super) fn forget_all(&self) {
        let nodes = mem::take(&mut *self.lock());
        for node in nodes.iter().filter_map(Weak::upgrade) {
            drop(node.held().and_then(Held::take_remembered));
        }
    }

    /// Has the node that did not use its descriptor for longest give it up. `false`: none remembers any.
    pub(super) fn forget_one(&self) -> bool {
        let mut clock = self.lock();
        // Once round, every node has lost its flag.
        for _ in 0..2 * clock.len() {
            if let Some(given_up) = turn(&mut clock) {
                drop(clock);
                drop(given_up);
                return true;
            }
        }
        false
    }

    /// Has `node` remember `fd`, and another node forget its own where there would be too many.
    pub(super) fn remember(&self, node: &Arc<Node>, fd: &Arc<PathFd>) {
        // Without a descriptor to spare this one is opened anew next time.
        let (Some(held), Some(permit)) = (node.held(), self.permit()) else {
            return;
        };
        let mut clock = self.lock();
        // On the way to a file that is opened by name, all directories above are.
        if !held.remember(fd, permit, node.kind == FileType::Directory) {
            return;
        }
        if clock.len() == clock.capacity() {
            clock.retain(|node| node.strong_count() > 0);
            let more = clock.len().max(SMALL);
            clock.reserve(more);
        }
        clock.push_back(Arc::downgrade(node));
        let Some(limit) = self.limit else { return };
        let mut given_up = Vec::new();
        for _ in 0..clock.len() {
            if clock.len() <= limit {
                break;
            }
            given_up.extend(turn(&mut clock));
        }
        drop(clock);
    }

    fn permit(&self) -> Option<Permit> {
        let permit = cause::aside(|| self.budget.take().ok());
        if permit.is_none() && self.limit.is_none() && self.forget_one() {
            return cause::aside(|| self.budget.take().ok());
        }
        permit
    }

    fn lock(&self) -> MutexGuard<'_, Clock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks one node, which stays if it has used its descriptor since the last time.
fn turn(clock: &mut Clock) -> Option<Recent> {
    let oldest = clock.pop_front()?;
    match oldest.upgrade()?.held()?.tire() {
        Tired::Keeps => clock.push_back(oldest),
        Tired::LetsGo(recent) => return Some(recent),
        Tired::HadNone => {}
    }
    None
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
