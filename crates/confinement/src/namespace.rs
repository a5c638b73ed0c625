//! Namespaces of the process's own, with the shared directory as root and nothing else of the host in sight.
//!
//! Mounts, network, IPC, host name and control groups are the process's own afterwards. Its process identifiers are not: a process
//! keeps its PID namespace for life, and once it has asked for another for its children it can start no thread (clone(2), EINVAL). A
//! child would have to serve in its place, under another identifier than the one that whoever started the daemon knows. What a PID
//! namespace keeps a process from is kept from it in other ways: no procfs is in reach but the daemon's own descriptors, no system
//! call that sends a signal or traces is in any list, and Landlock keeps signals inside where the kernel can (Linux 6.12).
//!
//! Descriptors outlive the change of root, and a directory's leads to all that lies beside it (`..`). So what the daemon needs of the
//! old root is a mount of its own that begins at that very directory, and above which there is nothing.
#![expect(unsafe_code, reason = "unshare(2) and mount_setattr(2) have no safe wrapper")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsmount, fsopen, mount_change, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, fchdir, pivot_root};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::Error;
use crate::declaration::Access;
use crate::ids::{Ids, Prepared};
use crate::place::{PROC_SELF_FD, Place};

/// No set-user-id, no device and no program on the host, whoever makes one.
const INERT: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Whose namespaces they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner<'i> {
    /// The user namespace that the process is in: it has CAP_SYS_ADMIN.
    Same,
    /// A user namespace of its own, with these users and groups.
    Own(&'i Ids),
}

/// Moves the process, which has one thread, into namespaces of its own with the shared directory as root, or an empty one.
pub(crate) fn enter(place: &Place<'_>, owner: Owner<'_>) -> Result<OwnedFd, Error> {
    unshare(place, owner)?;
    // The host's later mounts beneath the directory appear here as well, and none of ours there.
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", flags).map_err(Error::namespace("keep mounts apart from the host's"))?;

    let root = match place.shared {
        Some(shared) => {
            let read_only = match shared.access {
                Access::Read => MountAttrFlags::MOUNT_ATTR_RDONLY,
                Access::Write => MountAttrFlags::empty(),
            };
            clone(
                &shared.directory,
                INERT | read_only,
                "make a mount of the shared directory",
            )?
        }
        None => empty().map_err(Error::namespace("make an empty root"))?,
    };
    let proc_self_fd = clone(
        Path::new(PROC_SELF_FD),
        INERT | MountAttrFlags::MOUNT_ATTR_RDONLY,
        "make a mount of /proc/self/fd",
    )?;
    become_root(&root).map_err(Error::namespace("change the root"))?;
    Ok(proc_self_fd)
}

fn unshare(place: &Place<'_>, owner: Owner<'_>) -> Result<(), Error> {
    let mut flags = UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS | UnshareFlags::NEWCGROUP;
    if !place.network {
        flags |= UnshareFlags::NEWNET;
    }
    let prepared = match owner {
        Owner::Same => None,
        Owner::Own(ids) => {
            flags |= UnshareFlags::NEWUSER;
            Some(ids.prepare()?)
        }
    };
    // SAFETY: the table of descriptors stays shared (no CLONE_FILES).
    unsafe { unshare_unsafe(flags) }.map_err(Error::namespace("make namespaces"))?;
    prepared.map_or(Ok(()), Prepared::map)
}

/// A mount of `path` alone with what is mounted beneath it, attached nowhere.
fn clone(path: &Path, attributes: MountAttrFlags, what: &'static str) -> Result<OwnedFd, Error> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, path, flags).map_err(Error::namespace(what))?;
    set_attributes(tree.as_fd(), attributes).map_err(Error::namespace(what))?;
    Ok(tree)
}

/// A mount of a directory in which nothing is and nothing can be made.
fn empty() -> rustix::io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let attributes = INERT | MountAttrFlags::MOUNT_ATTR_RDONLY;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Puts `root` on top of the root, exchanges the two, and lets the old one go.
fn become_root(root: &OwnedFd) -> rustix::io::Result<()> {
    move_mount(root, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    fchdir(root)?;
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")
}

/// Adds attributes to a tree of mounts (mount_setattr(2)).
fn set_attributes(tree: BorrowedFd<'_>, attributes: MountAttrFlags) -> io::Result<()> {
    /// `struct mount_attr`.
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let attributes = Attributes {
        set: attributes.bits().into(),
        clear: 0,
        propagation: 0,
        user_namespace: 0,
    };
    // SAFETY: the path is a terminated string, `attributes` has the kernel's layout and the size that is given; both live through
    // the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
