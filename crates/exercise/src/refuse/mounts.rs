//! Mounts.

use std::fs;
use std::io;
use std::path::Path;

use libc::{AT_FDCWD, O_CREAT, O_WRONLY, SYS_chroot, SYS_mount, SYS_openat, SYS_rmdir, SYS_umount2};

use super::Case;
use super::call::{Call, be_a_user, number, path};

/// Mounts a new tmpfs, in a mount namespace of this process.
fn mount_tmpfs(place: &Path, flags: u64) -> io::Result<()> {
    // SAFETY: takes a number alone.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let [kind, place] = [Path::new("tmpfs"), place].map(|text| path(text) as *const libc::c_char);
    // SAFETY: the texts are leaked, and a tmpfs needs no data.
    match unsafe { libc::mount(kind, place, kind, flags, std::ptr::null()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[rustfmt::skip] // One case a block, no wider than its words.
pub(super) const CASES: &[&Case] = &[
    &Case { name: "mount-as-user", prepare: |places| {
        be_a_user()?;
        Call::new(SYS_mount, [path("tmpfs"), path(&places.local), path("tmpfs"), 0, 0])
    } },
    &Case { name: "mount-unknown-type", prepare: |places| {
        Call::new(SYS_mount, [path("none"), path(&places.local), path("nonsensefs"), 0, 0])
    } },
    &Case { name: "mount-unknown-tag", prepare: |places| {
        Call::new(SYS_mount, [path("no-such-tag"), path(&places.local), path("virtiofs"), 0, 0])
    } },
    &Case { name: "umount-no-mount", prepare: |places| Call::new(SYS_umount2, [path(&places.local), 0]) },
    &Case { name: "rmdir-mount-point", prepare: |places| {
        let place = places.local.join("mounted");
        fs::create_dir(&place)?;
        mount_tmpfs(&place, 0)?;
        Call::new(SYS_rmdir, [path(&place)])
    } },
    &Case { name: "create-on-read-only", prepare: |places| {
        mount_tmpfs(&places.local, libc::MS_RDONLY)?;
        Call::new(SYS_openat, [number(AT_FDCWD), path(places.local.join("file")), number(O_CREAT | O_WRONLY), 0o600])
    } },
    &Case { name: "chroot-as-user", prepare: |places| {
        be_a_user()?;
        Call::new(SYS_chroot, [path(&places.local)])
    } },
];
