//! Lookup counts, identities, and lifetimes of nodes without a name.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use fuse::fs::{Errno, FileSystem, Negotiated, NodeId};
use fuse::passthrough::{InodeHandles, Options, Passthrough};
use fuse::wire::{ATTR_SUBMOUNT, InitFlags};
use tempfile::TempDir;

use crate::share::{IDENTITIES, Listing, ROOT, by, create, is_root, name, refused, share, share_in, share_of};

#[test]
fn every_lookup_counts_once_and_the_last_forget_drops() {
    for identity in IDENTITIES {
        let share = share(by(identity));
        fs::write(share.host("f"), "x").unwrap();
        let node = share.node(c"f");
        assert_eq!(share.node(c"f"), node);
        share.fs.link(&ROOT, node, NodeId::ROOT, name(c"g")).unwrap();
        assert_eq!(share.node(c"g"), node, "a hard link is the same node");
        share.fs.forget(node, 3);
        share.alive(node).unwrap();
        share.fs.forget(node, 1);
        assert_eq!(refused(share.alive(node)), Errno::ESTALE);
        assert_ne!(share.node(c"f"), node, "ids are never used twice");
    }
}

#[test]
fn the_root_survives_any_forget() {
    let share = share(by(InodeHandles::Prefer));
    share.fs.forget(NodeId::ROOT, u64::MAX);
    share.alive(NodeId::ROOT).unwrap();
}

#[test]
fn forgetting_too_often_loses_the_node_and_no_more() {
    for identity in IDENTITIES {
        let share = share(by(identity));
        fs::write(share.host("f"), "x").unwrap();
        let node = share.node(c"f");
        share.fs.forget(node, u64::MAX);
        share.fs.forget(node, u64::MAX);
        share.fs.forget(NodeId(77), 1);
        assert_eq!(refused(share.alive(node)), Errno::ESTALE);
        let again = share.node(c"f");
        share.fs.forget(node, 1);
        share.alive(again).unwrap();
    }
}

#[test]
fn concurrent_lookups_and_forgets_balance() {
    for identity in IDENTITIES {
        let share = share(by(identity));
        fs::write(share.host("f"), "x").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let node = share.node(c"f");
                        share.alive(node).unwrap();
                        share.fs.forget(node, 1);
                    }
                });
            }
        });
        let node = share.node(c"f");
        share.fs.forget(node, 1);
        assert_eq!(refused(share.alive(node)), Errno::ESTALE, "no lookup was left over");
    }
}

#[test]
fn a_recreated_inode_number_is_a_new_node() {
    for identity in IDENTITIES {
        let share = share(by(identity));
        fs::write(share.host("f"), "old").unwrap();
        let old = share.lookup(NodeId::ROOT, c"f").unwrap();
        // ext4 gives the number of a removed inode to the next one, if nobody holds it.
        fs::remove_file(share.host("f")).unwrap();
        fs::write(share.host("f"), "newer").unwrap();
        let new = share.lookup(NodeId::ROOT, c"f").unwrap();
        assert_ne!(old.node, new.node);
        assert_eq!(new.attr.size, 5);
        // By handle the old inode is gone; by descriptor it lives on. The new one it is in neither case.
        match share.fs.getattr(&ROOT, old.node, None) {
            Ok((attr, _)) => assert_eq!((attr.size, attr.nlink), (3, 0)),
            Err(error) => assert_eq!(error, Errno::ESTALE),
        }
    }
}

#[test]
fn an_inode_number_recreated_long_after_is_a_new_node_too() {
    for identity in IDENTITIES {
        let share = share(by(identity));
        fs::write(share.host("f"), "old").unwrap();
        let young = share.node(c"f");
        // Longer than any tick of the clock that times of birth are taken from: from here on attributes tell the node.
        std::thread::sleep(std::time::Duration::from_millis(150));
        for _ in 0..2 {
            assert_eq!(share.node(c"f"), young);
        }
        fs::remove_file(share.host("f")).unwrap();
        fs::write(share.host("f"), "newer").unwrap();
        for _ in 0..2 {
            let new = share.lookup(NodeId::ROOT, c"f").unwrap();
            assert_ne!(new.node, young);
            assert_eq!(new.attr.size, 5);
        }
        share.fs.forget(young, u64::MAX);
        assert_eq!(refused(share.alive(young)), Errno::ESTALE);
    }
}

