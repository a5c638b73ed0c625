//! Names, none of which leads out of the share.

use std::ffi::{CStr, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, symlink};

use fuse::fs::{Errno, FileSystem, Name, NodeId};
use fuse::passthrough::Options;

use crate::share::{IDENTITIES, Listing, ROOT, by, create, name, refused, share};

#[test]
fn only_single_components_are_names() {
    for hostile in [c"", c".", c"..", c"/", c"a/b", c"/etc", c"../x", c"x/"] {
        assert_eq!(Name::new(hostile), None, "{hostile:?}");
    }
    assert!(Name::new(c"...").is_some());
}

#[test]
fn a_symbolic_link_is_a_node_and_never_followed() {
    for identity in IDENTITIES {
        let share = share(by(identity));
        fs::write(share.outside.path().join("secret"), "s").unwrap();
        for (entry, target) in [("abs", "/"), ("up", "../secret"), ("proc", "/proc/self/root")] {
            symlink(target, share.host(entry)).unwrap();
        }
        for entry in [c"abs", c"up", c"proc"] {
            let found = share.lookup(NodeId::ROOT, entry).unwrap();
            let node = found.node;
            assert_eq!(found.attr.mode & libc::S_IFMT, libc::S_IFLNK);
            assert_eq!(refused(share.open(node, libc::O_RDONLY)), Errno::ELOOP);
            assert_eq!(refused(share.fs.opendir(&ROOT, node, 0)), Errno::ENOTDIR);
            assert_eq!(refused(share.lookup(node, c"etc")), Errno::ENOTDIR);
            let made = share
                .fs
                .create(&ROOT, node, name(c"x"), &create(0o600, libc::O_RDWR), false);
            assert_eq!(refused(made), Errno::ENOTDIR);
            let through = share
                .fs
                .create(&ROOT, NodeId::ROOT, name(entry), &create(0o600, libc::O_RDWR), false);
            assert_eq!(refused(through), Errno::ELOOP);
        }
        assert_eq!(share.fs.readlink(&ROOT, share.node(c"up")).unwrap(), b"../secret");
        assert_eq!(fs::read(share.outside.path().join("secret")).unwrap(), b"s");
    }
}

#[test]
fn a_directory_moved_out_of_the_share_is_no_way_out() {
    for identity in IDENTITIES {
        let share = share(by(identity));
        fs::create_dir_all(share.host("d/below")).unwrap();
        fs::write(share.outside.path().join("secret"), "s").unwrap();
        let d = share.node(c"d");
        let below = share.lookup(d, c"below").unwrap().node;
        fs::rename(share.host("d"), share.outside.path().join("gone")).unwrap();
        // The guest holds both directories, but can go no further up: `..` is no name.
        share.alive(below).unwrap();
        assert_eq!(refused(share.lookup(d, c"secret")), Errno::ENOENT);
        assert_eq!(refused(share.lookup(below, c"secret")), Errno::ENOENT);
    }
}

#[test]
fn the_parent_of_the_root_is_the_root() {
    let share = share(Options::default());
    let handle = share.fs.opendir(&ROOT, NodeId::ROOT, 0).unwrap().handle;
    for plus in [false, true] {
        let mut listing = Listing::with_room(9);
        share
            .fs
            .readdir(&ROOT, NodeId::ROOT, handle, 0, plus, &mut listing)
            .unwrap();
        let inode = share.fs.getattr(&ROOT, NodeId::ROOT, None).unwrap().0.ino;
        for entry in &listing.entries {
            assert_eq!((entry.inode, entry.node), (inode, None), "{:?}", entry.name);
        }
        assert_eq!(listing.entries.len(), 2);
    }
}

#[test]
fn special_files_are_never_opened_on_the_host() {
    let share = share(Options::default());
    for (entry, mode) in [(c"fifo", libc::S_IFIFO), (c"socket", libc::S_IFSOCK)] {
        let made = share
            .fs
            .mknod(&ROOT, NodeId::ROOT, name(entry), &create(mode | 0o644, 0))
            .unwrap();
        let node = made.node;
        for flags in [
            libc::O_RDONLY,
            libc::O_WRONLY,
            libc::O_RDWR | libc::O_NONBLOCK,
            libc::O_RDONLY | libc::O_TRUNC,
        ] {
            assert_eq!(refused(share.open(node, flags)), Errno::ENXIO);
        }
        let through = share
            .fs
            .create(&ROOT, NodeId::ROOT, name(entry), &create(0o600, libc::O_RDWR), false);
        assert_eq!(refused(through), Errno::ENXIO);
    }
    assert!(fs::metadata(share.host("fifo")).unwrap().file_type().is_fifo());
}

