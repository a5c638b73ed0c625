//! The nodes that the guest knows, with exact lookup counts.
//!
//! Two indexes hold the same nodes: by inode (is this inode known?) and by id (which node does the guest mean?).
//! Counts change only under the lock of the inode's shard, so that a lookup that finds a node and a forget that drops
//! it cannot race.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use hashbrown::HashTable;
use rustix::fs::{FileType, Statx, makedev};

use super::birth::{Birth, KnownBirth};
use super::budget::Permit;
use super::held::Held;
use super::identity::{Identity, WithoutHandle};
use super::opening::{NodeFd, OpenFd, PathFd};
use super::room::{Room, Rooms};
use crate::cause::HostResult as _;
use crate::fs::{Errno, NodeId, Result};
use crate::sys::FileHandle;

/// Where an inode lies. Two lives of one number are told apart by [`Key::handle`] or [`KnownBirth`]; a node without a handle in its key
/// holds a descriptor, which keeps the inode's numbers from being used again as long as the node is known. On btrfs it does not, so that
/// all keys have handles there. Only a node with a handle in its key may do without a descriptor, and one that cannot be opened by it
/// ([`WithoutHandle::Name`]) compares it when its name is opened anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) mount: u64,
}

impl Place {
    /// Of the inode that [`stat::of`](super::stat::of) found.
    pub(super) fn of(stat: &Statx) -> Place {
        Place {
            device: makedev(stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            mount: stat.stx_mnt_id,
        }
    }
}

/// What makes two lookups the same node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) place: Place,
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
    pub(super) birth: KnownBirth,
    /// Changed under the lock of the inode's shard only.
    lookups: AtomicU64,
}

const SHARDS: usize = 16;

/// All nodes of a session.
#[derive(Debug)]
pub(super) struct Inodes {
    root: Arc<Node>,
    by_place: [Mutex<HashTable<Arc<Node>>>; SHARDS],
    by_id: [RwLock<HashTable<Arc<Node>>>; SHARDS],
    hasher: RandomState,
    /// Ids go up and are never used twice, not even by the next session.
    next: AtomicU64,
    /// For all nodes but the root.
    rooms: Arc<Rooms>,
}

impl Inodes {
    /// A table with nothing but the root in it, and room for `limit` more nodes.
    pub(super) fn new(place: Place, root: Arc<PathFd>, limit: u64) -> Inodes {
        let root = Node {
            id: NodeId::ROOT,
            key: Key { place, handle: None },
            kind: FileType::Directory,
            identity: Identity::descriptor(root, None),
            dax_by_name: false,
            birth: KnownBirth::default(),
            lookups: AtomicU64::new(1),
        };
        let inodes = Inodes {
            root: Arc::new(root),
            by_place: Default::default(),
            by_id: Default::default(),
            hasher: RandomState::new(),
            next: AtomicU64::new(NodeId::ROOT.0 + 1),
            rooms: Arc::new(Rooms::new(limit)),
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
            .find(hash_of_id(id), |node| node.id == id)
            .cloned()
            .ok_or_else(|| Errno::ESTALE.rule("unknown nodeid"))
    }

    /// Room for one more node; ENFILE if the guest knows as many as it may.
    pub(super) fn room(&self) -> Result<Room<'_>> {
        self.rooms.take()
    }

    /// The node of the inode at `place` that was born at `birth`; counts one lookup of it.
    pub(super) fn look_up_by_birth(&self, place: Place, birth: Birth) -> Option<Arc<Node>> {
        let (shard, hash) = self.shard_of_place(place);
        let node = shard.find(hash, |node| node.key.place == place && node.birth.tells(birth))?;
        node.lookups.fetch_add(1, Ordering::Relaxed);
        Some(Arc::clone(node))
    }

    /// As [`Inodes::look_up_by_birth`], but counts nothing.
    pub(super) fn known_by_birth(&self, place: Place, birth: Birth) -> Option<Arc<Node>> {
        let (shard, hash) = self.shard_of_place(place);
        shard
            .find(hash, |node| node.key.place == place && node.birth.tells(birth))
            .cloned()
    }

