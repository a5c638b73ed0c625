//! Nodes that are found again by name, so that they need no descriptor while the guest does not use them.
//!
//! Where handles do not open, such a node keeps its descriptor as long as the budget allows, and remembers by which
//! name in which directory it was found. Opened anew, it must be the inode that it was: the handle in its key, which
//! anybody may ask for, is that of no other inode with its number. The name itself proves nothing.

use std::ffi::CStr;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::FileType;

use super::budget::{Budget, Permit};
use super::entries::Seen;
use super::held::Held;
use super::identity::{Identity, WithoutHandle};
use super::inode::{Key, Node, Place};
use super::opening::{NodeFd, PathFd};
use super::recent::RecentNodes;
use super::room::Rooms;
use crate::cause::HostResult as _;
use crate::fs::{Errno, Name, Result};
use crate::sys::FileHandle;

/// Most directories that are opened to find one node, eight times as many as a path of the host has.
const MOST_STEPS: usize = 16_384;

/// All nodes of a share that are found again by name.
#[derive(Debug)]
pub(super) struct NamedNodes {
    recent: RecentNodes,
    /// Held while the way of a known directory changes, so that no way ever leads in a circle.
    moves: Mutex<()>,
}

impl NamedNodes {
    pub(super) fn new(budget: Budget) -> Arc<NamedNodes> {
        Arc::new(NamedNodes {
            recent: RecentNodes::up_to_the_budget(budget),
            moves: Mutex::default(),
        })
    }

    /// Those that have a descriptor.
    pub(super) fn recent(&self) -> &RecentNodes {
        &self.recent
    }

    /// Of an inode found by `name` in `parent`.
    pub(super) fn found(self: &Arc<Self>, parent: &Arc<Node>, name: Name<'_>) -> Identity {
        self.identity(Some(Way::of(parent, name)), Held::default())
    }

    /// Of an inode that has no name, which is kept until the guest forgets it.
    pub(super) fn kept(self: &Arc<Self>, fd: Arc<PathFd>, permit: Permit) -> Identity {
        let held = Held::default();
        held.keep(NodeFd::Path(fd), permit);
        self.identity(None, held)
    }

    fn identity(self: &Arc<Self>, way: Option<Way>, held: Held) -> Identity {
        Identity::WithoutHandle(Box::new(WithoutHandle::Name(Named {
            held,
            way: Mutex::new(way),
            nodes: Arc::clone(self),
            rooms: None,
        })))
    }
}

/// What a node keeps that is found again by name.
#[derive(Debug)]
pub(super) struct Named {
    held: Held,
    /// `None`: no name is known, and the node is held.
    way: Mutex<Option<Way>>,
    nodes: Arc<NamedNodes>,
    /// Where the node has a room until it is dropped, which may be long after its FORGET.
    rooms: Option<Arc<Rooms>>,
}

/// A name that an inode was found by. The parent's node outlives its FORGET for that.
#[derive(Clone, Debug)]
struct Way {
    parent: Arc<Node>,
    name: Box<CStr>,
}

impl Way {
    fn of(parent: &Arc<Node>, name: Name<'_>) -> Way {
        Way {
            parent: Arc::clone(parent),
            name: name.as_c_str().into(),
        }
    }
}

impl Named {
    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    /// Whether the node would be opened by `name` in the directory of `parent`, which may have been forgotten and looked up again.
    pub(super) fn goes_by(&self, parent: &Node, name: Name<'_>) -> bool {
        let way = self.lock();
        way.as_ref()
            .is_some_and(|way| *way.name == *name.as_c_str() && way.parent.key == parent.key)
    }

    /// The same, and by this very node of it, which takes part in renames.
    fn goes_through(&self, parent: &Arc<Node>, name: Name<'_>) -> bool {
        let way = self.lock();
        way.as_ref()
            .is_some_and(|way| *way.name == *name.as_c_str() && Arc::ptr_eq(&way.parent, parent))
    }

    /// The node occupies a room of these until it is dropped.
    pub(super) fn occupies(&mut self, rooms: &Arc<Rooms>) {
        self.rooms = Some(Arc::clone(rooms));
    }

    /// Whether no name is known.
    pub(super) fn has_no_name(&self) -> bool {
        self.lock().is_none()
    }

    /// The name is gone, and the node is held instead.
    pub(super) fn forget_name(&self) {
        self.set(None);
    }