#[test]
fn names_are_bytes() {
    let share = share(Options::default());
    let long = [b'n'; 255];
    let long = std::ffi::CString::new(long).unwrap();
    let odd: [&CStr; 5] = [c"\xff\xfe", c"new\nline", c" ", c"-rf", &long];
    for entry in odd {
        share
            .fs
            .mkdir(&ROOT, NodeId::ROOT, name(entry), &create(0o755, 0))
            .unwrap();
        assert!(
            fs::metadata(
                share
                    .outside
                    .path()
                    .join("share")
                    .join(OsStr::from_bytes(entry.to_bytes()))
            )
            .is_ok()
        );
        share.fs.rmdir(&ROOT, NodeId::ROOT, name(entry)).unwrap();
    }
    let longer = std::ffi::CString::new([b'n'; 256]).unwrap();
    assert_eq!(refused(share.lookup(NodeId::ROOT, &longer)), Errno::ENAMETOOLONG);
}

#[test]
fn renames_keep_their_flags() {
    let share = share(Options::default());
    fs::write(share.host("a"), "a").unwrap();
    fs::write(share.host("b"), "b").unwrap();
    let root = NodeId::ROOT;
    let rename = |flags| share.fs.rename(&ROOT, (root, name(c"a")), (root, name(c"b")), flags);
    assert_eq!(refused(rename(libc::RENAME_NOREPLACE)), Errno::EEXIST);
    rename(libc::RENAME_EXCHANGE).unwrap();
    assert_eq!(fs::read(share.host("a")).unwrap(), b"b");
    assert_eq!(refused(rename(1 << 30)), Errno::EINVAL);
    if crate::share::is_root() {
        rename(libc::RENAME_WHITEOUT).unwrap();
        let whiteout = share.lookup(root, c"a").unwrap().attr;
        assert_eq!((whiteout.mode & libc::S_IFMT, whiteout.rdev), (libc::S_IFCHR, 0));
    }
}

#[test]
fn a_read_only_share_refuses_every_change() {
    let share = share(Options {
        readonly: true,
        ..Options::default()
    });
    fs::write(share.host("f"), "x").unwrap();
    let root = NodeId::ROOT;
    let node = share.node(c"f");
    let new = create(0o600 | libc::S_IFREG, libc::O_RDWR);
    let mode = fuse::fs::SetAttr {
        mode: Some(0o777),
        ..Default::default()
    };
    let refusals = [
        share.fs.mknod(&ROOT, root, name(c"n"), &new).map(drop),
        share.fs.mkdir(&ROOT, root, name(c"n"), &new).map(drop),
        share.fs.symlink(&ROOT, root, name(c"n"), c"t").map(drop),
        share.fs.link(&ROOT, node, root, name(c"n")).map(drop),
        share.fs.create(&ROOT, root, name(c"n"), &new, false).map(drop),
        share.fs.create(&ROOT, root, name(c"f"), &new, false).map(drop),
        share.fs.tmpfile(&ROOT, root, &new).map(drop),
        share.fs.unlink(&ROOT, root, name(c"f")),
        share.fs.rmdir(&ROOT, root, name(c"f")),
        share.fs.rename(&ROOT, (root, name(c"f")), (root, name(c"g")), 0),
        share.fs.setattr(&ROOT, node, &mode).map(drop),
        share.fs.setxattr(&ROOT, node, c"user.a", b"v", 0, false),
        share.fs.removexattr(&ROOT, node, c"user.a"),
        share.fs.access(&ROOT, node, libc::W_OK as u32),
        share.open(node, libc::O_WRONLY).map(drop),
        share.open(node, libc::O_RDONLY | libc::O_TRUNC).map(drop),
    ];
    assert_eq!(refusals, [Err(Errno::EROFS); 16]);
    let (_, opened) = share
        .fs
        .create(&ROOT, root, name(c"f"), &create(0o600, libc::O_RDONLY), false)
        .unwrap();
    assert_eq!(share.read(node, opened.handle, 0, 9).unwrap(), b"x");
}
