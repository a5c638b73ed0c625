//! Names whose kind changes during every operation that opens something: two devices of one directory, two queues
//! each.
//!
//! In any order, only regular files and directories are ever opened for I/O, and the answer to a LOOKUP describes one
//! inode. `INNKEEPER_TEST_TURNS` sets the number of requests for each kind of identity.

use std::collections::VecDeque;
use std::env;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, makedev};
use tempfile::TempDir;

use self::image::Image;
use super::super::handle::Opened as _;
use super::super::{InodeHandles, Options, Passthrough, pause, stat};
use crate::fs::{Caller, Create, DirectorySink, Entry, FileSystem, Handle, Name, Negotiated, NodeId, Result, SetAttr};
use crate::wire::InitFlags;

#[path = "../../../tests/passthrough/image.rs"]
mod image;

const ROOT: Caller = Caller {
    uid: 0,
    gid: 0,
    pid: 1,
    supplementary_group: None,
};
/// Few, so that each is made and removed all the time.
const NAMES: [&CStr; 4] = [c"a", c"b", c"c", c"d"];
/// Never removed but exchanged all the time, so that their inodes are old enough to be told by their birth.
const OLD: [&CStr; 4] = [c"directory", c"device", c"fifo", c"file"];
const QUEUES: u64 = 2;
/// Nodes and open files that a queue keeps.
const KEPT: usize = 8;
/// Requests between two looks at all descriptors of the process.
const SCAN_EVERY: u64 = 256;

fn turns() -> u64 {
    env::var("INNKEEPER_TEST_TURNS").map_or(12_000, |turns| turns.parse().unwrap())
}

/// A guest's queue: sends requests of its own accord and checks what became of each.
struct Queue<'a> {
    fs: &'a Passthrough,
    random: u64,
    nodes: VecDeque<NodeId>,
    files: VecDeque<(NodeId, Handle)>,
    directories: VecDeque<(NodeId, Handle)>,
}

