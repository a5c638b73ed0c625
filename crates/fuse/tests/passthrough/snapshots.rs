//! Snapshots of btrfs, whose files have the inode numbers and birth times of their originals.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use fuse::fs::{FileSystem, NodeId};
use fuse::passthrough::InodeHandles;

use crate::image::Image;
use crate::share::{Share, by, share_of};

fn btrfs(arguments: &[&str], at: &Path) {
    let output = Command::new("btrfs").args(arguments).current_dir(at).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn contents(share: &Share, node: NodeId) -> Vec<u8> {
    let handle = share.open(node, libc::O_RDONLY).unwrap();
    let bytes = share.read(node, handle, 0, 100).unwrap();
    share.fs.release(node, handle).unwrap();
    bytes
}

/// btrfs gives the device number of a deleted subvolume to the next one, also while a file of it is open.
#[test]
fn a_file_of_a_new_snapshot_is_not_that_of_a_deleted_one() {
    for handles in [InodeHandles::Prefer, InodeHandles::Never] {
        let Some(image) = Image::mount(256 << 20, &["mkfs.btrfs", "-q"], "loop") else {
            return;
        };
        let place = image.mountpoint();
        btrfs(&["subvolume", "create", "origin"], &place);
        fs::write(place.join("origin/file"), "old").unwrap();
        thread::sleep(Duration::from_millis(200)); // so that it is old enough to be told by its birth, were this another file system
        btrfs(&["subvolume", "snapshot", "origin", "one"], &place);
        let share = share_of(&place, by(handles));
        let one = share.node(c"one");
        let old = share.lookup(one, c"file").unwrap();
        assert_eq!(contents(&share, old.node), b"old");
        // The host rotates its snapshots.
        btrfs(&["subvolume", "delete", "one"], &place);
        fs::write(place.join("origin/file"), "new, and longer").unwrap();
        btrfs(&["subvolume", "snapshot", "origin", "two"], &place);
        let two = share.node(c"two");
        let new = share.lookup(two, c"file").unwrap();
        assert_ne!(two, one, "{handles:?}");
        assert_ne!(new.node, old.node, "{handles:?}");
        assert_eq!(new.attr.size, 15, "{handles:?}");
        assert_eq!(contents(&share, new.node), b"new, and longer", "{handles:?}");
    }
}
