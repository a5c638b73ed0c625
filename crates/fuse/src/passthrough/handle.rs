//! Open files and directories of the guest.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::budget::Permit;
use super::inode::Node;
use super::mounts::Manners;
use super::opening::OpenFd;
use crate::cause::HostResult as _;
use crate::fs::{Errno, Handle, NodeId, Result};

/// What a [`Handle`] of the guest stands for.
pub(super) trait Opened {
    fn node(&self) -> &Arc<Node>;
    fn fd(&self) -> BorrowedFd<'_>;
}

/// An open regular file. Its inode lives as long as it does, even without a name.
#[derive(Debug)]
pub(super) struct OpenFile {
    node: Arc<Node>,
    fd: Arc<OpenFd>,
    _permit: Permit,
    /// Open with O_DIRECT.
    direct: bool,
    /// The same without O_DIRECT, see [`OpenFile::for_pages`].
    for_pages: OnceLock<(OpenFd, Permit)>,
    /// The file system does something when a descriptor is closed (NFS sends what is dirty and reports errors).
    pub(super) flushes: bool,
    /// Reads wait as a rule.
    far: bool,
    /// It has not failed yet to tell whether a read would wait.
    tells: AtomicBool,
    /// The last read found that it would wait.
    waited: AtomicBool,
}

/// How to read a file on a thread that has others to serve.
pub(super) enum Reads {
    /// With RWF_NOWAIT, to learn whether a read would wait.
    Ask,
    /// As it comes. The file system does not tell, and nearly always has the data at hand (tmpfs, overlayfs): to pass each
    /// read to another thread would cost more than the few that wait.
    Here,
    /// On another thread. The file system does not tell, and its data comes from far away (NFS, FUSE); or the disk is always asked
    /// (O_DIRECT). Either way that takes much longer than the passing.
    Elsewhere,
}

impl OpenFile {
    /// `permit` is for `fd`, `manners` are those of its file system, and `direct` is that of O_DIRECT.
    pub(super) fn new(node: Arc<Node>, fd: OpenFd, permit: Permit, manners: Manners, direct: bool) -> OpenFile {
        let fd = Arc::new(fd);
        node.hold_open(&fd);
        OpenFile {
            node,
            fd,
            _permit: permit,
            direct,
            for_pages: OnceLock::new(),
            flushes: manners.flushes,
            far: manners.far || direct,
            // Past the page cache, a read that need not wait for a lock still waits for the disk.
            tells: AtomicBool::new(!direct),
            waited: AtomicBool::new(false),
        }
    }

    /// The descriptor for pages that the guest writes back: the last one ends with the file, which O_DIRECT refuses. `reopen` opens
    /// the file without that flag. Where it fails, the file is open without it from now on: no page may get lost.
    pub(super) fn for_pages(&self, reopen: impl FnOnce(&OpenFd) -> Result<(OpenFd, Permit)>) -> Result<BorrowedFd<'_>> {
        if !self.direct {
            return Ok(self.fd());
        }
        if let Some((fd, _)) = self.for_pages.get() {
            return Ok(fd.as_fd());
        }
        if let Ok(reopened) = reopen(&self.fd) {
            return Ok(self.for_pages.get_or_init(|| reopened).0.as_fd());
        }
        fcntl_getfl(&self.fd)
            .and_then(|flags| fcntl_setfl(&self.fd, flags.difference(OFlags::DIRECT)))
            .of(|| "fcntl(file, F_SETFL)".into())?;
        Ok(self.fd())
    }

    /// How to read it on a thread that has others to serve.
    pub(super) fn reads(&self) -> Reads {
        match self.tells.load(Ordering::Relaxed) {
            true => Reads::Ask,
            false if self.far => Reads::Elsewhere,
            false => Reads::Here,
        }
    }

    pub(super) fn waited(&self) -> bool {
        self.waited.load(Ordering::Relaxed)
    }

    pub(super) fn set_waited(&self, waited: bool) {
        // Most often it is so already, and others may be looking.
        if self.waited() != waited {
            self.waited.store(waited, Ordering::Relaxed);
        }
    }

    /// Its file system knows no RWF_NOWAIT.
    pub(super) fn does_not_tell(&self) {
        self.tells.store(false, Ordering::Relaxed);
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.node.let_go_open(&self.fd);
    }
}

impl Opened for OpenFile {
    fn node(&self) -> &Arc<Node> {
        &self.node
    }
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn unknown_handle() -> Errno {
    Errno::EBADF.rule("the node has no such handle")
}

const SHARDS: usize = 16;

/// All open handles of one kind. Numbers go up and are never used twice.
#[derive(Debug)]
pub(super) struct Handles<T> {
    shards: [RwLock<HashMap<Handle, Arc<T>>>; SHARDS],
    next: AtomicU64,
}

impl<T: Opened> Handles<T> {
    /// Files take even numbers, directories odd ones, so that a handle says which it is.
    pub(super) fn new(first: u64) -> Handles<T> {
        Handles {
            shards: std::array::from_fn(|_| RwLock::default()),
            next: AtomicU64::new(first),
        }
    }

    pub(super) fn insert(&self, opened: T) -> Handle {
        let handle = Handle(self.next.fetch_add(2, Ordering::Relaxed));
        self.shard(handle)
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(handle, Arc::new(opened));
        handle
    }

    /// The open file behind `handle`, which must be one of `node`.
    pub(super) fn get(&self, node: NodeId, handle: Handle) -> Result<Arc<T>> {
        let shard = self.shard(handle).read().unwrap_or_else(PoisonError::into_inner);
        let opened = shard.get(&handle).filter(|opened| opened.node().id == node);
        opened.cloned().ok_or_else(unknown_handle)
    }

    /// Closes `handle` as soon as no other lane works on it.
    pub(super) fn remove(&self, node: NodeId, handle: Handle) -> Result<()> {
        self.get(node, handle)?;
        let removed = self
            .shard(handle)
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&handle);
        // Closed here, with the lock given back: close(2) may block.
        removed.map(drop).ok_or_else(unknown_handle)
    }

    pub(super) fn clear(&self) {
        for shard in &self.shards {
            let handles = std::mem::take(&mut *shard.write().unwrap_or_else(PoisonError::into_inner));
            drop(handles);
        }
    }

    fn shard(&self, handle: Handle) -> &RwLock<HashMap<Handle, Arc<T>>> {
        &self.shards[(handle.0 / 2) as usize % SHARDS]
    }
}