impl Queue<'_> {
    fn below(&mut self, end: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 16) % end
    }

    fn name(&mut self) -> Name<'static> {
        let index = self.below(NAMES.len() as u64);
        Name::new(NAMES[index as usize]).unwrap()
    }

    fn old(&mut self) -> Name<'static> {
        let index = self.below(OLD.len() as u64);
        Name::new(OLD[index as usize]).unwrap()
    }

    fn node(&mut self) -> Option<NodeId> {
        let index = self.below(self.nodes.len().max(1) as u64);
        self.nodes.get(index as usize).copied()
    }

    fn turn(&mut self) {
        let (root, name) = (NodeId::ROOT, self.name());
        match self.below(32) {
            0..8 => self.make(name),
            8..12 => drop(self.fs.unlink(&ROOT, root, name)),
            12 => drop(self.fs.rmdir(&ROOT, root, name)),
            13 => drop(self.fs.rename(&ROOT, (root, name), (root, self.name()), 0)),
            14..16 => {
                let (one, other) = ((root, self.old()), (root, self.old()));
                let _ = self.fs.rename(&ROOT, one, other, libc::RENAME_EXCHANGE);
            }
            16..22 => {
                let name = if self.below(3) == 0 { self.old() } else { name };
                if let Ok(entry) = self.fs.lookup(&ROOT, root, name) {
                    self.meet(&entry);
                    self.open(entry.node);
                }
            }
            22 => drop(self.node().map(|node| self.open(node))),
            23 => {
                // As if others had needed the descriptors.
                self.fs.named.recent().forget_all();
                if let Some(node) = self.node() {
                    self.open(node);
                }
            }
            24 => drop(self.node().map(|node| self.map(node))),
            25 => drop(self.node().map(|node| self.open_directory(node))),
            26 => self.list(),
            27 => drop(self.node().map(|node| self.shorten(node))),
            28 => {
                if let Some(Ok(entry)) = self.node().map(|node| self.fs.link(&ROOT, node, root, name)) {
                    self.meet(&entry);
                }
            }
            29 => self.create(name),
            30 => drop(self.node().map(|node| self.fs.getattr(&ROOT, node, None))),
            // Waits for the disk, so that it is rare.
            _ if self.below(256) == 0 => drop(self.node().map(|node| self.fs.syncfs(node))),
            _ => self.forget_all(),
        }
    }

    fn make(&mut self, name: Name<'_>) {
        let kind = self.below(8);
        if let Ok(entry) = make(self.fs, name, kind) {
            self.meet(&entry);
        }
    }

    fn create(&mut self, name: Name<'_>) {
        let flags = if self.below(2) == 0 {
            libc::O_RDWR
        } else {
            libc::O_WRONLY | libc::O_TRUNC
        };
        let create = create(libc::S_IFREG | 0o644, flags as u32, 0);
        if let Ok((entry, opened)) = self.fs.create(&ROOT, NodeId::ROOT, name, &create, false) {
            self.meet(&entry);
            self.keep_file(entry.node, opened.handle);
        }
    }

    /// Attributes and node must be of one inode.
    fn meet(&mut self, entry: &Entry) {
        let node = self.fs.node(entry.node).unwrap();
        let said = FileType::from_raw_mode(entry.attr.mode);
        assert_eq!(
            said, node.kind,
            "LOOKUP answered attributes of one inode with the node of another"
        );
        // Without a name left its handle may open no more.
        if let Ok(fd) = node.descriptor() {
            let stat = stat::of(fd.as_fd()).unwrap();
            let is = (FileType::from_raw_mode(stat.stx_mode.into()), stat.stx_ino);
            assert_eq!(
                (said, entry.attr.ino),
                is,
                "LOOKUP answered attributes of another inode"
            );
        }
        self.nodes.push_back(entry.node);
        if self.nodes.len() > KEPT {
            let oldest = self.nodes.pop_front().unwrap();
            self.fs.forget(oldest, 1);
        }
    }

    fn open(&mut self, node: NodeId) {
        const FLAGS: [i32; 4] = [
            libc::O_RDONLY,
            libc::O_RDWR,
            libc::O_WRONLY,
            libc::O_RDWR | libc::O_TRUNC,
        ];
        let flags = FLAGS[self.below(4) as usize] as u32;
        if let Ok(opened) = self.fs.open(&ROOT, node, flags, false) {
            self.keep_file(node, opened.handle);
        }
    }

    fn keep_file(&mut self, node: NodeId, handle: Handle) {
        must_be(
            self.fs.files.get(node, handle).unwrap().fd(),
            FileType::RegularFile,
            "OPEN",
        );
        self.files.push_back((node, handle));
        if self.files.len() > KEPT {
            let (node, handle) = self.files.pop_front().unwrap();
            self.fs.release(node, handle).unwrap();
        }
    }

    fn map(&mut self, node: NodeId) {
        let write = self.below(2) == 0;
        if let Ok(mappable) = self.fs.open_for_mapping(node, write) {
            must_be(mappable.file.as_fd(), FileType::RegularFile, "SETUPMAPPING");
        }
    }

    fn open_directory(&mut self, node: NodeId) {
        let Ok(opened) = self.fs.opendir(&ROOT, node, 0) else {
            return;
        };
        let directory = self.fs.directories.get(node, opened.handle).unwrap();
        must_be(directory.fd(), FileType::Directory, "OPENDIR");
        self.directories.push_back((node, opened.handle));
        if self.directories.len() > KEPT {
            let (node, handle) = self.directories.pop_front().unwrap();
            self.fs.releasedir(node, handle).unwrap();
        }
    }

    fn list(&mut self) {
        let root = NodeId::ROOT;
        let handle = self.fs.opendir(&ROOT, root, 0).unwrap().handle;
        let mut met = Met(Vec::new());
        self.fs.readdir(&ROOT, root, handle, 0, true, &mut met).unwrap();
        self.fs.releasedir(root, handle).unwrap();
        met.0.iter().for_each(|entry| self.meet(entry));
    }

    fn shorten(&mut self, node: NodeId) {
        let size = Some(self.below(8192));
        let change = SetAttr {
            size,
            ..SetAttr::default()
        };
        let _ = self.fs.setattr(&ROOT, node, &change);
    }

    /// Lets inode numbers be used again.
    fn forget_all(&mut self) {
        for (node, handle) in self.files.drain(..) {
            self.fs.release(node, handle).unwrap();
        }
        for (node, handle) in self.directories.drain(..) {
            self.fs.releasedir(node, handle).unwrap();
        }
        for node in self.nodes.drain(..) {
            self.fs.forget(node, 1);
        }
    }
}