    /// Counts one lookup of the inode `key` names, and makes its node if there is none. `birth` and `kind` are what attributes of that
    /// very inode say. A new node takes `room`, or what room there is.
    pub(super) fn look_up(
        &self,
        key: Key,
        birth: Option<Birth>,
        kind: FileType,
        dax_by_name: bool,
        room: Option<Room<'_>>,
        identity: impl FnOnce() -> Result<Identity>,
    ) -> Result<Arc<Node>> {
        let (mut shard, hash) = self.shard_of_place(key.place);
        // A handle that a second inode has by chance (its generation is a random number) is no reason to take it for the first.
        if let Some(node) = shard.find(hash, |node| node.key == key && node.kind == kind) {
            node.lookups.fetch_add(1, Ordering::Relaxed);
            node.birth.set(birth);
            return Ok(Arc::clone(node));
        }
        let room = room.map_or_else(|| self.room(), Ok)?;
        let mut identity = identity()?;
        room.occupy();
        if let Some(named) = identity.named_mut() {
            named.occupies(&self.rooms);
        }
        let id = NodeId(self.next.fetch_add(1, Ordering::Relaxed));
        let node = Arc::new(Node {
            id,
            key,
            kind,
            identity,
            dax_by_name,
            birth: KnownBirth::default(),
            lookups: AtomicU64::new(1),
        });
        node.birth.set(birth);
        self.shard_of_id(id)
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert_unique(hash_of_id(id), Arc::clone(&node), |node| hash_of_id(node.id));
        shard.insert_unique(hash, Arc::clone(&node), |node| self.hash_of_place(node.key.place));
        Ok(node)
    }

    /// The node of the inode `key` names, if the guest knows it; counts nothing.
    pub(super) fn known(&self, key: &Key) -> Option<Arc<Node>> {
        let (shard, hash) = self.shard_of_place(key.place);
        shard.find(hash, |node| node.key == *key).cloned()
    }

    /// Counts one more lookup of a node in hand. ESTALE if it was forgotten meanwhile.
    pub(super) fn look_up_again(&self, node: &Arc<Node>) -> Result<()> {
        let (shard, hash) = self.shard_of_place(node.key.place);
        shard.find(hash, |known| known.id == node.id).ok_or_else(forgotten)?;
        node.lookups.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Takes `count` lookups back and drops the node with the last one; whether it did. Guests that forget too often lose no more
    /// than the node.
    pub(super) fn forget(&self, id: NodeId, count: u64) -> bool {
        if id == NodeId::ROOT {
            return false;
        }
        let Ok(node) = self.get(id) else { return false };
        let (mut shard, hash) = self.shard_of_place(node.key.place);
        let left = node.lookups.load(Ordering::Relaxed).saturating_sub(count);
        node.lookups.store(left, Ordering::Relaxed);
        if left > 0 {
            return false;
        }
        // Another forget of this one may have come first.
        let Ok(entry) = shard.find_entry(hash, |known| known.id == id) else {
            return false;
        };
        entry.remove();
        let mut by_id = self.shard_of_id(id).write().unwrap_or_else(PoisonError::into_inner);
        if let Ok(entry) = by_id.find_entry(hash_of_id(id), |known| known.id == id) {
            entry.remove();
            self.vacate(&node);
        }
        shrink(&mut shard, |node| self.hash_of_place(node.key.place));
        shrink(&mut by_id, |node| hash_of_id(node.id));
        true
    }

    /// A node has left the table. One that is found by name may be on the way to others, and has its room until it is dropped.
    fn vacate(&self, node: &Node) {
        if node.named().is_none() {
            self.rooms.vacate();
        }
    }

    /// Drops every node but the root.
    pub(super) fn clear(&self) {
        for shard in &self.by_place {
            let nodes = std::mem::take(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner));
            for node in nodes {
                let mut by_id = self
                    .shard_of_id(node.id)
                    .write()
                    .unwrap_or_else(PoisonError::into_inner);
                if let Ok(entry) = by_id.find_entry(hash_of_id(node.id), |known| known.id == node.id) {
                    entry.remove();
                    self.vacate(&node);
                }
            }
        }
        for shard in &self.by_id {
            let mut by_id = shard.write().unwrap_or_else(PoisonError::into_inner);
            shrink(&mut by_id, |node| hash_of_id(node.id));
        }
        let (mut shard, hash) = self.shard_of_place(self.root.key.place);
        shard.insert_unique(hash, Arc::clone(&self.root), |node| self.hash_of_place(node.key.place));
    }

