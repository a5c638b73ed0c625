//! Listing directories.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FileType, SeekFrom, seek};

use super::budget::{Budget, Permit, ReadAhead};
use super::handle;
use super::inode::Node;
use super::opening::OpenFd;
use super::{CacheMode, Passthrough};
use crate::cause::HostResult as _;
use crate::fs::{DirectorySink, Errno, Handle, Name, NodeId, Opened, Result};
use crate::{sys, wire};

/// Bytes of entries asked of the host at once.
const CHUNK: usize = 32 << 10;
/// Where the name starts in `struct linux_dirent64`: after inode (8), offset (8), record length (2) and type (1).
const NAME_AT: usize = 19;

/// An open directory.
#[derive(Debug)]
pub(super) struct OpenDirectory {
    pub(super) node: Arc<Node>,
    pub(super) fd: OpenFd,
    pub(super) position: Mutex<Position>,
    pub(super) _permit: Permit,
}

impl handle::Opened for OpenDirectory {
    fn node(&self) -> &Arc<Node> {
        &self.node
    }
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Where the guest's reading of a directory stands, with the entries the host gave beyond it.
#[derive(Debug, Default)]
pub(super) struct Position {
    entries: Vec<u8>,
    at: usize,
    /// Offset of the entry at `at`, as the guest will ask for it.
    offset: u64,
    /// For what is kept from one request to the next.
    kept: Option<ReadAhead>,
    /// The host's reading has gone beyond `offset`, and what it gave was not kept.
    lost: bool,
}

/// One entry as the host gives it.
struct HostEntry<'p> {
    inode: u64,
    /// Of the next entry.
    offset: u64,
    kind: u32,
    name: &'p CStr,
    length: usize,
}

impl Position {
    fn peek(&self) -> Option<HostEntry<'_>> {
        let record = self.entries.get(self.at..)?;
        let (inode, rest) = record.split_first_chunk::<8>()?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        let (length, _) = rest.split_first_chunk::<2>()?;
        let length = u16::from_ne_bytes(*length).into();
        let name = CStr::from_bytes_until_nul(record.get(NAME_AT..length)?).ok()?;
        let kind = record[NAME_AT - 1].into();
        Some(HostEntry {
            inode: u64::from_ne_bytes(*inode),
            offset: u64::from_ne_bytes(*offset),
            kind,
            name,
            length,
        })
    }

    fn restart(&mut self, offset: u64) {
        *self = Position {
            offset,
            ..Position::default()
        };
    }

    /// Between requests only what is still to be asked for stays, and not that where too much stays already: a guest may open
    /// directories by the million and read a little of each.
    fn rest(&mut self, budget: &Budget) {
        self.kept = None; // else it would count twice
        let left = self.entries.get(self.at..).unwrap_or_default();
        self.kept = (!left.is_empty()).then(|| budget.keep(left.len())).flatten();
        if self.kept.is_none() {
            self.lost = !left.is_empty();
            self.entries = Vec::new();
        } else if left.len() < self.entries.capacity() {
            self.entries = left.to_vec();
        }
        self.at = 0;
    }

    /// The next entries of the host; `false` at the end.
    fn fill(&mut self, fd: BorrowedFd<'_>) -> Result<bool> {
        self.at = 0;
        self.entries.resize(CHUNK, 0);
        let filled = sys::directory_entries(fd, &mut self.entries);
        self.entries.truncate(*filled.as_ref().unwrap_or(&0));
        Ok(filled.of(|| "getdents64(directory)".into())? > 0)
    }
}

impl Passthrough {
    pub(super) fn open_directory(&self, node: NodeId) -> Result<Opened> {
        let node = self.node(node)?;
        if node.kind != FileType::Directory {
            return Err(Errno::ENOTDIR.rule("the node is no directory"));
        }
        let permit = self.permit()?;
        let fd = OpenFd::directory(&node.descriptor()?)?;
        let flags = match self.options.cache {
            CacheMode::Never | CacheMode::Auto => 0,
            CacheMode::Metadata | CacheMode::Always => wire::FOPEN_CACHE_DIR | wire::FOPEN_KEEP_CACHE,
        };
        let handle = self.directories.insert(OpenDirectory {
            node,
            fd,
            position: Mutex::default(),
            _permit: permit,
        });
        Ok(Opened { handle, flags })
    }

    pub(super) fn read_directory(
        &self,
        node: NodeId,
        handle: Handle,
        offset: u64,
        plus: bool,
        sink: &mut dyn DirectorySink,
    ) -> Result<()> {
        let directory = self.directories.get(node, handle)?;
        let mut position = directory.position.lock().unwrap_or_else(PoisonError::into_inner);
        let read = self.read_from(&directory, &mut position, offset, plus, sink);
        position.rest(&self.budget);
        read
    }

    fn read_from(
        &self,
        directory: &OpenDirectory,
        position: &mut Position,
        offset: u64,
        plus: bool,
        sink: &mut dyn DirectorySink,
    ) -> Result<()> {
        let fd = directory.fd.as_fd();
        // From the start means what is there now (rewinddir(3)), not what was read ahead.
        if offset == 0 || offset != position.offset || position.lost {
            seek(fd, SeekFrom::Start(offset)).of(|| format!("lseek(directory, {offset}, SEEK_SET)"))?;
            position.restart(offset);
        }
        let mut added = false;
        loop {
            while let Some(entry) = position.peek() {
                let outcome = self.put(directory, &entry, plus, sink);
                let (offset, length) = (entry.offset, entry.length);
                match outcome {
                    Put::Added => added = true,
                    Put::Gone => {}
                    Put::Full if added => return Ok(()),
                    // An empty answer would mean the end; getdents(2) says so too.
                    Put::Full => return Err(Errno::EINVAL.rule("the guest left no room for a single entry")),
                }
                position.at += length;
                position.offset = offset;
            }
            match position.fill(fd) {
                Ok(true) => {}
                // The next read meets the error again, with nothing to lose.
                Err(error) if !added => return Err(error),
                Ok(false) | Err(_) => return Ok(()),
            }
        }
    }

    fn put(&self, directory: &OpenDirectory, entry: &HostEntry<'_>, plus: bool, sink: &mut dyn DirectorySink) -> Put {
        let &HostEntry {
            mut inode,
            offset,
            kind,
            name,
            ..
        } = entry;
        if directory.node.id == NodeId::ROOT && name == c".." {
            inode = directory.node.key.place.inode; // what lies above the share is none of the guest's business
        }
        inode = self.shown_number(directory.node.key.place.device, inode);
        // `.` and `..` are no names and take no lookup.
        let Some(single) = Name::new(name).filter(|_| plus) else {
            let added = match plus {
                true => sink.add_plus(name, inode, kind, offset, None),
                false => sink.add(name, inode, kind, offset),
            };
            return if added { Put::Added } else { Put::Full };
        };
        if !sink.fits(name) {
            return Put::Full;
        }
        let found = match self.find_in(&directory.node, directory.fd.as_fd(), single, None) {
            Ok(found) => Some(found.entry),
            Err(Errno::ENOENT) => return Put::Gone,
            // Its name is there all the same; the guest looks it up when it wants more (fuse_direntplus: node id 0).
            Err(_) => None,
        };
        if sink.add_plus(name, inode, kind, offset, found.as_ref()) {
            return Put::Added;
        }
        if let Some(entry) = found {
            self.inodes.forget(entry.node, 1);
        }
        Put::Full
    }
}

/// What became of an entry.
enum Put {
    Added,
    /// Removed since the host listed it.
    Gone,
    Full,
}