/// Has `fs` make one of every kind that there is, most often a file.
fn make(fs: &Passthrough, name: Name<'_>, kind: u64) -> Result<Entry> {
    let (kind, device) = match kind {
        0 => return fs.symlink(&ROOT, NodeId::ROOT, name, c"a"),
        1 => return fs.mkdir(&ROOT, NodeId::ROOT, name, &create(0o755, 0, 0)),
        2 => (libc::S_IFIFO, 0),
        3 => (libc::S_IFSOCK, 0),
        // /dev/zero, and a loop device: both open without any effect on the host.
        4 => (libc::S_IFCHR, makedev(1, 5) as u32),
        5 => (libc::S_IFBLK, makedev(7, 0) as u32),
        _ => (libc::S_IFREG, 0),
    };
    fs.mknod(&ROOT, NodeId::ROOT, name, &create(kind | 0o644, 0, device))
}

/// The entries of a READDIRPLUS.
struct Met(Vec<Entry>);

impl DirectorySink for Met {
    fn add(&mut self, _: &CStr, _: u64, _: u32, _: u64) -> bool {
        true
    }
    fn fits(&self, _: &CStr) -> bool {
        true
    }
    fn add_plus(&mut self, _: &CStr, _: u64, _: u32, _: u64, entry: Option<&Entry>) -> bool {
        self.0.extend(entry);
        true
    }
}

fn create(mode: u32, flags: u32, device: u32) -> Create {
    Create {
        mode,
        umask: 0,
        flags,
        device,
    }
}

fn must_be(fd: BorrowedFd<'_>, kind: FileType, operation: &str) {
    let stat = fstat(fd).unwrap();
    assert_eq!(
        FileType::from_raw_mode(stat.st_mode),
        kind,
        "{operation} opened something else"
    );
    let flags = fcntl_getfl(fd).unwrap();
    assert!(!flags.contains(OFlags::PATH), "{operation} opened nothing");
}

/// Looks at every descriptor of the process while no request is at work: of what lies on `device`, only regular files and
/// directories may be open without O_PATH.
fn scan(device: u64) {
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let number = entry.unwrap().file_name().into_string().unwrap();
        let fd = std::fs::File::options()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open(format!("/proc/self/fd/{number}"));
        // The directory that is being read here is gone when its own turn comes.
        let Ok(stat) = fd.and_then(|fd| Ok(fstat(&fd)?)) else {
            continue;
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if stat.st_dev != device || matches!(kind, FileType::RegularFile | FileType::Directory) {
            continue;
        }
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
        assert!(flags & libc::O_PATH != 0, "descriptor {number} of a {kind:?} is open");
    }
}