    /// What it replaces may be the last reference to a directory, and is dropped with the lock given back.
    fn set(&self, way: Option<Way>) {
        let old = mem::replace(&mut *self.lock(), way);
        drop(old);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Way>> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Named {
    /// One directory after the other: a guest makes them as deep as it likes, and the stack is not.
    fn drop(&mut self) {
        if let Some(rooms) = &self.rooms {
            rooms.vacate();
        }
        let mut way = mem::take(self.way.get_mut().unwrap_or_else(PoisonError::into_inner));
        while let Some(mut parent) = way.take().and_then(|way| Arc::into_inner(way.parent)) {
            if let Some(named) = parent.identity.named_mut() {
                way = mem::take(named.way.get_mut().unwrap_or_else(PoisonError::into_inner));
            }
        }
    }
}

impl Node {
    /// What the node keeps if it is found again by name.
    pub(super) fn named(&self) -> Option<&Named> {
        self.identity.named()
    }

    /// Remembers that the inode was seen by `name` in `parent`.
    pub(super) fn found_by(&self, parent: &Arc<Node>, name: Name<'_>) {
        let Some(named) = self.named() else { return };
        if named.goes_through(parent, name) {
            return;
        }
        if self.kind != FileType::Directory {
            return named.set(Some(Way::of(parent, name)));
        }
        let moves = &named.nodes.moves;
        let _one_at_a_time = moves.lock().unwrap_or_else(PoisonError::into_inner);
        // Others on the host have moved what lies in between, which the guest has yet to look up.
        if !parent.is_below(self) {
            named.set(Some(Way::of(parent, name)));
        }
    }

    /// Whether the way to this directory leads through `other`, or is too long to tell.
    fn is_below(self: &Arc<Self>, other: &Node) -> bool {
        let mut at = Arc::clone(self);
        for _ in 0..MOST_STEPS {
            if at.id == other.id {
                return true;
            }
            let Some(parent) = at
                .named()
                .and_then(|named| named.lock().as_ref().map(|way| Arc::clone(&way.parent)))
            else {
                return false;
            };
            at = parent;
        }
        true
    }

    /// A descriptor of a node that is found by name: one that is held, or one opened from the nearest directory that has one.
    /// `ESTALE`: its name stands for another inode, or for none.
    pub(super) fn open_by_name(self: &Arc<Self>) -> Result<NodeFd> {
        let mut below = Vec::new();
        let mut at = Arc::clone(self);
        let mut fd = loop {
            let Some(named) = at.named() else {
                break at.descriptor()?;
            };
            if let Some(fd) = named.held.any() {
                break fd;
            }
            let Way { parent, name } = named.lock().clone().ok_or_else(moved)?;
            if below.len() == MOST_STEPS {
                return Err(Errno::ESTALE.rule("the node lies too deep to be opened anew"));
            }
            below.push((mem::replace(&mut at, parent), name));
        };
        while let Some((node, name)) = below.pop() {
            let name = Name::new(&name).ok_or_else(moved)?;
            let opened = Arc::new(node.open_in(fd.as_fd(), name)?);
            node.remember(&opened);
            fd = NodeFd::Path(opened);
        }
        Ok(fd)
    }

    fn open_in(&self, directory: BorrowedFd<'_>, name: Name<'_>) -> Result<PathFd> {
        let fd = PathFd::of_name(directory, name).map_err(|error| match error {
            Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV => moved(),
            error => error,
        })?;
        let Seen { stat, birth } = Seen::of(fd.as_fd())?;
        let (handle, _) = FileHandle::of(fd.as_fd()).of(|| "name_to_handle_at(node)".into())?;
        let key = Key {
            place: Place::of(&stat),
            handle: Some(handle),
        };
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        let same = key == self.key && kind == self.kind && !birth.is_some_and(|birth| self.birth.contradicts(birth));
        same.then_some(fd).ok_or_else(moved)
    }

    /// Has a node that is found by name hold `fd`, which is of its inode, as long as the budget allows.
    pub(super) fn remember(self: &Arc<Self>, fd: &Arc<PathFd>) {
        if let Some(named) = self.named() {
            named.nodes.recent.remember(self, fd);
        }
    }
}

#[cold]
fn moved() -> Errno {
    Errno::ESTALE.rule("others on the host have moved or removed the file while no descriptor of it was held")
}

/// A node whose name is about to change; it is held meanwhile.
pub(super) struct Moving {
    node: Arc<Node>,
    fd: NodeFd,
    /// Whether it is found by the name that changes.
    follows: bool,
}

impl Moving {
    /// `node` is about to lose `name` in `parent` for another one.
    pub(super) fn begin(node: Arc<Node>, parent: &Node, name: Name<'_>) -> Option<Moving> {
        let named = node.named()?;
        let follows = named.goes_by(parent, name) || named.has_no_name();
        let fd = node.descriptor().ok()?;
        named.held.hold(fd.clone());
        Some(Moving { node, fd, follows })
    }

    /// It has got `name` in `parent`.
    pub(super) fn arrive(self, parent: &Arc<Node>, name: Name<'_>) {
        if self.follows {
            self.node.found_by(parent, name);
        }
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        if let Some(named) = self.node.named() {
            named.held.let_go(&self.fd);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::inode::Inodes;
    use super::*;
    use crate::fs::NodeId;

    struct Tree {
        inodes: Inodes,
        named: Arc<NamedNodes>,
        next: u64,
    }

    impl Tree {
        fn with_room(limit: u64) -> Tree {
            let root = PathFd::of_share(std::path::Path::new("/")).unwrap();
            Tree {
                inodes: Inodes::new(place(0), Arc::new(root), limit),
                named: NamedNodes::new(Budget::of_process()),
                next: 1,
            }
        }

        fn root(&self) -> Arc<Node> {
            self.inodes.get(NodeId::ROOT).unwrap()
        }

        fn directory(&mut self, parent: &Arc<Node>) -> Arc<Node> {
            self.try_directory(parent).unwrap()
        }

        fn try_directory(&mut self, parent: &Arc<Node>) -> Result<Arc<Node>> {
            let (place, handle) = (place(self.next), None);
            self.next += 1;
            let identity = || Ok(self.named.found(parent, name(c"d")));
            let key = Key { place, handle };
            let kind = FileType::Directory;
            self.inodes.look_up(key, None, kind, false, None, identity)
        }
    }

    fn place(inode: u64) -> Place {
        Place {
            device: 1,
            inode,
            mount: 1,
        }
    }

    fn name(name: &CStr) -> Name<'_> {
        Name::new(name).unwrap()
    }

    #[test]
    fn directories_as_deep_as_a_guest_likes_are_forgotten_without_recursion() {
        let mut tree = Tree::with_room(u64::MAX);
        let mut deepest = tree.root();
        let first = tree.directory(&deepest);
        let gone = Arc::downgrade(&first);
        deepest = tree.directory(&first);
        drop(first);
        for _ in 0..200_000 {
            let next = tree.directory(&deepest);
            tree.inodes.forget(deepest.id, 1);
            deepest = next;
        }
        assert_eq!(
            deepest.open_by_name().unwrap_err(),
            Errno::ESTALE,
            "too deep to be looked for"
        );
        tree.inodes.forget(NodeId(2), 1);
        assert!(gone.upgrade().is_some(), "it is on the way to what the guest knows");
        tree.inodes.forget(deepest.id, 1);
        drop(deepest);
        assert_eq!(gone.strong_count(), 0);
    }

    #[test]
    fn what_is_forgotten_takes_room_as_long_as_it_is_on_the_way_to_another() {
        let mut tree = Tree::with_room(2);
        let above = tree.directory(&tree.root());
        let below = tree.directory(&above);
        let id = below.id;
        tree.inodes.forget(above.id, 1);
        drop((above, below));
        assert_eq!(tree.try_directory(&tree.root()).err(), Some(Errno::ENFILE));
        tree.inodes.forget(id, 1);
        drop(tree.directory(&tree.root()));
        drop(tree.directory(&tree.root()));
        tree.inodes.clear();
        drop(tree.directory(&tree.root()));
    }

    #[test]
    fn a_directory_is_never_found_below_itself() {
        let mut tree = Tree::with_room(u64::MAX);
        let above = tree.directory(&tree.root());
        let between = tree.directory(&above);
        let below = tree.directory(&between);
        for other in [&above, &between, &below] {
            above.found_by(other, name(c"circle"));
            assert!(!above.named().unwrap().goes_by(other, name(c"circle")));
        }
        below.found_by(&tree.root(), name(c"b"));
        above.found_by(&below, name(c"a"));
        assert!(
            above.named().unwrap().goes_by(&below, name(c"a")),
            "it was moved away first"
        );
        let all = [&above, &between, &below].map(Arc::downgrade);
        tree.inodes.clear();
        drop((above, between, below));
        assert!(all.iter().all(|node| node.strong_count() == 0));
    }
}
