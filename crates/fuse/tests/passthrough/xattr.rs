//! Extended attributes.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use fuse::fs::{Errno, FileSystem, NodeId, Result, XattrReply};
use fuse::passthrough::Options;

use crate::create::DEFAULT_ACL;
use crate::share::{IDENTITIES, ROOT, Share, USER, by, create, is_root, name, refused, share};

fn value(reply: Result<XattrReply>) -> Vec<u8> {
    match reply.unwrap() {
        XattrReply::Value(value) => value,
        XattrReply::Size(size) => panic!("asked for the value, got size {size}"),
    }
}

fn size(reply: Result<XattrReply>) -> u32 {
    match reply.unwrap() {
        XattrReply::Size(size) => size,
        XattrReply::Value(value) => panic!("asked for the size, got {value:?}"),
    }
}

/// One node of each kind, and the attribute name that the kind allows.
fn every_kind(share: &Share) -> Vec<(NodeId, &'static std::ffi::CStr)> {
    fs::write(share.host("f"), "x").unwrap();
    fs::create_dir(share.host("d")).unwrap();
    let mut nodes = vec![(share.node(c"f"), c"user.a"), (share.node(c"d"), c"user.a")];
    if is_root() {
        // user.* is for files and directories alone.
        symlink("f", share.host("l")).unwrap();
        share
            .fs
            .mknod(&ROOT, NodeId::ROOT, name(c"p"), &create(libc::S_IFIFO | 0o600, 0))
            .unwrap();
        nodes.extend([(share.node(c"l"), c"trusted.a"), (share.node(c"p"), c"trusted.a")]);
    }
    nodes
}

#[test]
fn attributes_are_kept_on_nodes_of_every_kind() {
    for identity in IDENTITIES {
        let share = share(by(identity));
        for (node, attribute) in every_kind(&share) {
            let get = |limit| share.fs.getxattr(&ROOT, node, attribute, limit);
            assert_eq!(refused(get(0)), Errno::ENODATA);
            share
                .fs
                .setxattr(&ROOT, node, attribute, b"some value", 0, false)
                .unwrap();
            assert_eq!(size(get(0)), 10);
            assert_eq!(value(get(100)), b"some value");
            assert_eq!(value(get(10)), b"some value");
            assert_eq!(refused(get(9)), Errno::ERANGE);
            assert_eq!(value(get(u32::MAX)), b"some value");
            let create_again = share
                .fs
                .setxattr(&ROOT, node, attribute, b"", libc::XATTR_CREATE as u32, false);
            assert_eq!(refused(create_again), Errno::EEXIST);
            assert_eq!(
                refused(share.fs.setxattr(&ROOT, node, attribute, b"", 64, false)),
                Errno::EINVAL
            );

            let mut expected = attribute.to_bytes_with_nul().to_vec();
            assert_eq!(value(share.fs.listxattr(&ROOT, node, 1000)), expected);
            assert_eq!(size(share.fs.listxattr(&ROOT, node, 0)) as usize, expected.len());
            assert_eq!(refused(share.fs.listxattr(&ROOT, node, 3)), Errno::ERANGE);
            share.fs.removexattr(&ROOT, node, attribute).unwrap();
            assert_eq!(refused(share.fs.removexattr(&ROOT, node, attribute)), Errno::ENODATA);
            expected.clear();
            assert_eq!(value(share.fs.listxattr(&ROOT, node, 1000)), expected);
        }
    }
}

#[test]
fn a_link_has_attributes_of_its_own() {
    if !is_root() {
        return;
    }
    let share = share(Options::default());
    fs::write(share.host("f"), "x").unwrap();
    symlink("f", share.host("l")).unwrap();
    share
        .fs
        .setxattr(&ROOT, share.node(c"l"), c"trusted.of", b"the link", 0, false)
        .unwrap();
    assert_eq!(
        refused(share.fs.getxattr(&ROOT, share.node(c"f"), c"trusted.of", 100)),
        Errno::ENODATA
    );
    let on_link = share.fs.setxattr(&ROOT, share.node(c"l"), c"user.of", b"", 0, false);
    assert_eq!(refused(on_link), Errno::EPERM);
}

/// xattr(7)
#[test]
fn trusted_attributes_are_shown_to_root_alone() {
    if !is_root() {
        return;
    }
    let share = share(Options::default());
    fs::write(share.host("f"), "x").unwrap();
    let node = share.node(c"f");
    for attribute in [c"trusted.a", c"user.a"] {
        share.fs.setxattr(&ROOT, node, attribute, b"", 0, false).unwrap();
    }
    assert_eq!(value(share.fs.listxattr(&USER, node, 1000)), b"user.a\0");
    assert_eq!(size(share.fs.listxattr(&USER, node, 0)), 7);
    assert_eq!(size(share.fs.listxattr(&ROOT, node, 0)), 17);
}

#[test]
fn attributes_can_be_turned_off() {
    let share = share(Options {
        xattr: false,
        ..Options::default()
    });
    let root = NodeId::ROOT;
    assert_eq!(refused(share.fs.getxattr(&ROOT, root, c"user.a", 0)), Errno::ENOSYS);
    assert_eq!(refused(share.fs.listxattr(&ROOT, root, 0)), Errno::ENOSYS);
    assert_eq!(
        refused(share.fs.setxattr(&ROOT, root, c"user.a", b"", 0, false)),
        Errno::ENOSYS
    );
    assert_eq!(refused(share.fs.removexattr(&ROOT, root, c"user.a")), Errno::ENOSYS);
}

#[test]
fn acls_are_for_guests_that_enforce_them() {
    let acl = c"system.posix_acl_default";
    let enforcing = share(Options {
        posix_acl: true,
        ..Options::default()
    });
    enforcing
        .fs
        .setxattr(&ROOT, NodeId::ROOT, acl, DEFAULT_ACL, 0, false)
        .unwrap();
    assert_eq!(
        value(enforcing.fs.getxattr(&ROOT, NodeId::ROOT, acl, 1000)),
        DEFAULT_ACL
    );
    assert_eq!(
        value(enforcing.fs.listxattr(&ROOT, NodeId::ROOT, 1000)),
        acl.to_bytes_with_nul()
    );

    let plain = share(Options::default());
    let set = plain.fs.setxattr(&ROOT, NodeId::ROOT, acl, DEFAULT_ACL, 0, false);
    assert_eq!(refused(set), Errno::EOPNOTSUPP);
    assert_eq!(
        refused(plain.fs.getxattr(&ROOT, NodeId::ROOT, acl, 0)),
        Errno::EOPNOTSUPP
    );
    // One that the host has set stays out of sight.
    rustix::fs::setxattr(plain.host(""), acl, DEFAULT_ACL, rustix::fs::XattrFlags::empty()).unwrap();
    assert_eq!(size(plain.fs.listxattr(&ROOT, NodeId::ROOT, 0)), 0);
}

#[test]
fn an_acl_drops_set_group_id_when_the_guest_says_so() {
    if !is_root() {
        return;
    }
    let share = share(Options {
        posix_acl: true,
        ..Options::default()
    });
    for (kill, expected) in [(false, 0o2000), (true, 0)] {
        fs::write(share.host("f"), "x").unwrap();
        fs::set_permissions(share.host("f"), fs::Permissions::from_mode(0o2755)).unwrap();
        let acl = c"system.posix_acl_access";
        share
            .fs
            .setxattr(&ROOT, share.node(c"f"), acl, DEFAULT_ACL, 0, kill)
            .unwrap();
        assert_eq!(
            fs::metadata(share.host("f")).unwrap().permissions().mode() & 0o7000,
            expected
        );
    }
}
