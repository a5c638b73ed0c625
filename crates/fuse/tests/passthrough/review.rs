//! Findings of a review: these fail. The second needs mkfs.btrfs and btrfs in PATH.

use std::fs;
use std::process::Command;

use crate::image::Image;
use crate::share::{Share, USER, by, name, share_of};
use fuse::fs::{Errno, FileSystem, NodeId};
use fuse::passthrough::{InodeHandles, Options};

/// The blocks that the host keeps for root go to extended attributes of an ordinary user's files, since SETXATTR is done as root.
#[test]
fn attributes_do_not_fill_what_the_host_keeps_for_root() {
    let Some(image) = Image::mount(
        64 << 20,
        &["mkfs.ext4", "-q", "-m", "20", "-b", "4096", "-i", "4096"],
        "loop",
    ) else {
        return;
    };
    let figures = || rustix::fs::statvfs(image.mountpoint()).unwrap();
    let share = share_of(&image.mountpoint(), Options::default());
    // An ordinary user fills what is there for ordinary users: that is refused as it should be.
    fs::write(
        image.mountpoint().join("filler"),
        vec![7; figures().f_bavail as usize * figures().f_bsize as usize - (2 << 20)],
    )
    .unwrap();
    rustix::fs::syncfs(fs::File::open(image.mountpoint()).unwrap()).unwrap();
    let kept = figures().f_bfree - figures().f_bavail;
    let mut nodes = Vec::new();
    for number in 0..10_000 {
        let file = std::ffi::CString::new(format!("f{number}")).unwrap();
        let made = share.fs.mknod(
            &USER,
            NodeId::ROOT,
            name(&file),
            &crate::share::create(libc::S_IFREG | 0o644, 0),
        );
        let Ok(entry) = made else { break };
        nodes.push(entry.node);
    }
    eprintln!("{} files", nodes.len());
    let mut stored = 0;
    for node in nodes {
        // Each takes a block; different values, so that none are shared.
        let mut value = vec![0; 3000];
        value[..8].copy_from_slice(&node.0.to_ne_bytes());
        match share.fs.setxattr(&USER, node, c"user.a", &value, 0, false) {
            Ok(()) => stored += 1,
            Err(Errno(libc::ENOSPC)) => break,
            Err(error) => panic!("{error:?}"),
        }
    }
    rustix::fs::syncfs(fs::File::open(image.mountpoint()).unwrap()).unwrap();
    let left = figures().f_bfree;
    eprintln!(
        "{stored} attributes; {left} of {kept} kept blocks of {} are left",
        figures().f_bsize
    );
    assert!(
        left * 10 > kept * 9,
        "{stored} attributes; {left} of {kept} kept blocks are left"
    );
}

fn btrfs(arguments: &[&str], at: &std::path::Path) {
    let output = Command::new("btrfs").args(arguments).current_dir(at).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn contents(share: &Share, node: NodeId) -> Vec<u8> {
    let handle = share.open(node, libc::O_RDONLY).unwrap();
    let bytes = share.read(node, handle, 0, 100).unwrap();
    share.fs.release(node, handle).unwrap();
    bytes
}

#[test]
fn a_file_of_a_new_snapshot_is_not_that_of_a_deleted_one_by_handle() {
    a_file_of_a_new_snapshot_is_not_that_of_a_deleted_one(InodeHandles::Prefer);
}

#[test]
fn a_file_of_a_new_snapshot_is_not_that_of_a_deleted_one_by_descriptor() {
    a_file_of_a_new_snapshot_is_not_that_of_a_deleted_one(InodeHandles::Never);
}

/// btrfs gives the device number of a deleted subvolume to the next one, and the files of snapshots have the numbers and births of
/// their origin.
fn a_file_of_a_new_snapshot_is_not_that_of_a_deleted_one(handles: InodeHandles) {
    let Some(image) = Image::mount(256 << 20, &["mkfs.btrfs", "-q"], "loop") else {
        return;
    };
    let place = image.mountpoint();
    btrfs(&["subvolume", "create", "origin"], &place);
    fs::write(place.join("origin/file"), "old").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    btrfs(&["subvolume", "snapshot", "origin", "one"], &place);
    let share = share_of(&place, by(handles));
    let one = share.node(c"one");
    let old = share.lookup(one, c"file").unwrap();
    assert_eq!(contents(&share, old.node), b"old");
    // The host rotates its snapshots.
    btrfs(&["subvolume", "delete", "one"], &place);
    fs::write(place.join("origin/file"), "new, and longer").unwrap();
    btrfs(&["subvolume", "snapshot", "origin", "two"], &place);
    assert_eq!(fs::read(place.join("two/file")).unwrap(), b"new, and longer");
    let two = share.node(c"two");
    assert_eq!(fs::read(place.join("two/file")).unwrap(), b"new, and longer");
    eprintln!("directories: one {one:?}, two {two:?}");
    let new = share.lookup(two, c"file").unwrap();
    eprintln!(
        "file of {} bytes, node {:?}, which was {:?}",
        new.attr.size, new.node, old.node
    );
    let handle = share
        .open(new.node, libc::O_RDONLY)
        .and_then(|handle| share.read(new.node, handle, 0, 100));
    eprintln!("contents: {:?}", handle.map(|bytes| String::from_utf8(bytes).unwrap()));
    assert_ne!(two, one, "the directory of the new snapshot is the deleted one");
    assert_ne!(new.node, old.node, "attributes of the new file, node of the old one");
    assert_eq!(contents(&share, new.node), b"new, and longer");
}
