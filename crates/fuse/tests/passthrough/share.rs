//! A shared temporary directory and helpers for requests in it.

use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};

use fuse::fs::{
    Caller, Create, DirectorySink, Entry, Errno, FileSystem, Handle, Name, Negotiated, NodeId, Result, WriteTo,
};
use fuse::passthrough::{InodeHandles, Options, Passthrough};
use fuse::wire::InitFlags;
use guestmem::{Memory, Pieces, Reader, Writer};
use tempfile::TempDir;

/// The guest's root.
pub(crate) const ROOT: Caller = Caller {
    uid: 0,
    gid: 0,
    pid: 1,
    supplementary_group: None,
};
/// An ordinary user of the guest.
pub(crate) const USER: Caller = Caller {
    uid: 1000,
    gid: 1001,
    pid: 2,
    supplementary_group: None,
};

/// Nodes kept by descriptor, and by handle where that works.
pub(crate) const IDENTITIES: [InodeHandles; 2] = [InodeHandles::Never, InodeHandles::Prefer];

pub(crate) struct Share {
    /// Holds the share and what must not be reached from it.
    pub(crate) outside: TempDir,
    pub(crate) fs: Passthrough,
}

/// Whether the test may go on; only root changes owners and identities.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

pub(crate) fn by(inode_file_handles: InodeHandles) -> Options {
    Options {
        inode_file_handles,
        ..Options::default()
    }
}

pub(crate) fn share(options: Options) -> Share {
    share_in(&std::env::temp_dir(), options)
}

pub(crate) fn share_in(place: &Path, options: Options) -> Share {
    let outside = TempDir::new_in(place).unwrap();
    let directory = outside.path().join("share");
    std::fs::create_dir(&directory).unwrap();
    let fs = started(&directory, options);
    Share { outside, fs }
}

/// A directory that is there already.
pub(crate) fn share_of(directory: &Path, options: Options) -> Share {
    let fs = started(directory, options);
    Share {
        outside: TempDir::new().unwrap(),
        fs,
    }
}

fn started(directory: &Path, options: Options) -> Passthrough {
    let fs = Passthrough::new(directory, options).unwrap();
    let flags = fs.wants(InitFlags::all());
    fs.init(Negotiated { minor: 45, flags }).unwrap();
    fs
}

pub(crate) fn name(name: &CStr) -> Name<'_> {
    Name::new(name).unwrap()
}

pub(crate) fn create(mode: u32, flags: i32) -> Create {
    Create {
        mode,
        umask: 0,
        flags: flags as u32,
        device: 0,
    }
}

impl Share {
    /// Where `name` lies on the host.
    pub(crate) fn host(&self, name: &str) -> PathBuf {
        self.outside.path().join("share").join(name)
    }

    pub(crate) fn lookup(&self, parent: NodeId, entry: &CStr) -> Result<Entry> {
        self.fs.lookup(&ROOT, parent, name(entry))
    }

    /// The node of an entry of the root, with one lookup counted.
    pub(crate) fn node(&self, entry: &CStr) -> NodeId {
        self.lookup(NodeId::ROOT, entry).unwrap().node
    }

    pub(crate) fn open(&self, node: NodeId, flags: i32) -> Result<Handle> {
        Ok(self.fs.open(&ROOT, node, flags as u32, false)?.handle)
    }

    pub(crate) fn alive(&self, node: NodeId) -> Result<()> {
        self.fs.getattr(&ROOT, node, None).map(drop)
    }

    pub(crate) fn write(&self, by: &Caller, node: NodeId, to: WriteTo, data: &[u8]) -> Result<u32> {
        let (memory, _) = Memory::memfd("test", 1 << 20, 0).unwrap();
        memory.write(8, data).unwrap();
        let mut pieces = Pieces::new(&memory);
        pieces.push(8, data.len() as u64).unwrap();
        self.fs.write(by, node, &to, &mut Reader::new(&pieces))
    }

    pub(crate) fn read(&self, node: NodeId, handle: Handle, offset: u64, len: u32) -> Result<Vec<u8>> {
        let (memory, _) = Memory::memfd("test", 1 << 20, 0).unwrap();
        let mut pieces = Pieces::new(&memory);
        // Two pieces, so that the file lands in both.
        pieces.push(0x1000, 3).unwrap();
        pieces.push(0x2000, u64::from(len)).unwrap();
        let mut out = Writer::new(&pieces);
        self.fs.read(node, handle, offset, len, &mut out)?;
        let read = out.written();
        let mut bytes = vec![0; read];
        let first = read.min(3);
        memory.read(0x1000, &mut bytes[..first]).unwrap();
        memory.read(0x2000, &mut bytes[first..]).unwrap();
        Ok(bytes)
    }
}

pub(crate) fn at(handle: Handle, offset: u64, len: usize) -> WriteTo {
    WriteTo {
        handle,
        offset,
        len: len as u32,
        flags: 0,
        open_flags: 0,
    }
}

/// Collects entries until `room` are there.
pub(crate) struct Listing {
    pub(crate) room: usize,
    pub(crate) entries: Vec<Listed>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: CString,
    pub(crate) inode: u64,
    pub(crate) kind: u32,
    pub(crate) offset: u64,
    pub(crate) node: Option<NodeId>,
}

impl Listing {
    pub(crate) fn with_room(room: usize) -> Listing {
        Listing {
            room,
            entries: Vec::new(),
        }
    }

    pub(crate) fn names(&self) -> Vec<CString> {
        self.entries.iter().map(|entry| entry.name.clone()).collect()
    }

    fn put(&mut self, name: &CStr, inode: u64, kind: u32, offset: u64, node: Option<NodeId>) -> bool {
        let room = self.entries.len() < self.room;
        if room {
            self.entries.push(Listed {
                name: name.to_owned(),
                inode,
                kind,
                offset,
                node,
            });
        }
        room
    }
}

impl DirectorySink for Listing {
    fn add(&mut self, name: &CStr, inode: u64, kind: u32, offset: u64) -> bool {
        self.put(name, inode, kind, offset, None)
    }
    fn fits(&self, _name: &CStr) -> bool {
        self.entries.len() < self.room
    }
    fn add_plus(&mut self, name: &CStr, inode: u64, kind: u32, offset: u64, entry: Option<&Entry>) -> bool {
        self.put(name, inode, kind, offset, entry.map(|entry| entry.node))
    }
}

pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T>) -> Errno {
    result.unwrap_err()
}
