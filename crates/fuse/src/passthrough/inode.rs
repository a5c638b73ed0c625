//! The nodes the guest knows, with exact lookup counts.
//!
//! Two indexes hold the same nodes: by key (is this inode known?) and by id (what does the guest mean?). Counts change under the
//! lock of the key's shard alone, so a lookup that finds a node and a forget that drops it cannot pass each other.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rustix::fs::FileType;

use super::budget::Budget;
use super::identity::{Anchor, Identity, Pin};
use crate::fs::{Errno, NodeId, Result};
use crate::sys::FileHandle;

/// What makes two lookups the same node. The handle, where there is one, tells two lives of an inode number apart; where there is
/// none, the node's descriptor keeps the inode, and so its number, from being reused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) mount: u64,
    pub(super) handle: Option<FileHandle>,
}

/// One inode that the guest knows.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) key: Key,
    pub(super) kind: FileType,
    pub(super) identity: Identity,
    /// Whether it is one of the files to map by the name it was met by.
    pub(super) dax_by_name: bool,
    /// Changed under the lock of the key's shard only.
    lookups: AtomicU64,
}

const SHARDS: usize = 16;

/// All nodes of a session.
#[derive(Debug)]
pub(super) struct Inodes {
    root: Arc<Node>,
    by_key: [Mutex<HashMap<Key, Arc<Node>>>; SHARDS],
    by_id: [RwLock<HashMap<NodeId, Arc<Node>>>; SHARDS],
    hasher: RandomState,
    /// Ids go up and are never used twice, not even by the next session.
    next: AtomicU64,
}

impl Inodes {
    /// A table with nothing but the root in it.
    pub(super) fn new(root_key: Key, root: Arc<OwnedFd>) -> Inodes {
        let root = Node {
            id: NodeId::ROOT,
            key: root_key,
            kind: FileType::Directory,
            identity: Identity::Descriptor {
                fd: root,
                _permit: None,
            },
            dax_by_name: false,
            lookups: AtomicU64::new(1),
        };
        let inodes = Inodes {
            root: Arc::new(root),
            by_key: Default::default(),
            by_id: Default::default(),
            hasher: RandomState::new(),
            next: AtomicU64::new(NodeId::ROOT.0 + 1),
        };
        inodes.clear();
        inodes
    }

    /// The node the guest means. ESTALE makes Linux look the path up anew.
    pub(super) fn get(&self, id: NodeId) -> Result<Arc<Node>> {
        if id == NodeId::ROOT {
            return Ok(Arc::clone(&self.root));
        }
        self.shard_of_id(id)
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .cloned()
            .ok_or(Errno::ESTALE)
    }

    /// Counts one lookup of the inode `key` names, and makes its node if there is none.
    pub(super) fn look_up(
        &self,
        key: Key,
        kind: FileType,
        dax_by_name: bool,
        identity: impl FnOnce() -> Result<Identity>,
    ) -> Result<Arc<Node>> {
        let mut shard = self.shard_of_key(&key);
        if let Some(node) = shard.get(&key) {
            node.lookups.fetch_add(1, Ordering::Relaxed);
            return Ok(Arc::clone(node));
        }
        let identity = identity()?;
        let id = NodeId(self.next.fetch_add(1, Ordering::Relaxed));
        let node = Arc::new(Node {
            id,
            key: key.clone(),
            kind,
            identity,
            dax_by_name,
            lookups: AtomicU64::new(1),
        });
        self.shard_of_id(id)
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, Arc::clone(&node));
        shard.insert(key, Arc::clone(&node));
        Ok(node)
    }

    /// The node of the inode `key` names, if the guest knows it; counts nothing.
    pub(super) fn known(&self, key: &Key) -> Option<Arc<Node>> {
        self.shard_of_key(key).get(key).cloned()
    }

    /// Counts one more lookup of a node in hand. ESTALE if it was forgotten meanwhile.
    pub(super) fn look_up_again(&self, node: &Arc<Node>) -> Result<()> {
        let shard = self.shard_of_key(&node.key);
        match shard.get(&node.key) {
            Some(known) if known.id == node.id => {
                known.lookups.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            _ => Err(Errno::ESTALE),
        }
    }

    /// Takes `count` lookups back and drops the node with the last one; whether it did. Guests that forget too often lose no more than the node.
    pub(super) fn forget(&self, id: NodeId, count: u64) -> bool {
        if id == NodeId::ROOT {
            return false;
        }
        let Ok(node) = self.get(id) else { return false };
        let mut shard = self.shard_of_key(&node.key);
        let left = node.lookups.load(Ordering::Relaxed).saturating_sub(count);
        node.lookups.store(left, Ordering::Relaxed);
        // The key may have a newer node by now, if another forget of this one came first.
        let last = left == 0 && shard.get(&node.key).is_some_and(|known| known.id == id);
        if last {
            shard.remove(&node.key);
            self.shard_of_id(id)
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&id);
        }
        last
    }

    /// Drops every node but the root.
    pub(super) fn clear(&self) {
        for shard in &self.by_key {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for node in shard.drain().map(|(_, node)| node) {
                self.shard_of_id(node.id)
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&node.id);
            }
        }
        self.shard_of_key(&self.root.key)
            .insert(self.root.key.clone(), Arc::clone(&self.root));
    }

    fn shard_of_key(&self, key: &Key) -> MutexGuard<'_, HashMap<Key, Arc<Node>>> {
        let shard = self.hasher.hash_one((key.device, key.inode)) as usize % SHARDS;
        self.by_key[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard_of_id(&self, id: NodeId) -> &RwLock<HashMap<NodeId, Arc<Node>>> {
        &self.by_id[id.0 as usize % SHARDS]
    }
}

impl Node {
    /// A descriptor of the inode, opened with O_PATH or, for a node under a handle, pinned while a file is open.
    pub(super) fn descriptor(&self) -> Result<Arc<OwnedFd>> {
        match &self.identity {
            Identity::Descriptor { fd, .. } => Ok(Arc::clone(fd)),
            Identity::Handle { anchor, pin } => match pin.descriptor() {
                Some(fd) => Ok(fd),
                None => self.open_handle(anchor).map(Arc::new),
            },
        }
    }

    /// Keeps the inode alive while a file of it is open, even when its last name goes.
    pub(super) fn pin_open(&self, fd: &Arc<OwnedFd>, budget: &Budget) -> Result<()> {
        self.pin().map_or(Ok(()), |pin| pin.open(fd, budget))
    }

    /// Ends one [`Node::pin_open`].
    pub(super) fn unpin_open(&self) {
        if let Some(pin) = self.pin() {
            pin.close();
        }
    }

    /// Keeps the inode alive until the guest forgets it: its last name went. To be called while it is pinned.
    pub(super) fn pin_until_forgotten(&self) {
        if let Some(pin) = self.pin() {
            pin.keep();
        }
    }

    /// Whether the node is kept by handle.
    pub(super) fn has_handle(&self) -> bool {
        self.pin().is_some()
    }

    fn pin(&self) -> Option<&Pin> {
        match &self.identity {
            Identity::Handle { pin, .. } => Some(pin),
            Identity::Descriptor { .. } => None,
        }
    }

    fn open_handle(&self, anchor: &Anchor) -> Result<OwnedFd> {
        // A node under a handle has it as part of its key.
        let handle = self.key.handle.as_ref().ok_or(Errno::ESTALE)?;
        Ok(anchor.open(handle)?)
    }
}
