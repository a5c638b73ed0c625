//! Held descriptors of inodes that are opened by their handles or names.
//!
//! An unlinked inode has no name, cannot be opened by its handle on every file system (tmpfs), and is freed when nothing
//! holds it. Opening an inode anew for each request also takes time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::budget::Permit;
use super::opening::{NodeFd, PathFd};

/// Most nodes have none at any time, and there may be a million.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<Option<Box<Descriptors>>>);

#[derive(Debug, Default)]
struct Descriptors {
    /// Of the files that the guest has open, and of what is being renamed.
    open: Vec<NodeFd>,
    /// Until the guest forgets the node: the last name went.
    kept: Option<(NodeFd, Permit)>,
    recent: Option<Recent>,
}

impl Descriptors {
    fn is_empty(&self) -> bool {
        self.open.is_empty() && self.kept.is_none() && self.recent.is_none()
    }
}

/// Kept only because it may be wanted again soon.
#[derive(Debug)]
pub(super) struct Recent {
    fd: Arc<PathFd>,
    _permit: Permit,
    used: bool,
}

/// What [`Held::tire`] did.
pub(super) enum Tired {
    /// It was used since the last call.
    Keeps,
    /// To be dropped where no lock is held: close(2) may block.
    LetsGo(Recent),
    HadNone,
}

impl Held {
    /// One of them, if there is any.
    pub(super) fn any(&self) -> Option<NodeFd> {
        let mut held = self.lock();
        let held = held.as_mut()?;
        if let Some(recent) = &mut held.recent {
            recent.used = true;
            return Some(NodeFd::Path(Arc::clone(&recent.fd)));
        }
        let open = held.open.first();
        open.or(held.kept.as_ref().map(|(fd, _)| fd)).cloned()
    }

    /// Holds `fd` until [`Held::let_go`].
    pub(super) fn hold(&self, fd: NodeFd) {
        self.lock().get_or_insert_default().open.push(fd);
    }

    /// Ends one [`Held::hold`].
    pub(super) fn let_go(&self, fd: &NodeFd) {
        self.change(|held| {
            let place = held.open.iter().position(|open| open.is(fd))?;
            Some(held.open.swap_remove(place))
        });
    }

    /// Holds the inode from now on, unless that is so already.
    pub(super) fn keep(&self, fd: NodeFd, permit: Permit) {
        let mut held = self.lock();
        held.get_or_insert_default().kept.get_or_insert((fd, permit));
    }

    /// Ends [`Held::keep`].
    pub(super) fn keep_no_longer(&self) {
        self.change(|held| held.kept.take());
    }

    /// Holds `fd` until [`Held::tire`], the first call of which spares what is `used`. `false`: there is one already.
    pub(super) fn remember(&self, fd: &Arc<PathFd>, permit: Permit, used: bool) -> bool {
        let mut held = self.lock();
        let recent = &mut held.get_or_insert_default().recent;
        if recent.is_some() {
            return false;
        }
        *recent = Some(Recent {
            fd: Arc::clone(fd),
            _permit: permit,
            used,
        });
        true
    }

    /// Lets go of what is remembered unless it was used since the last call.
    pub(super) fn tire(&self) -> Tired {
        let tired = self.change(|held| match &mut held.recent {
            Some(recent) if recent.used => {
                recent.used = false;
                Some(Tired::Keeps)
            }
            _ => held.recent.take().map(Tired::LetsGo),
        });
        tired.unwrap_or(Tired::HadNone)
    }

    /// Gives up what is remembered, used or not: to be dropped where no lock is held.
    pub(super) fn take_remembered(&self) -> Option<Recent> {
        self.change(|held| held.recent.take())
    }

    /// What `change` takes out is closed with the lock given back: close(2) may block.
    fn change<T>(&self, change: impl FnOnce(&mut Descriptors) -> Option<T>) -> Option<T> {
        let mut held = self.lock();
        let descriptors = held.as_mut()?;
        let removed = change(descriptors);
        if descriptors.is_empty() {
            *held = None;
        }
        drop(held);
        removed
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<Descriptors>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
