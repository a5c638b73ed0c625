//! The guest's share of the daemon's descriptors. A separate program, because the limit applies to the process.

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fuse::fs::{Caller, Create, DirectorySink, Entry, Errno, FileSystem, Name, Negotiated, NodeId};
use fuse::passthrough::{InodeHandles, Options, Passthrough};
use fuse::wire::InitFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;

const ROOT: Caller = Caller {
    uid: 0,
    gid: 0,
    pid: 1,
    supplementary_group: None,
};
const LIMIT: u64 = 256;
/// What the daemon must still be able to open, whatever the guest holds.
const DAEMON: usize = 64;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn limited() -> MutexGuard<'static, ()> {
    let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = Some(LIMIT);
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
    guard
}

fn share(files: u64, inode_file_handles: InodeHandles) -> (TempDir, Passthrough) {
    let directory = TempDir::new().unwrap();
    for number in 0..files {
        fs::write(directory.path().join(format!("f{number}")), "text").unwrap();
    }
    let options = Options {
        inode_file_handles,
        ..Options::default()
    };
    let fs = Passthrough::new(directory.path(), options).unwrap();
    let flags = fs.wants(InitFlags::all());
    fs.init(Negotiated { minor: 45, flags }).unwrap();
    (directory, fs)
}

fn name(name: &CStr) -> Name<'_> {
    Name::new(name).unwrap()
}

fn create() -> Create {
    Create {
        mode: libc::S_IFREG | 0o600,
        umask: 0,
        flags: libc::O_RDWR as u32,
        device: 0,
    }
}

/// The daemon goes on: it opens what it needs.
fn assert_room_for_the_daemon() {
    let opened: Result<Vec<_>, _> = (0..DAEMON).map(|_| File::open("/dev/null")).collect();
    opened.unwrap();
}

/// Calls `step` until it is refused, which must be by ENFILE and before the process runs out.
fn exhaust(mut step: impl FnMut() -> fuse::fs::Result<()>) {
    let refusal = (0..LIMIT).find_map(|_| step().err());
    assert_eq!(refusal, Some(Errno::ENFILE));
    assert_room_for_the_daemon();
}

#[test]
fn open_directories_leave_the_daemon_its_descriptors() {
    let _limited = limited();
    let (_directory, fs) = share(0, InodeHandles::Never);
    let mut last = None;
    exhaust(|| {
        last = Some(fs.opendir(&ROOT, NodeId::ROOT, 0)?.handle);
        Ok(())
    });
    fs.releasedir(NodeId::ROOT, last.unwrap()).unwrap();
    fs.opendir(&ROOT, NodeId::ROOT, 0).unwrap();
    assert_eq!(fs.opendir(&ROOT, NodeId::ROOT, 0).err(), Some(Errno::ENFILE));
    fs.destroy();
    fs.opendir(&ROOT, NodeId::ROOT, 0).unwrap();
}

#[test]
fn open_files_leave_the_daemon_its_descriptors_and_are_not_truncated_in_vain() {
    let _limited = limited();
    for identity in [InodeHandles::Never, InodeHandles::Prefer] {
        let (directory, fs) = share(1, identity);
        let node = fs.lookup(&ROOT, NodeId::ROOT, name(c"f0")).unwrap().node;
        exhaust(|| fs.open(&ROOT, node, libc::O_RDWR as u32, false).map(drop));
        let truncating = (libc::O_RDWR | libc::O_TRUNC) as u32;
        assert_eq!(fs.open(&ROOT, node, truncating, false).err(), Some(Errno::ENFILE));
        assert_eq!(fs::read(directory.path().join("f0")).unwrap(), b"text");
        let made = fs.create(&ROOT, NodeId::ROOT, name(c"new"), &create(), false);
        assert_eq!(made.err(), Some(Errno::ENFILE));
        let made = fs.mknod(&ROOT, NodeId::ROOT, name(c"new"), &create());
        assert_eq!(made.err(), Some(Errno::ENFILE));
        assert!(
            !directory.path().join("new").exists(),
            "nothing is made that cannot be answered"
        );
        // What frees is never refused.
        fs.unlink(&ROOT, NodeId::ROOT, name(c"f0")).unwrap();
    }
}

