//! Rights of a program's file that the kernel does not grant if a user traces the program.

use std::fs;
use std::path::PathBuf;

use rustix::fs::{AtFlags, CWD, StatxFlags, getxattr, statx};

use crate::observe::context::Mounts;
use crate::observe::proc::Status;

const SET_USER: u16 = 0o4000;
const SET_GROUP: u16 = 0o2000;
/// Without it the bit before says something about locks.
const GROUP_EXECUTES: u16 = 0o010;
/// File systems that somebody serves, who may be stopped just now.
const SERVED: [&str; 6] = ["fuse", "virtiofs", "9p", "nfs", "cifs", "smb3"];

/// Says what the program that a thread has just executed would have had, and has not.
pub(super) fn withheld(thread: i32) -> Option<String> {
    let status = Status::of(thread)?;
    let link = PathBuf::from(format!("/proc/{thread}/exe"));
    let path = fs::read_link(&link).ok()?;
    let mounts = Mounts::of(thread)?;
    let mount = mounts.of_path(&path)?;
    // There are other reasons, which hold without a tracer as well.
    if mount.has("nosuid") || status.number("NoNewPrivs:") == Some(1) {
        return None;
    }
    // What the kernel has read to execute it is asked of no server again.
    let wanted = StatxFlags::MODE | StatxFlags::UID | StatxFlags::GID;
    let file = statx(CWD, &link, AtFlags::STATX_DONT_SYNC, wanted).ok()?;
    let effective = |name| status.field(name)?.split_ascii_whitespace().nth(1)?.parse::<u32>().ok();
    let is_set = |bits| file.stx_mode & bits == bits;
    let what = if is_set(SET_USER) && effective("Uid:")? != file.stx_uid {
        "is set-uid"
    } else if is_set(SET_GROUP | GROUP_EXECUTES) && effective("Gid:")? != file.stx_gid {
        "is set-gid"
    } else if !SERVED.iter().any(|kind| mount.kind.starts_with(kind)) && lacks_capabilities(&link, &status)? {
        "has capabilities by its file"
    } else {
        return None;
    };
    Some(format!(
        "{} {what}, which the kernel ignores for a program that a user traces: run innkeeper why as root",
        path.display()
    ))
}

/// Whether the file permits capabilities (`struct vfs_cap_data`) that its thread might have, and has not.
fn lacks_capabilities(link: &PathBuf, status: &Status) -> Option<bool> {
    let mut words = [0; 24];
    let read = getxattr(link, "security.capability", &mut words).unwrap_or(0);
    let word = |at: usize| words[..read].get(at..)?.first_chunk().copied().map(u32::from_le_bytes);
    let permitted = u64::from(word(4).unwrap_or(0)) | u64::from(word(12).unwrap_or(0)) << 32;
    let set = |name| u64::from_str_radix(status.field(name)?, 16).ok();
    Some(permitted & set("CapBnd:")? & !set("CapPrm:")? != 0)
}
