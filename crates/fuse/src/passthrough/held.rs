//! Held descriptors of inodes that are known by their handles.
//!
//! An unlinked inode cannot be opened by its handle on every file system (tmpfs), and is freed when nothing holds it.
//! Opening an inode anew for each request also takes time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::budget::Permit;
use super::opening::{NodeFd, OpenFd, PathFd};

/// Most nodes have none at any time, and there may be a million.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<Option<Box<Descriptors>>>);

#[derive(Debug, Default)]
struct Descriptors {
    /// Of the files that the guest has open.
    open: Vec<Arc<OpenFd>>,
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
struct Recent {
    fd: Arc<PathFd>,
    _permit: Permit,
    used: bool,
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
        let open = held.open.first().map(|file| NodeFd::Open(Arc::clone(file)));
        open.or_else(|| held.kept.as_ref().map(|(fd, _)| fd.clone()))
    }

    /// Holds a file that the guest has opened, until [`Held::close`].
    pub(super) fn open(&self, file: &Arc<OpenFd>) {
        self.lock().get_or_insert_default().open.push(Arc::clone(file));
    }

    /// Ends one [`Held::open`].
    pub(super) fn close(&self, file: &Arc<OpenFd>) {
        self.change(|held| {
            let place = held.open.iter().position(|open| Arc::ptr_eq(open, file));
            (place.map(|place| held.open.swap_remove(place)), None)
        });
    }

    /// Holds the inode from now on, unless that is so already.
    pub(super) fn keep(&self, fd: NodeFd, permit: Permit) {
        let mut held = self.lock();
        held.get_or_insert_default().kept.get_or_insert((fd, permit));
    }

    /// Holds `fd` until [`Held::tire`]. `false`: there is one already.
    pub(super) fn remember(&self, fd: &Arc<PathFd>, permit: Permit) -> bool {
        let mut held = self.lock();
        let recent = &mut held.get_or_insert_default().recent;
        if recent.is_some() {
            return false;
        }
        *recent = Some(Recent {
            fd: Arc::clone(fd),
            _permit: permit,
            used: false,
        });
        true
    }

    /// Lets go of what is remembered unless it was used since the last call. Whether it still is remembered.
    pub(super) fn tire(&self) -> bool {
        self.change(|held| match &mut held.recent {
            Some(recent) if recent.used => {
                recent.used = false;
                (None, None)
            }
            _ => (None, held.recent.take()),
        });
        self.lock().as_ref().is_some_and(|held| held.recent.is_some())
    }

    /// Gives up what is remembered, used or not: to be dropped where no lock is held.
    pub(super) fn take_remembered(&self) -> Option<impl Sized + use<>> {
        let mut held = self.lock();
        let taken = held.as_mut()?.recent.take();
        if held.as_ref().is_some_and(|descriptors| descriptors.is_empty()) {
            *held = None;
        }
        taken
    }

    /// What `change` takes out is closed with the lock given back: close(2) may block.
    fn change(&self, change: impl FnOnce(&mut Descriptors) -> (Option<Arc<OpenFd>>, Option<Recent>)) {
        let mut held = self.lock();
        let Some(descriptors) = held.as_mut() else { return };
        let removed = change(descriptors);
        if descriptors.is_empty() {
            *held = None;
        }
        drop(held);
        drop(removed);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<Descriptors>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