/// A window holds a descriptor for each file that it shows.
#[test]
fn mapped_files_leave_the_daemon_its_descriptors() {
    let _limited = limited();
    let (_directory, fs) = share(LIMIT, InodeHandles::Prefer);
    let mut mapped = Vec::new();
    let mut number = 0;
    exhaust(|| {
        let entry = CString::new(format!("f{number}")).unwrap();
        let node = fs.lookup(&ROOT, NodeId::ROOT, name(&entry))?.node;
        number += 1;
        mapped.push(fs.open_for_mapping(node, false)?.file);
        Ok(())
    });
    // What is no longer mapped makes room, although its node is known.
    mapped.clear();
    fs.opendir(&ROOT, NodeId::ROOT, 0).unwrap();
}

#[test]
fn descriptors_that_are_only_remembered_give_way_to_open_files() {
    let _limited = limited();
    let (_directory, fs) = share(LIMIT / 2, InodeHandles::Prefer);
    let mut first = None;
    for number in 0..LIMIT / 2 {
        let entry = CString::new(format!("f{number}")).unwrap();
        let node = fs.lookup(&ROOT, NodeId::ROOT, name(&entry)).unwrap().node;
        fs.getattr(&ROOT, node, None).unwrap();
        first = first.or(Some(node));
    }
    let mut opened = 0;
    exhaust(|| {
        fs.open(&ROOT, first.unwrap(), 0, false)?;
        opened += 1;
        Ok(())
    });
    assert_eq!(opened, LIMIT / 2, "half of the limit is the daemon's");
}

#[test]
fn nodes_kept_by_descriptor_leave_the_daemon_its_descriptors() {
    let _limited = limited();
    let (_directory, fs) = share(2 * LIMIT, InodeHandles::Never);
    for number in 0..2 * LIMIT {
        let entry = CString::new(format!("f{number}")).unwrap();
        fs.lookup(&ROOT, NodeId::ROOT, name(&entry)).unwrap();
    }
    assert_room_for_the_daemon();
}

#[test]
fn removals_that_fail_keep_no_descriptor() {
    let _limited = limited();
    let (directory, fs) = share(0, InodeHandles::Prefer);
    if !fs.uses_file_handles() {
        eprintln!("skipped: needs file handles");
        return;
    }
    for number in 0..LIMIT {
        let entry = CString::new(format!("d{number}")).unwrap();
        fs::create_dir_all(directory.path().join(format!("d{number}/below"))).unwrap();
        fs.lookup(&ROOT, NodeId::ROOT, name(&entry)).unwrap();
        assert_eq!(fs.rmdir(&ROOT, NodeId::ROOT, name(&entry)), Err(Errno(libc::ENOTEMPTY)));
    }
    fs.opendir(&ROOT, NodeId::ROOT, 0).unwrap();
    assert_room_for_the_daemon();
}

/// Counts entries, and those with a node.
#[derive(Default)]
struct Count {
    entries: u64,
    nodes: u64,
}

impl DirectorySink for Count {
    fn add(&mut self, _: &CStr, _: u64, _: u32, _: u64) -> bool {
        self.entries += 1;
        true
    }
    fn fits(&self, _: &CStr) -> bool {
        true
    }
    fn add_plus(&mut self, _: &CStr, _: u64, _: u32, _: u64, entry: Option<&Entry>) -> bool {
        self.entries += 1;
        self.nodes += u64::from(entry.is_some());
        true
    }
}

#[test]
fn a_listing_of_more_than_the_daemon_may_open_gives_a_node_for_each_name() {
    let _limited = limited();
    let (_directory, fs) = share(LIMIT, InodeHandles::Never);
    let handle = fs.opendir(&ROOT, NodeId::ROOT, 0).unwrap().handle;
    let mut count = Count::default();
    fs.readdir(&ROOT, NodeId::ROOT, handle, 0, true, &mut count).unwrap();
    assert_eq!(count.entries, LIMIT + 2);
    assert_eq!(count.nodes, LIMIT);
    assert_room_for_the_daemon();
}
