//! Properties of new nodes: modes, masks, ACLs, devices.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use fuse::fs::{Create, Errno, FileSystem, NodeId};
use fuse::passthrough::Options;

use crate::share::{ROOT, USER, create, is_root, name, refused, share};

/// `system.posix_acl_default` as setfacl(1) writes it: owner rwx, user 1234 rwx, group r-x, mask rwx, others ---.
pub(crate) const DEFAULT_ACL: &[u8] = &[
    2, 0, 0, 0, //
    1, 0, 7, 0, 0xff, 0xff, 0xff, 0xff, //
    2, 0, 7, 0, 0xd2, 0x04, 0, 0, //
    4, 0, 5, 0, 0xff, 0xff, 0xff, 0xff, //
    0x10, 0, 7, 0, 0xff, 0xff, 0xff, 0xff, //
    0x20, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
];

#[test]
fn a_file_is_made_exclusively_or_opened() {
    let share = share(Options::default());
    let root = NodeId::ROOT;
    let exclusive = create(0o640, libc::O_RDWR | libc::O_EXCL);
    let (made, opened) = share.fs.create(&ROOT, root, name(c"f"), &exclusive, false).unwrap();
    assert_eq!(made.attr.mode, libc::S_IFREG | 0o640);
    share
        .write(&ROOT, made.node, crate::share::at(opened.handle, 0, 3), b"abc")
        .unwrap();
    assert_eq!(
        refused(share.fs.create(&ROOT, root, name(c"f"), &exclusive, false)),
        Errno::EEXIST
    );
    let (found, _) = share
        .fs
        .create(&ROOT, root, name(c"f"), &create(0o777, libc::O_RDWR), false)
        .unwrap();
    assert_eq!(
        (found.node, found.attr.size, found.attr.mode & 0o7777),
        (made.node, 3, 0o640)
    );
    share
        .fs
        .create(
            &ROOT,
            root,
            name(c"f"),
            &create(0o777, libc::O_RDWR | libc::O_TRUNC),
            false,
        )
        .unwrap();
    assert_eq!(fs::metadata(share.host("f")).unwrap().len(), 0);
    share.fs.forget(made.node, 3);
    assert_eq!(
        refused(share.alive(made.node)),
        Errno::ESTALE,
        "each create counted one lookup"
    );
}

