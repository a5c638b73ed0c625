//! A daemon that may open 64 files, and a guest that knows thousands, where handles do not open: nodes are closed and found again by
//! name. A separate program, because the limit applies to the process.

use std::ffi::{CStr, CString};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fuse::fs::{Caller, Create, DirectorySink, Entry, Errno, FileSystem, Name, Negotiated, NodeId, Result, SetAttr};
use fuse::passthrough::{InodeHandles, Options, Passthrough};
use fuse::wire::InitFlags;
use guestmem::{Memory, Pieces, Writer};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;

use self::image::Image;

#[path = "passthrough/image.rs"]
mod image;

const ROOT: Caller = Caller {
    uid: 0,
    gid: 0,
    pid: 1,
    supplementary_group: None,
};
const TOP: NodeId = NodeId::ROOT;
const LIMIT: u64 = 64;
/// The others are the daemon's.
const GUESTS: u64 = 24;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

struct Share {
    directory: TempDir,
    fs: Passthrough,
    _limited: MutexGuard<'static, ()>,
}

fn share_in(place: &Path, inode_file_handles: InodeHandles) -> Share {
    let limited = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = Some(LIMIT);
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
    let directory = TempDir::new_in(place).unwrap();
    for number in 0..LIMIT {
        fs::write(directory.path().join(format!("other{number}")), "").unwrap();
    }
    let options = Options {
        inode_file_handles,
        ..Options::default()
    };
    let fs = Passthrough::new(directory.path(), options).unwrap();
    let flags = fs.wants(InitFlags::all());
    fs.init(Negotiated { minor: 45, flags }).unwrap();
    Share {
        directory,
        fs,
        _limited: limited,
    }
}

/// Where nodes are found by name: the disk, and a tmpfs.
fn places() -> impl Iterator<Item = PathBuf> {
    [std::env::temp_dir(), PathBuf::from("/dev/shm")]
        .into_iter()
        .filter(|place| place.is_dir())
}

fn name(name: &CStr) -> Name<'_> {
    Name::new(name).unwrap()
}

