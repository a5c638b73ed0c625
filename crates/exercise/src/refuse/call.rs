//! A system call with its arguments as the kernel takes them, and the preparations for cases.

use std::ffi::{CString, c_long};
use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A system call. What its arguments point to is leaked: the process that makes it ends right after.
pub(super) struct Call {
    number: c_long,
    arguments: [usize; 6],
}

impl Call {
    pub(super) fn new<const N: usize>(number: c_long, given: [usize; N]) -> io::Result<Self> {
        let mut arguments = [0; 6];
        for (argument, given) in arguments.iter_mut().zip(given) {
            *argument = given;
        }
        Ok(Self { number, arguments })
    }

    pub(super) fn number(&self) -> i64 {
        self.number
    }

    /// The errno, which is what a case is made for.
    pub(super) fn make(&self) -> io::Result<i32> {
        let [a, b, c, d, e, f] = self.arguments;
        // SAFETY: pointers among the arguments are to leaked memory of the right size, see the cases; should the kernel do
        // what is asked, then in a process that only ends.
        let returned = unsafe { libc::syscall(self.number, a, b, c, d, e, f) };
        if returned == -1 {
            io::Error::last_os_error()
                .raw_os_error()
                .ok_or_else(|| io::Error::other("no errno"))
        } else {
            Err(io::Error::other(format!("not refused, it returned {returned}")))
        }
    }
}

/// Address of the path's bytes and a zero behind them.
pub(super) fn path(path: impl AsRef<Path>) -> usize {
    let bytes = path.as_ref().as_os_str().as_bytes();
    let text = CString::new(bytes).unwrap_or_default();
    text.into_raw() as usize
}

/// Address of a value that lives as long as the process.
pub(super) fn leak<T>(value: T) -> usize {
    std::ptr::from_mut(Box::leak(Box::new(value))) as usize
}

/// A descriptor that stays open.
pub(super) fn descriptor(descriptor: impl Into<OwnedFd>) -> usize {
    number(descriptor.into().into_raw_fd())
}

/// An `int` as the kernel takes it.
pub(super) fn number(number: i32) -> usize {
    number.cast_unsigned() as usize
}

/// Gives up root's rights.
pub(super) fn be_a_user() -> io::Result<()> {
    const USER: u32 = 1000;
    // SAFETY: an empty list is not read.
    let groups = unsafe { libc::setgroups(0, std::ptr::null()) };
    // SAFETY: takes numbers alone.
    let group = unsafe { libc::setresgid(USER, USER, USER) };
    // SAFETY: takes numbers alone.
    let user = unsafe { libc::setresuid(USER, USER, USER) };
    if groups == 0 && group == 0 && user == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sets both the soft and the hard limit.
pub(super) fn limit(resource: rustix::process::Resource, value: u64) -> io::Result<()> {
    let limit = rustix::process::Rlimit {
        current: Some(value),
        maximum: Some(value),
    };
    Ok(rustix::process::setrlimit(resource, limit)?)
}
