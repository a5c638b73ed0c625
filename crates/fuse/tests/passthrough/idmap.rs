//! Callers that have no id on an idmapped mount (FUSE 7.41).

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use fuse::fs::{Caller, Errno, FileSystem, NodeId, XattrReply};
use fuse::passthrough::Options;
use fuse::wire::InitFlags;

use crate::share::{Share, USER, at, create, is_root, name, refused, share};

const UNNAMED: Caller = Caller {
    uid: Caller::UNNAMED,
    gid: Caller::UNNAMED,
    pid: 0,
    supplementary_group: None,
};
const FS_IOC_SETFLAGS: u32 = 0x4008_6602;
const FS_NODUMP_FL: u32 = 0x40;

fn idmapped() -> Share {
    share(Options {
        allow_idmap: true,
        ..Options::default()
    })
}

#[test]
fn idmapped_mounts_are_allowed_where_they_are_asked_for_and_callers_can_be_told_apart() {
    let offered = |share: &Share| share.fs.wants(InitFlags::all()).contains(InitFlags::ALLOW_IDMAP);
    assert!(!offered(&share(Options::default())));
    let share = idmapped();
    assert_eq!(offered(&share), share.fs.changes_identity());
}

#[test]
fn what_is_made_belongs_to_the_mapped_caller_and_to_nobody_else() {
    if !is_root() {
        return;
    }
    let share = idmapped();
    let made = share
        .fs
        .create(&USER, NodeId::ROOT, name(c"f"), &create(0o644, 2), false);
    made.unwrap();
    assert_eq!(fs::metadata(share.host("f")).unwrap().uid(), USER.uid);
    let refusal = share.fs.mkdir(&UNNAMED, NodeId::ROOT, name(c"d"), &create(0o755, 0));
    assert_eq!(refused(refusal), Errno::EOVERFLOW);
    assert!(!share.host("d").exists());
}

/// The guest's kernel has checked what they may do.
#[test]
fn all_that_makes_nothing_is_done_for_an_unnamed_caller() {
    if !is_root() {
        return;
    }
    let share = idmapped();
    fs::write(share.host("f"), "before").unwrap();
    chown(share.host("f"), Some(USER.uid), Some(USER.gid)).unwrap();
    let node = share.node(c"f");
    let handle = share
        .fs
        .open(&UNNAMED, node, libc::O_RDWR as u32, false)
        .unwrap()
        .handle;
    assert_eq!(share.write(&UNNAMED, node, at(handle, 0, 5), b"after"), Ok(5));
    share.fs.fallocate(&UNNAMED, node, handle, 0, 0, 4096).unwrap();
    share.fs.access(&UNNAMED, node, 2).unwrap();
    let flags = FS_NODUMP_FL.to_ne_bytes();
    match share.fs.ioctl(&UNNAMED, node, handle, FS_IOC_SETFLAGS, &flags, 0) {
        Err(Errno::ENOTTY) => eprintln!("skipped: the file system has no inode flags"),
        changed => drop(changed.unwrap()),
    }
    share.fs.setxattr(&UNNAMED, node, c"trusted.t", b"v", 0, false).unwrap();
    let XattrReply::Value(list) = share.fs.listxattr(&UNNAMED, node, 1024).unwrap() else {
        panic!("the list was asked for");
    };
    assert_eq!(list, b"trusted.t\0", "a backup of the guest's root sees it");
    assert!(fs::read(share.host("f")).unwrap().starts_with(b"aftere"));
}