#[test]
fn descriptors_of_nodes_in_use_are_remembered_within_bounds() {
    if !is_root() {
        return;
    }
    let share = share(by(InodeHandles::Mandatory));
    let names: Vec<_> = (0..6000).map(|number| number.to_string()).collect();
    for name in &names {
        fs::write(share.host(name), "x").unwrap();
    }
    let nodes = names
        .iter()
        .map(|name| share.node(&std::ffi::CString::new(name.as_str()).unwrap()));
    let nodes: Vec<_> = nodes.collect();
    for &node in &nodes {
        share.alive(node).unwrap();
    }
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    assert!((2000..5000).contains(&open()), "{} descriptors", open());
    for &node in &nodes {
        share.fs.forget(node, 1);
    }
    assert!(open() < 2000, "{} descriptors of forgotten nodes", open());
}

#[test]
fn a_node_removed_by_the_guest_lives_until_forgotten() {
    for place in ["/tmp", "/dev/shm"]
        .map(Path::new)
        .into_iter()
        .filter(|place| place.is_dir())
    {
        for identity in IDENTITIES {
            let share = share_in(place, by(identity));
            fs::write(share.host("f"), "x").unwrap();
            fs::write(share.host("over"), "yy").unwrap();
            fs::create_dir(share.host("d")).unwrap();
            symlink("target", share.host("l")).unwrap();
            let nodes = [c"f", c"over", c"d", c"l"].map(|entry| share.node(entry));
            let root = NodeId::ROOT;
            share.fs.unlink(&ROOT, root, name(c"l")).unwrap();
            share.fs.rmdir(&ROOT, root, name(c"d")).unwrap();
            share
                .fs
                .rename(&ROOT, (root, name(c"f")), (root, name(c"over")), 0)
                .unwrap();
            share.fs.unlink(&ROOT, root, name(c"over")).unwrap();
            for node in nodes {
                share.alive(node).unwrap();
            }
            assert_eq!(share.fs.readlink(&ROOT, nodes[3]).unwrap(), b"target");
            let made = share
                .fs
                .create(&ROOT, nodes[2], name(c"x"), &create(0o600, libc::O_RDWR), false);
            assert_eq!(refused(made), Errno::ENOENT, "nothing is made in a removed directory");
        }
    }
}

#[test]
fn an_open_file_removed_on_the_host_still_tells_its_attributes() {
    for place in ["/tmp", "/dev/shm"]
        .map(Path::new)
        .into_iter()
        .filter(|place| place.is_dir())
    {
        for identity in IDENTITIES {
            let share = share_in(place, by(identity));
            fs::write(share.host("f"), "x").unwrap();
            let node = share.node(c"f");
            let first = share.open(node, libc::O_RDONLY).unwrap();
            let second = share.open(node, libc::O_RDONLY).unwrap();
            share.fs.release(node, first).unwrap();
            fs::remove_file(share.host("f")).unwrap();
            share.alive(node).unwrap();
            assert_eq!(share.fs.getattr(&ROOT, node, Some(second)).unwrap().0.nlink, 0);
            assert_eq!(share.read(node, second, 0, 10).unwrap(), b"x");
        }
    }
}

#[test]
fn a_file_without_a_name_can_get_one() {
    for identity in IDENTITIES {
        let share = share(by(identity));
        let (entry, opened) = share
            .fs
            .tmpfile(&ROOT, NodeId::ROOT, &create(0o640, libc::O_RDWR))
            .unwrap();
        let node = entry.node;
        assert_eq!(entry.attr.nlink, 0);
        let to = crate::share::at(opened.handle, 0, 4);
        assert_eq!(share.write(&ROOT, node, to, b"text").unwrap(), 4);
        let linked = share.fs.link(&ROOT, node, NodeId::ROOT, name(c"named")).unwrap();
        assert_eq!((linked.node, linked.attr.nlink), (node, 1));
        assert_eq!(fs::read(share.host("named")).unwrap(), b"text");

        let exclusive = create(0o600, libc::O_RDWR | libc::O_EXCL);
        let (entry, _) = share.fs.tmpfile(&ROOT, NodeId::ROOT, &exclusive).unwrap();
        let linked = share.fs.link(&ROOT, entry.node, NodeId::ROOT, name(c"never"));
        assert_eq!(refused(linked), Errno::ENOENT, "O_EXCL: may never be named");
    }
}