    fn shard_of_place(&self, place: Place) -> (MutexGuard<'_, HashTable<Arc<Node>>>, u64) {
        let hash = self.hash_of_place(place);
        // The table goes by the high and the low bits.
        let shard = (hash >> 32) as usize % SHARDS;
        (
            self.by_place[shard].lock().unwrap_or_else(PoisonError::into_inner),
            hash,
        )
    }

    /// Seeded, since a guest can choose which inodes it has made.
    fn hash_of_place(&self, place: Place) -> u64 {
        self.hasher.hash_one((place.device, place.inode))
    }

    fn shard_of_id(&self, id: NodeId) -> &RwLock<HashTable<Arc<Node>>> {
        &self.by_id[id.0 as usize % SHARDS]
    }
}

fn forgotten() -> Errno {
    Errno::ESTALE.rule("the node was forgotten meanwhile")
}

/// Spreads numbers that go up one by one; the guest has no say in them.
fn hash_of_id(id: NodeId) -> u64 {
    id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Gives memory back when a table that was large has become almost empty.
fn shrink(table: &mut HashTable<Arc<Node>>, hash: impl Fn(&Arc<Node>) -> u64) {
    const WORTH_IT: usize = 1024;
    if table.capacity() > WORTH_IT && table.len() < table.capacity() / 8 {
        table.shrink_to(table.len() * 2, hash);
    }
}

impl Node {
    /// A descriptor of the inode: one that is held, or one opened with O_PATH.
    pub(super) fn descriptor(self: &Arc<Self>) -> Result<NodeFd> {
        match &self.identity {
            Identity::WithoutHandle(kept) => match &**kept {
                WithoutHandle::Name(_) => self.open_by_name(),
                WithoutHandle::Descriptor { fd, .. } => Ok(NodeFd::Path(Arc::clone(fd))),
            },
            Identity::Handle { anchor, held } => {
                if let Some(fd) = held.any() {
                    return Ok(fd);
                }
                // A node under a handle has it as part of its key.
                let handle = self.key.handle.as_ref().ok_or_else(forgotten)?;
                let fd = Arc::new(anchor.path(handle).of(|| "open_by_handle_at(node, O_PATH)".into())?);
                anchor.recent().remember(self, &fd);
                Ok(NodeFd::Path(fd))
            }
        }
    }

    /// Keeps the inode alive while a file of it is open, even when its last name goes.
    pub(super) fn hold_open(&self, file: &Arc<OpenFd>) {
        if let Some(held) = self.held() {
            held.hold(NodeFd::Open(Arc::clone(file)));
        }
    }

    /// Ends one [`Node::hold_open`].
    pub(super) fn let_go_open(&self, file: &Arc<OpenFd>) {
        if let Some(held) = self.held() {
            held.let_go(&NodeFd::Open(Arc::clone(file)));
        }
    }

    /// Keeps the inode alive until the guest forgets it.
    pub(super) fn keep(&self, fd: NodeFd, permit: Permit) {
        if let Some(held) = self.held() {
            held.keep(fd, permit);
        }
    }

    /// What is held of a node that needs no descriptor at all times.
    pub(super) fn held(&self) -> Option<&Held> {
        self.identity.held()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There may be a million of them.
    #[test]
    fn a_node_under_a_handle_takes_no_space_for_the_other_ways_to_keep_one() {
        assert_eq!(size_of::<Identity>(), size_of::<Arc<u8>>() + size_of::<Held>());
    }
}