impl Share {
    fn host(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn lookup(&self, parent: NodeId, entry: &CStr) -> NodeId {
        self.fs.lookup(&ROOT, parent, name(entry)).unwrap().node
    }

    fn size(&self, node: NodeId) -> Result<u64> {
        Ok(self.fs.getattr(&ROOT, node, None)?.0.size)
    }

    fn links(&self, node: NodeId) -> u32 {
        self.fs.getattr(&ROOT, node, None).unwrap().0.nlink
    }

    /// Has every node that can be closed be closed, by use of others; twice, so that none keeps its descriptor for having been used.
    fn crowd_out(&self) {
        for number in (0..LIMIT).chain(0..LIMIT) {
            let entry = CString::new(format!("other{number}")).unwrap();
            let node = self.lookup(TOP, &entry);
            self.size(node).unwrap();
        }
    }

    fn rename(&self, from: (NodeId, &CStr), to: (NodeId, &CStr), flags: u32) -> Result<()> {
        self.fs.rename(&ROOT, (from.0, name(from.1)), (to.0, name(to.1)), flags)
    }

    fn read(&self, node: NodeId) -> Result<Vec<u8>> {
        let handle = self.fs.open(&ROOT, node, libc::O_RDONLY as u32, false)?.handle;
        let (memory, _) = Memory::memfd("test", 1 << 16, 0).unwrap();
        let mut pieces = Pieces::new(&memory);
        pieces.push(0, 100).unwrap();
        let mut out = Writer::new(&pieces);
        self.fs.read(node, handle, 0, 100, &mut out)?;
        let mut bytes = vec![0; out.written()];
        memory.read(0, &mut bytes).unwrap();
        self.fs.release(node, handle)?;
        Ok(bytes)
    }

    fn list(&self, node: NodeId) -> Result<usize> {
        let handle = self.fs.opendir(&ROOT, node, 0)?.handle;
        let mut names = Names(0);
        self.fs.readdir(&ROOT, node, handle, 0, true, &mut names)?;
        self.fs.releasedir(node, handle)?;
        Ok(names.0)
    }
}

/// Counts entries, each of which must have a node.
struct Names(usize);

impl DirectorySink for Names {
    fn add(&mut self, _: &CStr, _: u64, _: u32, _: u64) -> bool {
        self.0 += 1;
        true
    }
    fn fits(&self, _: &CStr) -> bool {
        true
    }
    fn add_plus(&mut self, name: &CStr, _: u64, _: u32, _: u64, entry: Option<&Entry>) -> bool {
        assert!(entry.is_some() || name == c"." || name == c"..", "{name:?} has no node");
        self.0 += 1;
        true
    }
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_guest_walks_and_opens_ten_thousand_files() {
    for (place, handles) in
        places().flat_map(|place| [InodeHandles::Never, InodeHandles::Prefer].map(|handles| (place.clone(), handles)))
    {
        let before = descriptors();
        let share = share_in(&place, handles);
        let most = before + GUESTS as usize + 5; // the share's own
        let (mut directories, mut files) = (Vec::new(), Vec::new());
        for outer in 0..10 {
            let outer = CString::new(format!("outer{outer}")).unwrap();
            let above = share.lookup_made(TOP, &outer);
            for inner in 0..10 {
                let inner = CString::new(format!("inner{inner}")).unwrap();
                let directory = share.lookup_made(above, &inner);
                directories.push(directory);
                let on_host = share.directory.path().join(outer.to_str().unwrap());
                for file in 0..100 {
                    let entry = format!("file{file}");
                    let path = on_host.join(inner.to_str().unwrap()).join(&entry);
                    fs::write(path, file.to_string()).unwrap();
                    let entry = CString::new(entry).unwrap();
                    let node = share.lookup(directory, &entry);
                    assert_eq!(share.read(node).unwrap(), file.to_string().as_bytes());
                    files.push((node, file.to_string()));
                }
            }
        }
        assert!(descriptors() < most, "{} descriptors", descriptors());
        // From the oldest on, none of which has a descriptor.
        for (node, text) in &files {
            assert_eq!(share.size(*node).unwrap(), text.len() as u64);
        }
        for (node, text) in files.iter().step_by(97) {
            assert_eq!(share.read(*node).unwrap(), text.as_bytes());
            let mode = SetAttr {
                mode: Some(0o640),
                ..SetAttr::default()
            };
            let (attributes, _) = share.fs.setattr(&ROOT, *node, &mode).unwrap();
            assert_eq!(attributes.mode & 0o7777, 0o640);
        }
        for directory in &directories {
            assert_eq!(share.list(*directory).unwrap(), 102);
        }
        assert!(descriptors() < most, "{} descriptors", descriptors());
    }
}

impl Share {
    fn lookup_made(&self, parent: NodeId, entry: &CStr) -> NodeId {
        let create = Create {
            mode: 0o755,
            umask: 0,
            flags: 0,
            device: 0,
        };
        self.fs.mkdir(&ROOT, parent, name(entry), &create).unwrap().node
    }
}

#[test]
fn open_files_take_the_place_of_closed_nodes_until_there_are_too_many() {
    let share = share_in(&std::env::temp_dir(), InodeHandles::Never);
    share.crowd_out();
    let node = share.lookup(TOP, c"other0");
    let opened = (0..LIMIT).map(|_| share.fs.open(&ROOT, node, 0, false).map(|opened| opened.handle));
    let opened: Vec<_> = opened.collect();
    let refusal = opened.iter().find_map(|opened| opened.as_ref().err());
    assert_eq!(refusal, Some(&Errno::ENFILE));
    let number = opened.iter().flatten().count();
    assert_eq!(number as u64, GUESTS);
    // What the guest merely knows still works.
    share.crowd_out();
    fs::write(share.host("new"), "new").unwrap();
    let new = share.lookup(TOP, c"new");
    assert_eq!(share.size(new), Ok(3));
}

#[test]
fn a_closed_node_follows_the_renames_of_the_guest() {
    for place in places() {
        let share = share_in(&place, InodeHandles::Never);
        let (one, two) = (share.lookup_made(TOP, c"one"), share.lookup_made(TOP, c"two"));
        fs::write(share.host("one/file"), "1").unwrap();
        fs::write(share.host("two/file"), "22").unwrap();
        fs::write(share.host("two/third"), "333").unwrap();
        let files = [(one, c"file"), (two, c"file"), (two, c"third")].map(|(parent, name)| share.lookup(parent, name));
        let intact = || {
            share.crowd_out();
            assert_eq!(files.map(|file| share.size(file)), [Ok(1), Ok(2), Ok(3)]);
        };
        intact();
        share.rename((one, c"file"), (one, c"renamed"), 0).unwrap();
        intact();
        share.rename((one, c"renamed"), (two, c"moved"), 0).unwrap();
        intact();
        share
            .rename((two, c"moved"), (two, c"file"), libc::RENAME_EXCHANGE)
            .unwrap();
        intact();
        share.rename((TOP, c"two"), (one, c"below"), 0).unwrap();
        intact();
        assert!(share.rename((TOP, c"one"), (two, c"circle"), 0).is_err());
        let refused = share.rename((two, c"file"), (two, c"third"), libc::RENAME_NOREPLACE);
        assert_eq!(refused, Err(Errno::EEXIST));
        intact();
        // The parents are forgotten before what lies in them.
        share.fs.forget(one, u64::MAX);
        share.fs.forget(two, u64::MAX);
        intact();
        assert_eq!(share.size(two), Err(Errno::ESTALE));
    }
}

#[test]
fn a_node_whose_name_the_guest_takes_is_held() {
    for place in places() {
        let share = share_in(&place, InodeHandles::Never);
        for name in ["gone", "over", "linked", "from"] {
            fs::write(share.host(name), name).unwrap();
        }
        let directory = share.lookup_made(TOP, c"directory");
        let [gone, over, linked] = [c"gone", c"over", c"linked"].map(|entry| share.lookup(TOP, entry));
        share.fs.link(&ROOT, linked, TOP, name(c"link")).unwrap();
        share.lookup(TOP, c"linked"); // the name that it was found by last
        // Its directory is a new node when the name goes.
        let parent = share.lookup_made(TOP, c"parent");
        fs::hard_link(share.host("linked"), share.host("parent/once")).unwrap();
        assert_eq!(share.lookup(parent, c"once"), linked);
        share.fs.forget(parent, u64::MAX);
        let parent = share.lookup(TOP, c"parent");
        share.crowd_out();
        share.fs.unlink(&ROOT, parent, name(c"once")).unwrap();
        share.crowd_out();
        assert_eq!(share.links(linked), 2);
        assert_eq!(share.lookup(TOP, c"linked"), linked);
        share.crowd_out();
        share.fs.unlink(&ROOT, TOP, name(c"gone")).unwrap();
        share.fs.rmdir(&ROOT, TOP, name(c"directory")).unwrap();
        share.rename((TOP, c"from"), (TOP, c"over"), 0).unwrap();
        share.fs.unlink(&ROOT, TOP, name(c"linked")).unwrap();
        share.crowd_out();
        assert_eq!([gone, over, linked].map(|node| share.links(node)), [0, 0, 1]);
        assert_eq!(share.read(gone).unwrap(), b"gone");
        assert_eq!(share.read(linked).unwrap(), b"linked");
        share.size(directory).unwrap();
        // By its other name it is the same, and is held no longer than that is known.
        assert_eq!(share.lookup(TOP, c"link"), linked);
        share.rename((TOP, c"link"), (TOP, c"renamed"), 0).unwrap();
        share.crowd_out();
        assert_eq!(share.links(linked), 1);
    }
}

#[test]
fn a_file_made_without_a_name_is_held_until_it_has_one() {
    for place in places() {
        let share = share_in(&place, InodeHandles::Never);
        let create = Create {
            mode: 0o600,
            umask: 0,
            flags: libc::O_RDWR as u32,
            device: 0,
        };
        // More than the daemon may hold, so that each is let go when it gets its name.
        for number in 0..2 * LIMIT {
            let (entry, opened) = share.fs.tmpfile(&ROOT, TOP, &create).unwrap();
            share.fs.release(entry.node, opened.handle).unwrap();
            share.crowd_out();
            assert_eq!(share.links(entry.node), 0);
            let link = CString::new(format!("named{number}")).unwrap();
            share.fs.link(&ROOT, entry.node, TOP, name(&link)).unwrap();
            assert_eq!(share.links(entry.node), 1);
        }
    }
}

#[test]
fn what_the_host_moves_away_is_stale_until_it_is_found_again() {
    for place in places() {
        let share = share_in(&place, InodeHandles::Never);
        share.lookup_made(TOP, c"directory");
        for name in ["replaced", "removed", "moved"] {
            fs::write(share.host(name), name).unwrap();
        }
        let [replaced, removed, moved] = [c"replaced", c"removed", c"moved"].map(|entry| share.lookup(TOP, entry));
        share.crowd_out();
        fs::write(share.host("new"), "another").unwrap();
        fs::rename(share.host("new"), share.host("replaced")).unwrap();
        fs::remove_file(share.host("removed")).unwrap();
        fs::rename(share.host("moved"), share.host("directory/moved")).unwrap();
        for node in [replaced, removed, moved] {
            assert_eq!(share.size(node), Err(Errno::ESTALE));
            assert_eq!(share.read(node), Err(Errno::ESTALE));
        }
        let new = share.lookup(TOP, c"replaced");
        assert_ne!(new, replaced);
        assert_eq!(share.size(new), Ok(7));
        // A name of one directory leads out of it neither by link nor by kind.
        std::os::unix::fs::symlink("/etc/passwd", share.host("removed")).unwrap();
        assert_eq!(share.size(removed), Err(Errno::ESTALE));
        let directory = share.lookup(TOP, c"directory");
        assert_eq!(share.lookup(directory, c"moved"), moved);
        share.crowd_out();
        assert_eq!(share.size(moved), Ok(5));
    }
}

/// The host turns directories around that the guest knows: what was above lies below.
#[test]
fn ways_never_lead_in_a_circle() {
    let share = share_in(&std::env::temp_dir(), InodeHandles::Never);
    let above = share.lookup_made(TOP, c"above");
    let below = share.lookup_made(above, c"below");
    fs::write(share.host("above/below/file"), "file").unwrap();
    let file = share.lookup(below, c"file");
    fs::rename(share.host("above/below"), share.host("below")).unwrap();
    fs::rename(share.host("above"), share.host("below/above")).unwrap();
    assert_eq!(share.lookup(below, c"above"), above);
    share.crowd_out();
    for node in [above, below, file] {
        assert!(matches!(share.size(node), Ok(_) | Err(Errno::ESTALE)));
    }
    assert_eq!(share.lookup(TOP, c"below"), below);
    assert_eq!(share.lookup(below, c"above"), above);
    share.crowd_out();
    for node in [above, below, file] {
        share.size(node).unwrap();
    }
}

/// ext4 gives the number of a removed inode to the next one at once, if nobody holds it.
#[test]
fn an_inode_with_a_number_used_again_is_never_taken_for_a_closed_node() {
    let image = |make: &[&str]| Image::mount(512 << 20, make, "loop");
    let images = [image(&["mkfs.ext4", "-q"]), image(&["mkfs.xfs", "-q"])];
    let mounted = images.iter().flatten().map(Image::mountpoint);
    let places = places().chain(mounted);
    for (place, age) in places.flat_map(|place| [(place.clone(), 0), (place, 150)]) {
        let share = share_in(&place, InodeHandles::Never);
        let (turns, mut again) = (if age == 0 { 100 } else { 5 }, 0);
        for turn in 0..turns {
            let path = share.host("file");
            let mut file = fs::File::create(&path).unwrap();
            file.write_all(&vec![0; turn]).unwrap();
            drop(file);
            // Old enough to be told by its birth, or not.
            std::thread::sleep(std::time::Duration::from_millis(age));
            let (old, number) = (share.lookup(TOP, c"file"), fs::metadata(&path).unwrap().ino());
            share.crowd_out();
            fs::remove_file(&path).unwrap();
            fs::write(&path, vec![0; 1000 + turn]).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            again += u32::from(fs::metadata(&path).unwrap().ino() == number);
            if turn % 2 == 0 {
                assert_eq!(share.size(old), Err(Errno::ESTALE), "the name stands for another inode");
            }
            let new = share.lookup(TOP, c"file");
            assert_ne!(new, old);
            assert_eq!(share.size(new), Ok(1000 + turn as u64));
            assert_eq!(share.size(old), Err(Errno::ESTALE));
            share.fs.forget(old, u64::MAX);
            share.fs.forget(new, u64::MAX); // which nobody must hold, so that its number is free
            fs::remove_file(&path).unwrap();
        }
        eprintln!("{}: {again} of {turns} numbers were used again", place.display());
    }
}

/// A file system whose inodes nothing but a descriptor tells apart: there, nodes keep theirs, and in the end there are too many.
#[test]
fn nodes_that_nothing_tells_apart_keep_their_descriptors() {
    let place = TempDir::new().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "ramfs", "ramfs"])
        .arg(place.path())
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: needs to mount a ramfs");
    }
    let share = share_in(place.path(), InodeHandles::Never);
    let found = (0..LIMIT).map(|number| {
        let entry = CString::new(format!("other{number}")).unwrap();
        share.fs.lookup(&ROOT, TOP, name(&entry)).map(|entry| entry.node)
    });
    let found: Vec<_> = found.collect();
    let known: Vec<_> = found.iter().flatten().copied().collect();
    assert_eq!(known.len() as u64, GUESTS);
    assert_eq!(found[known.len()], Err(Errno::ENFILE));
    // A removed one lives on.
    fs::remove_file(share.host("other0")).unwrap();
    assert_eq!(share.links(known[0]), 0);
    share.fs.forget(known[1], 1);
    share.lookup(TOP, c"other63");
    drop(share);
    Command::new("umount").arg(place.path()).output().unwrap();
}