#[test]
fn handles_keep_no_descriptor_a_node() {
    if !is_root() {
        return;
    }
    let share = share(by(InodeHandles::Mandatory));
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    for number in 0..64 {
        fs::write(share.host(&number.to_string()), "x").unwrap();
    }
    let links = |prefix: &Path| {
        let targets = fs::read_dir("/proc/self/fd").unwrap().flatten();
        targets
            .filter(|fd| fs::read_link(fd.path()).is_ok_and(|target| target.starts_with(prefix)))
            .count()
    };
    assert!(open() > 0);
    for number in 0..64 {
        share.node(&std::ffi::CString::new(number.to_string()).unwrap());
    }
    // The share itself and the anchor of its mount.
    assert_eq!(links(share.outside.path()), 2);
}

#[test]
fn a_new_session_knows_nothing_of_the_old() {
    let share = share(by(InodeHandles::Prefer));
    fs::write(share.host("f"), "x").unwrap();
    let node = share.node(c"f");
    let handle = share.open(node, libc::O_RDONLY).unwrap();
    share.fs.destroy();
    assert_eq!(refused(share.alive(node)), Errno::ESTALE);
    assert_eq!(refused(share.read(node, handle, 0, 1)), Errno::EBADF);
    share.alive(NodeId::ROOT).unwrap();
    assert_ne!(share.node(c"f"), node);
}

#[test]
fn a_mount_within_the_share_is_announced() {
    let device = |path: &str| {
        fs::metadata(path)
            .ok()
            .map(|found| std::os::unix::fs::MetadataExt::dev(&found))
    };
    if device("/dev/shm").is_none() || device("/dev/shm") == device("/dev") {
        eprintln!("skipped: needs a file system mounted on /dev/shm");
        return;
    }
    for announce_submounts in [true, false] {
        let options = Options {
            announce_submounts,
            ..Options::default()
        };
        let passthrough = Passthrough::new(Path::new("/dev"), options).unwrap();
        let flags = passthrough.wants(InitFlags::all());
        passthrough.init(Negotiated { minor: 45, flags }).unwrap();
        let flags = |entry| passthrough.lookup(&ROOT, NodeId::ROOT, name(entry)).unwrap().attr.flags;
        assert_eq!(flags(c"shm") & ATTR_SUBMOUNT != 0, announce_submounts);
        assert_eq!(flags(c"null") & ATTR_SUBMOUNT, 0);
    }
}

/// tar(1) and cp(1) take two names of one device and one inode number for one file.
#[test]
fn a_guest_that_sees_one_device_sees_no_inode_number_twice() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new_in("/dev/shm").unwrap());
    let device = |directory: &Path| fs::metadata(directory).unwrap().dev();
    let root = device(Path::new("/"));
    if !is_root() || device(here.path()) != root || device(there.path()) == root {
        return eprintln!(
            "skipped: needs root, a file system mounted on /dev/shm, and none on that of temporary files"
        );
    }
    for announce_submounts in [true, false] {
        let options = Options {
            announce_submounts,
            ..Options::default()
        };
        let share = share_of(Path::new("/"), options);
        let walk = |path: &Path| {
            path.components().skip(1).fold(NodeId::ROOT, |parent, component| {
                let component = CString::new(component.as_os_str().as_bytes()).unwrap();
                share.lookup(parent, &component).unwrap().node
            })
        };
        for (directory, is_alone) in [(&here, true), (&there, false)] {
            let inode = fs::metadata(directory.path()).unwrap().ino();
            let shown = share.fs.getattr(&ROOT, walk(directory.path()), None).unwrap().0.ino;
            let is_the_hosts = announce_submounts || is_alone;
            assert_eq!(shown == inode, is_the_hosts, "{}", directory.path().display());
            let by_statx = share.fs.statx(&ROOT, walk(directory.path()), None, 0, 0).unwrap();
            assert_eq!(by_statx.0.ino, shown);
            let parent = walk(directory.path().parent().unwrap());
            let handle = share.fs.opendir(&ROOT, parent, 0).unwrap().handle;
            let mut listing = Listing::with_room(usize::MAX);
            share.fs.readdir(&ROOT, parent, handle, 0, false, &mut listing).unwrap();
            let name = directory.path().file_name().unwrap().as_bytes();
            let listed = listing.entries.iter().find(|entry| entry.name.to_bytes() == name);
            assert_eq!(listed.unwrap().inode, shown);
        }
    }
}
