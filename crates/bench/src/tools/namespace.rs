//! Private mounts that disappear with this process, however it ends.
#![expect(
    unsafe_code,
    reason = "unshare(2) is unsafe in rustix, for the sake of one flag that is not used here"
)]

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Gives the calling thread, and with it all that it starts from now on, a mount namespace of its own. Or says in one sentence why
/// there can be no mounts.
pub(super) fn enter() -> Result<(), String> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    if let Err(errno) = rustix::fs::open("/dev/fuse", flags, rustix::fs::Mode::empty()) {
        return Err(format!(
            "cannot open /dev/fuse: {errno}; load the kernel's module with `modprobe fuse`, run innkeeper bench as root, or give the \
             container that device"
        ));
    }
    // SAFETY: the flag that is dangerous parts the table of descriptors, and it is not set.
    let parted = unsafe { unshare_unsafe(UnshareFlags::NEWNS) };
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    parted
        .and_then(|()| mount_change("/", private))
        .map_err(|errno| match errno {
            Errno::PERM => format!(
                "user {} may not mount (CAP_SYS_ADMIN); run innkeeper bench as root",
                rustix::process::geteuid().as_raw()
            ),
            _ => format!("there is no mount namespace to be had: {errno}; check that the kernel has them"),
        })
}