/// All of it on the file system that `place` lies on. False where nodes cannot be kept in that way there.
fn race(place: &Path, inode_file_handles: InodeHandles) -> bool {
    let share = TempDir::new_in(place).unwrap();
    let device = rustix::fs::stat(share.path()).unwrap().st_dev;
    let options = Options {
        inode_file_handles,
        ..Options::default()
    };
    let device_of_share = || Passthrough::new(share.path(), options.clone());
    let (Ok(first), Ok(second)) = (device_of_share(), device_of_share()) else {
        eprintln!("skipped: no file handles in {}", place.display());
        return false;
    };
    let devices = [first, second];
    for fs in &devices {
        let flags = fs.wants(InitFlags::all());
        fs.init(Negotiated { minor: 45, flags }).unwrap();
    }
    for (name, kind) in OLD.into_iter().zip([1, 4, 2, 6]) {
        // Where devices cannot be made there is one kind less.
        let _ = make(&devices[0], Name::new(name).unwrap(), kind).map(|entry| devices[0].forget(entry.node, 1));
    }
    thread::sleep(Duration::from_millis(200)); // which makes them old
    let (turn, end) = (AtomicU64::new(0), turns());
    let at_work = RwLock::new(());
    thread::scope(|scope| {
        for (index, fs) in (0..QUEUES).flat_map(|_| &devices).enumerate() {
            let (turn, at_work) = (&turn, &at_work);
            scope.spawn(move || {
                let seed = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(index as u64 + 1);
                pause::set(seed);
                let mut queue = Queue {
                    fs,
                    random: seed,
                    nodes: VecDeque::new(),
                    files: VecDeque::new(),
                    directories: VecDeque::new(),
                };
                let _reached = Reached(turn, inode_file_handles);
                loop {
                    let now = turn.fetch_add(1, Ordering::Relaxed);
                    if now >= end {
                        break;
                    }
                    if now % SCAN_EVERY == 0 {
                        let _alone = at_work.write().unwrap();
                        scan(device);
                    }
                    let _one_of_many = at_work.read().unwrap();
                    queue.turn();
                }
            });
        }
    });
    true
}

/// Says, when a thread panics, how far it came.
struct Reached<'a>(&'a AtomicU64, InodeHandles);

impl Drop for Reached<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            // The others end with it.
            let reached = self.0.swap(u64::MAX / 2, Ordering::Relaxed);
            eprintln!("file handles {:?}: turn {reached}", self.1);
        }
    }
}

/// Where tests run in any case: the disk, and a tmpfs.
fn everywhere(inode_file_handles: InodeHandles) {
    for place in [env::temp_dir(), PathBuf::from("/dev/shm")] {
        if place.is_dir() {
            race(&place, inode_file_handles);
        }
    }
}

#[test]
fn nothing_but_files_and_directories_is_opened_where_nodes_are_kept_by_handle() {
    everywhere(InodeHandles::Prefer);
}

#[test]
fn nothing_but_files_and_directories_is_opened_where_handles_are_mandatory() {
    everywhere(InodeHandles::Mandatory);
}

#[test]
fn nothing_but_files_and_directories_is_opened_where_nodes_are_kept_by_descriptor() {
    everywhere(InodeHandles::Never);
}

#[test]
#[ignore = "takes minutes, root, loop devices, mkfs.ext4 and mkfs.xfs; INNKEEPER_TEST_TURNS=1000000"]
fn nothing_but_files_and_directories_is_opened_on_ext4_xfs_and_tmpfs() {
    let image = |make: &[&str]| Image::mount(512 << 20, make, "loop").expect("it was asked for");
    let images = [
        image(&["mkfs.ext4", "-q"]),
        image(&["mkfs.ext4", "-q", "-O", "^has_journal"]),
        image(&["mkfs.xfs", "-q"]),
    ];
    let places = images.iter().map(Image::mountpoint).chain([PathBuf::from("/dev/shm")]);
    for (place, name) in places.zip(["ext4", "ext4 without a journal", "xfs", "tmpfs"]) {
        for identity in [InodeHandles::Prefer, InodeHandles::Mandatory, InodeHandles::Never] {
            assert!(race(&place, identity), "{name} has file handles");
            eprintln!("{name}, file handles {identity:?}: {} turns", turns());
        }
    }
}
