//! Switches from the initramfs to the shared directory.

use std::ffi::CStr;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount as mount_fs, mount_move};
use rustix::process::{chdir, chroot};

use super::places::NEW_ROOT;
use super::plan::Plan;

/// How long a device may take to appear after its driver was loaded, in a guest without KVM on a busy host.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Mounts the shared directory on [`NEW_ROOT`].
pub(super) fn mount(plan: &Plan) -> Result<(), String> {
    let flags = if plan.readonly {
        MountFlags::RDONLY
    } else {
        MountFlags::empty()
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        match mount_fs(plan.root_tag.as_str(), NEW_ROOT, "virtiofs", flags, None::<&CStr>) {
            Ok(()) => return Ok(()),
            // "No such tag" is said in this way until the device has been probed.
            Err(Errno::INVAL) if Instant::now() < deadline => thread::sleep(Duration::from_millis(10)),
            Err(error) => return Err(format!("mounting the share {} as root: {error}", plan.root_tag)),
        }
    }
}

/// Makes the mounted directory the root of this process and all it starts.
pub(super) fn enter() -> Result<(), String> {
    let step = |doing: &str, result: Result<(), Errno>| result.map_err(|error| format!("{doing}: {error}"));
    step("entering the new root", chdir(NEW_ROOT))?;
    // The root of the first mount namespace cannot be pivoted away, only covered.
    step("moving the new root to /", mount_move(".", "/"))?;
    step("changing the root", chroot("."))?;
    step("entering /", chdir("/"))
}

/// What a command expects of a running system, mounted where the root has a place for it.
pub(super) fn mount_for_command(plan: &Plan) -> Result<(), String> {
    let mut mounts = vec![
        ("devtmpfs", "/dev"),
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("tmpfs", "/run"),
    ];
    if plan.readonly {
        mounts.push(("tmpfs", "/tmp"));
    }
    for (kind, place) in mounts {
        mount_if_there(kind, place)?;
    }
    for (kind, place) in [("devpts", "/dev/pts"), ("tmpfs", "/dev/shm")] {
        // In devtmpfs, if that was mounted; a root without /dev is not littered.
        if fs::metadata("/dev/null").is_ok() && fs::create_dir_all(place).is_ok() {
            mount_if_there(kind, place)?;
        }
    }
    Ok(())
}

fn mount_if_there(kind: &str, place: &str) -> Result<(), String> {
    match mount_fs(kind, place, kind, MountFlags::empty(), None::<&CStr>) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
        Err(error) => Err(format!("mounting {kind} on {place}: {error}")),
    }
}
