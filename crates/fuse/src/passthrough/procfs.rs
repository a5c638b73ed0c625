//! `/proc/self/fd`: leads from an O_PATH descriptor to a real one, or to calls that take only paths.
//!
//! A magic link leads to exactly the inode of the descriptor, even if that is a symbolic link. The guest cannot
//! influence it.

use std::ffi::CStr;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, PROC_SUPER_MAGIC, accessat, fstatfs, openat};

/// The open directory `/proc/self/fd`; still there when the daemon has moved into an empty root.
#[derive(Debug)]
pub(super) struct ProcSelfFd(OwnedFd);

impl ProcSelfFd {
    pub(super) fn open() -> rustix::io::Result<ProcSelfFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        ProcSelfFd::of(openat(CWD, c"/proc/self/fd", flags, Mode::empty())?)
    }

    /// Takes over the directory, which was opened before.
    pub(super) fn of(fd: OwnedFd) -> rustix::io::Result<ProcSelfFd> {
        // A look-alike would lead anywhere.
        if fstatfs(&fd)?.f_type != PROC_SUPER_MAGIC {
            return Err(rustix::io::Errno::NODEV);
        }
        Ok(ProcSelfFd(fd))
    }

    pub(super) fn directory(&self) -> &OwnedFd {
        &self.0
    }

    /// Whether the file of `fd` could be opened for writing.
    pub(super) fn may_write(&self, fd: BorrowedFd<'_>) -> bool {
        accessat(
            self.0.as_fd(),
            FdName::of(fd).as_c_str(),
            Access::WRITE_OK,
            AtFlags::EACCESS,
        )
        .is_ok()
    }
}

/// The name of a descriptor in `/proc/self/fd`, built without allocation. The descriptor stays open as long as its name is used.
pub(super) struct FdName<'fd>([u8; 12], PhantomData<BorrowedFd<'fd>>);

impl<'fd> FdName<'fd> {
    pub(super) fn of(fd: BorrowedFd<'fd>) -> FdName<'fd> {
        let mut name = [0; 12];
        let mut number = fd.as_raw_fd().unsigned_abs();
        let digits = number.checked_ilog10().unwrap_or(0) as usize + 1;
        for digit in name[..digits].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        FdName(name, PhantomData)
    }

    pub(super) fn as_c_str(&self) -> &CStr {
        // At most ten digits, so that a NUL always follows them.
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::fcntl_dupfd_cloexec;

    #[test]
    fn a_descriptor_is_named_by_its_number() {
        let fd = ProcSelfFd::open().unwrap();
        for minimum in [0, 9, 10, 99, 1000] {
            let copy = fcntl_dupfd_cloexec(fd.directory(), minimum).unwrap();
            let name = FdName::of(copy.as_fd());
            assert_eq!(name.as_c_str().to_str().unwrap(), copy.as_raw_fd().to_string());
        }
    }
}
