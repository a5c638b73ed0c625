#![allow(
    unsafe_code,
    reason = "mount_setattr(2) with a user namespace; every call gets pointers to values that live through it"
)]

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};

use super::{Mounted, wait_for};

const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// A process in a user namespace in which ids from 0 on are those from `FIRST` on outside.
struct Namespace(Child);

const FIRST: u32 = 100_000;

impl Namespace {
    fn new() -> Namespace {
        let child = Command::new("unshare")
            .args(["--user", "--", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let namespace = Namespace(child);
        let own = fs::read_link("/proc/self/ns/user").unwrap();
        wait_for(|| fs::read_link(namespace.file("ns/user")).is_ok_and(|other| other != own));
        for map in ["uid_map", "gid_map"] {
            fs::write(namespace.file(map), format!("0 {FIRST} 65536")).unwrap();
        }
        namespace
    }

    fn file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.0.id())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Mounts `from` once more on `to`, with its ids mapped as in `namespace`.
fn idmap(from: &Path, to: &Path, namespace: &Namespace) -> io::Result<()> {
    let tree = open_tree(
        rustix::fs::CWD,
        from,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )?;
    let userns = File::open(namespace.file("ns/user"))?;
    let attr = MountAttr {
        set: MOUNT_ATTR_IDMAP,
        clear: 0,
        propagation: 0,
        userns: userns.as_raw_fd() as u64,
    };
    // SAFETY: the path is a terminated string, and `attr` has the kernel's layout and the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    move_mount(&tree, "", rustix::fs::CWD, to, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(())
}

/// Linux 6.12 is the first to map ids of a FUSE mount.
#[test]
fn ids_of_an_idmapped_mount_are_mapped_both_ways() {
    let Some(mounted) = Mounted::new(&["--allow-idmap"], &[]) else {
        return;
    };
    fs::write(mounted.data("theirs"), "text").unwrap();
    chown(mounted.data("theirs"), Some(5), Some(6)).unwrap();
    fs::set_permissions(mounted.data(""), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let (namespace, mapped) = (Namespace::new(), tempfile::tempdir().unwrap());
    match idmap(&mounted.mountpoint(), mapped.path(), &namespace) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) && !since_linux_6_12() => {
            eprintln!("skipped: this kernel maps no ids of FUSE mounts");
            return;
        }
        done => done.unwrap(),
    }
    let seen = fs::metadata(mapped.path().join("theirs")).unwrap();
    assert_eq!((seen.uid(), seen.gid()), (FIRST + 5, FIRST + 6));
    let script = "echo made > made; mkdir dir; echo more >> made; chmod 600 made; cat made";
    let output = Command::new("setpriv")
        .args([
            "--reuid",
            "100005",
            "--regid",
            "100006",
            "--clear-groups",
            "sh",
            "-ec",
            script,
        ])
        .current_dir(mapped.path())
        .output()
        .unwrap();
    let unmounted = unmount(mapped.path(), UnmountFlags::DETACH);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "made\nmore\n");
    for name in ["made", "dir"] {
        let made = fs::metadata(mounted.data(name)).unwrap();
        assert_eq!((made.uid(), made.gid()), (5, 6), "{name}");
    }
    unmounted.unwrap();
}

fn since_linux_6_12() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(12))
}
