//! Opens regular files in directories that a guest may have written to. A file with the right name may be a device or
//! a FIFO by now, and opening one of those acts on the host.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};

/// What [`open`] found.
pub(crate) enum Found {
    /// A regular file, open for I/O.
    File(OwnedFd),
    /// Something else, which stays closed.
    Other(FileType),
}

/// Opens what `path`, an O_PATH descriptor, is of, if that very descriptor is of a regular file.
pub(crate) fn open(path: &OwnedFd, flags: OFlags) -> rustix::io::Result<Found> {
    match FileType::from_raw_mode(fstat(path)?.st_mode) {
        FileType::RegularFile => {
            let link = format!("/proc/self/fd/{}", path.as_raw_fd());
            openat(CWD, link, flags | OFlags::CLOEXEC, Mode::empty()).map(Found::File)
        }
        other => Ok(Found::Other(other)),
    }
}
