//! Locks by which programs see that an image is in use: the bytes and the meaning that QEMU gives them.
//!
//! A user of an image holds a shared lock on byte 100 + P for each permission P that it has, and on byte 200 + P for each that it
//! does not grant to others. It then checks that nobody holds the opposite byte.
#![expect(unsafe_code, reason = "no crate of ours has a safe F_OFD_SETLK for a range")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::thread;
use std::time::{Duration, Instant};

/// First byte of the permissions that a user has.
const HAS: i64 = 100;
/// First byte of the permissions that it does not grant.
const DENIES: i64 = 200;

/// Numbers of the permissions.
const READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

/// How long a process that was killed may take to let go of what its io_uring had in flight.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);

/// As [`lock`], but waits a moment for a user that is gone already: its successor starts right away.
pub(crate) fn wait(file: BorrowedFd<'_>, writes: bool) -> io::Result<bool> {
    let began = Instant::now();
    loop {
        let locked = lock(file, writes)?;
        if locked || began.elapsed() > PATIENCE {
            return Ok(locked);
        }
        thread::sleep(PAUSE);
    }
}

/// Locks the open file for a reader that tolerates other readers, or for its only writer. Returns whether nobody objects. The
/// lock lasts as long as the open file.
fn lock(file: BorrowedFd<'_>, writes: bool) -> io::Result<bool> {
    let has: &[i64] = if writes { &[READ, WRITE] } else { &[READ] };
    let denies = [WRITE, RESIZE];
    let held = has.iter().map(|permission| HAS + permission);
    for byte in held.chain(denies.map(|permission| DENIES + permission)) {
        if !take(file, byte)? {
            return Ok(false);
        }
    }
    let denied = has.iter().map(|permission| DENIES + permission);
    for byte in denied.chain(denies.map(|permission| HAS + permission)) {
        // Our own locks do not count, whatever they are.
        if is_held_by_another(file, byte)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether it got the lock: not if somebody holds the byte alone.
fn take(file: BorrowedFd<'_>, byte: i64) -> io::Result<bool> {
    match call(file, libc::F_OFD_SETLK, libc::F_RDLCK, byte) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_held_by_another(file: BorrowedFd<'_>, byte: i64) -> io::Result<bool> {
    let found = call(file, libc::F_OFD_GETLK, libc::F_WRLCK, byte)?;
    Ok(i32::from(found.l_type) != libc::F_UNLCK)
}

fn call(file: BorrowedFd<'_>, command: libc::c_int, kind: libc::c_int, byte: i64) -> io::Result<libc::flock> {
    let mut range = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open, and the kernel reads and writes this one structure only.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut range) } {
        0 => Ok(range),
        _ => Err(io::Error::last_os_error()),
    }
}