#[test]
fn the_umask_is_the_guests_affair_unless_it_says_otherwise() {
    let plain = share(Options::default());
    let masked = Create {
        umask: 0o077,
        ..create(0o666, libc::O_RDWR)
    };
    plain
        .fs
        .create(&ROOT, NodeId::ROOT, name(c"f"), &masked, false)
        .unwrap();
    assert_eq!(
        fs::metadata(plain.host("f")).unwrap().mode() & 0o7777,
        0o666,
        "the guest has applied it already"
    );

    let with_acls = share(Options {
        posix_acl: true,
        ..Options::default()
    });
    with_acls
        .fs
        .create(&ROOT, NodeId::ROOT, name(c"f"), &masked, false)
        .unwrap();
    with_acls
        .fs
        .mkdir(
            &ROOT,
            NodeId::ROOT,
            name(c"d"),
            &Create {
                umask: 0o022,
                ..create(0o777, 0)
            },
        )
        .unwrap();
    assert_eq!(fs::metadata(with_acls.host("f")).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(with_acls.host("d")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn a_default_acl_takes_the_place_of_the_umask() {
    let share = share(Options {
        posix_acl: true,
        ..Options::default()
    });
    let dir = share
        .fs
        .mkdir(&ROOT, NodeId::ROOT, name(c"d"), &create(0o777, 0))
        .unwrap()
        .node;
    share
        .fs
        .setxattr(&ROOT, dir, c"system.posix_acl_default", DEFAULT_ACL, 0, false)
        .unwrap();
    let masked = Create {
        umask: 0o077,
        ..create(0o666, libc::O_RDWR)
    };
    let (entry, _) = share.fs.create(&ROOT, dir, name(c"f"), &masked, false).unwrap();
    assert_eq!(
        entry.attr.mode & 0o777,
        0o660,
        "mask rwx and mode rw-: the umask has no say"
    );
    share
        .fs
        .getxattr(&ROOT, entry.node, c"system.posix_acl_access", 0)
        .unwrap();
}

#[test]
fn new_nodes_belong_to_the_caller() {
    if !is_root() {
        return;
    }
    let share = share(Options::default());
    let root = NodeId::ROOT;
    let owner = |entry: &str| {
        let found = fs::symlink_metadata(share.host(entry)).unwrap();
        (found.uid(), found.gid())
    };
    let file = create(0o600 | libc::S_IFREG, libc::O_RDWR);
    share.fs.create(&USER, root, name(c"f"), &file, false).unwrap();
    share.fs.mknod(&USER, root, name(c"n"), &file).unwrap();
    share.fs.mkdir(&USER, root, name(c"d"), &file).unwrap();
    share.fs.symlink(&USER, root, name(c"l"), c"target").unwrap();
    for entry in ["f", "n", "d", "l"] {
        assert_eq!(owner(entry), (USER.uid, USER.gid), "{entry}");
    }
    let (entry, _) = share.fs.tmpfile(&USER, root, &file).unwrap();
    assert_eq!((entry.attr.uid, entry.attr.gid), (USER.uid, USER.gid));
    share.fs.create(&ROOT, root, name(c"r"), &file, false).unwrap();
    assert_eq!(owner("r"), (0, 0), "and the next caller is itself again");
}

#[test]
fn the_guests_permission_checks_are_the_ones_that_count() {
    if !is_root() {
        return;
    }
    let share = share(Options::default());
    // The share's root belongs to root with mode 0755: the guest, which knows all groups and capabilities, let the caller pass.
    share
        .fs
        .mkdir(&USER, NodeId::ROOT, name(c"d"), &create(0o700, 0))
        .unwrap();
}

#[test]
fn a_set_group_id_directory_hands_its_group_down() {
    if !is_root() {
        return;
    }
    let share = share(Options::default());
    fs::create_dir(share.host("d")).unwrap();
    std::os::unix::fs::chown(share.host("d"), None, Some(4321)).unwrap();
    fs::set_permissions(share.host("d"), fs::Permissions::from_mode(0o2777)).unwrap();
    let dir = share.node(c"d");
    let below = share.fs.mkdir(&USER, dir, name(c"below"), &create(0o755, 0)).unwrap();
    assert_eq!((below.attr.gid, below.attr.mode & 0o7777), (4321, 0o2755));
    let program = create(0o2755, libc::O_RDWR);
    let (file, _) = share.fs.create(&USER, dir, name(c"f"), &program, false).unwrap();
    assert_eq!(
        (file.attr.gid, file.attr.mode & 0o7777),
        (4321, 0o755),
        "not a member: no set-group-id"
    );
    let member = fuse::fs::Caller {
        supplementary_group: Some(4321),
        ..USER
    };
    let (file, _) = share.fs.create(&member, dir, name(c"g"), &program, false).unwrap();
    assert_eq!(
        (file.attr.gid, file.attr.mode & 0o7777),
        (4321, 0o2755),
        "FUSE_CREATE_SUPP_GROUP says: a member"
    );
}

#[test]
fn devices_are_made_but_not_opened() {
    if !is_root() {
        return;
    }
    let share = share(Options::default());
    let null = Create {
        device: 0x103,
        ..create(libc::S_IFCHR | 0o666, 0)
    };
    let made = share.fs.mknod(&USER, NodeId::ROOT, name(c"null"), &null).unwrap();
    assert_eq!((made.attr.rdev, made.attr.uid), (0x103, USER.uid));
    assert_eq!(
        fs::metadata(share.host("null")).unwrap().rdev(),
        rustix::fs::makedev(1, 3)
    );
    assert_eq!(refused(share.open(made.node, libc::O_RDWR)), Errno::ENXIO);
    for kind in [libc::S_IFDIR, libc::S_IFLNK, libc::S_IFMT] {
        let made = share
            .fs
            .mknod(&ROOT, NodeId::ROOT, name(c"n"), &create(kind | 0o666, 0));
        assert_eq!(refused(made), Errno::EINVAL);
    }
}
