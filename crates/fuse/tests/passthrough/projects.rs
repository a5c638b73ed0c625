//! Permission to change project ids, which decide about project quotas.

use std::fs;
use std::os::unix::fs::chown;

use fuse::fs::{Caller, Errno, FileSystem, Handle, NodeId, Result};
use fuse::passthrough::Options;

use crate::image::Image;
use crate::share::{ROOT, Share, USER, refused, share_of};

const GETFLAGS: u32 = 0x8008_6601;
const SETFLAGS: u32 = 0x4008_6602;
const FSGETXATTR: u32 = 0x801c_581f;
const FSSETXATTR: u32 = 0x401c_5820;

/// FS_PROJINHERIT_FL and FS_XFLAG_PROJINHERIT.
const INHERIT: (u32, u32) = (0x2000_0000, 0x200);
/// FS_NODUMP_FL and FS_XFLAG_NODUMP.
const NODUMP: (u32, u32) = (0x40, 0x80);
const PROJECT: u32 = 100;

/// Each file system with project ids that can be mounted here. They have them without quotas too.
fn images() -> Vec<Image> {
    let ext4 = ["mkfs.ext4", "-q", "-O", "project"];
    let xfs = ["mkfs.xfs", "-q"];
    let images = [(64 << 20, &ext4[..]), (512 << 20, &xfs[..])];
    images
        .iter()
        .filter_map(|(size, make)| Image::mount(*size, make, "loop"))
        .collect()
}

/// An open file or directory of a share.
struct Opened<'s> {
    share: &'s Share,
    node: NodeId,
    handle: Handle,
}

impl Opened<'_> {
    /// Flags of `struct fsxattr`, and the project id.
    fn extended(&self) -> (u32, u32) {
        let value = self.ioctl(&ROOT, FSGETXATTR, &[], 28).unwrap();
        (word(&value, 0), word(&value, 12))
    }

    fn set_extended(&self, by: &Caller, (flags, project): (u32, u32)) -> Result<()> {
        let mut value = self.ioctl(&ROOT, FSGETXATTR, &[], 28).unwrap();
        value[..4].copy_from_slice(&flags.to_ne_bytes());
        value[12..16].copy_from_slice(&project.to_ne_bytes());
        self.ioctl(by, FSSETXATTR, &value, 0).map(drop)
    }

    fn flags(&self) -> u32 {
        word(&self.ioctl(&ROOT, GETFLAGS, &[], 4).unwrap(), 0)
    }

    fn set_flags(&self, by: &Caller, flags: u32) -> Result<()> {
        self.ioctl(by, SETFLAGS, &flags.to_ne_bytes(), 0).map(drop)
    }

    fn ioctl(&self, by: &Caller, command: u32, input: &[u8], out: u32) -> Result<Vec<u8>> {
        self.share.fs.ioctl(by, self.node, self.handle, command, input, out)
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The root of the share and a file of the user's, both of one project, and the root hands it on.
fn project(image: &Image) {
    let mountpoint = image.mountpoint();
    let chattr = |arguments: &[&str]| {
        let mut command = std::process::Command::new("chattr");
        assert!(command.args(arguments).arg(&mountpoint).status().unwrap().success());
    };
    chattr(&["-p", &PROJECT.to_string()]);
    chattr(&["+P"]);
    fs::write(mountpoint.join("f"), "text").unwrap();
    chown(mountpoint.join("f"), Some(USER.uid), Some(USER.gid)).unwrap();
}

fn opened(share: &Share) -> [Opened<'_>; 2] {
    let handle = share.fs.opendir(&ROOT, NodeId::ROOT, 0).unwrap().handle;
    let directory = Opened {
        share,
        node: NodeId::ROOT,
        handle,
    };
    let node = share.node(c"f");
    let handle = share.open(node, libc::O_RDONLY).unwrap();
    [directory, Opened { share, node, handle }]
}

#[test]
fn projects_are_the_hosts_to_change() {
    for image in images() {
        project(&image);
        let share = share_of(&image.mountpoint(), Options::default());
        let [directory, file] = opened(&share);
        assert_eq!(file.extended().1, PROJECT);
        for by in [USER, ROOT] {
            // Out of the quota, and into another's.
            for other in [0, PROJECT + 1] {
                let (flags, _) = file.extended();
                assert_eq!(refused(file.set_extended(&by, (flags, other))), Errno::EPERM);
            }
            let (flags, _) = directory.extended();
            assert_eq!(flags & INHERIT.1, INHERIT.1);
            let changed = directory.set_extended(&by, (flags & !INHERIT.1, PROJECT));
            assert_eq!(refused(changed), Errno::EPERM);
            let changed = directory.set_flags(&by, directory.flags() & !INHERIT.0);
            assert_eq!(refused(changed), Errno::EPERM);
        }
        assert_eq!(file.extended().1, PROJECT);
        let (flags, id) = directory.extended();
        assert_eq!((flags & INHERIT.1, id), (INHERIT.1, PROJECT));
        assert_eq!(directory.flags() & INHERIT.0, INHERIT.0);

        // Everything else still changes.
        let (flags, id) = file.extended();
        file.set_extended(&USER, (flags | NODUMP.1, id)).unwrap();
        assert_eq!(file.extended(), (flags | NODUMP.1, id));
        file.set_flags(&USER, file.flags() & !NODUMP.0).unwrap();
        assert_eq!(file.extended(), (flags, id));
        directory.set_flags(&ROOT, directory.flags() | NODUMP.0).unwrap();
        let (flags, id) = directory.extended();
        assert_eq!((flags & (INHERIT.1 | NODUMP.1), id), (INHERIT.1 | NODUMP.1, PROJECT));
    }
}

#[test]
fn the_guests_root_alone_changes_projects_where_it_may() {
    for image in images() {
        project(&image);
        let options = Options {
            allow_project_ids: true,
            ..Options::default()
        };
        let share = share_of(&image.mountpoint(), options);
        let [directory, file] = opened(&share);
        let (flags, _) = file.extended();
        assert_eq!(refused(file.set_extended(&USER, (flags, 0))), Errno::EPERM);
        file.set_extended(&USER, (flags | NODUMP.1, PROJECT)).unwrap();
        file.set_extended(&ROOT, (flags, 7)).unwrap();
        assert_eq!(file.extended(), (flags, 7));
        directory.set_flags(&ROOT, directory.flags() & !INHERIT.0).unwrap();
        let (flags, id) = directory.extended();
        assert_eq!(flags & INHERIT.1, 0);
        directory.set_extended(&ROOT, (flags | INHERIT.1, id)).unwrap();
        assert_eq!(directory.flags() & INHERIT.0, INHERIT.0);
    }
}
