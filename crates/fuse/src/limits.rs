//! Limits of request and reply sizes: those that INIT announces, and those of Linux.

use crate::fs::{Errno, Result};
use crate::wire;

/// The longest value of an extended attribute on Linux.
pub(crate) const MAX_XATTR: u32 = 64 << 10;
/// What the size field of a Linux ioctl number can say at most.
pub(crate) const MAX_IOCTL: u32 = (1 << 14) - 1;

/// The most data that one WRITE carries, as INIT announces.
pub(crate) const MAX_WRITE: u32 = 1 << 20;
/// The most pages of one request, as INIT announces: as many of 4 KiB as a WRITE has.
pub(crate) const MAX_PAGES: u16 = 256;
/// The largest pages that Linux has: INIT does not tell the guest's.
const LARGEST_PAGE: u32 = 64 << 10;
/// The most data that one READ or READDIR asks for.
pub(crate) const MAX_READ: u32 = MAX_PAGES as u32 * LARGEST_PAGE;

/// No operation but WRITE and BATCH_FORGET has longer arguments: a value of 64 KiB (Linux' XATTR_SIZE_MAX) with its name.
pub(crate) const MAX_ARGUMENTS: usize = 128 << 10;
/// The most nodes of a BATCH_FORGET. Who reads it from /dev/fuse has space for a WRITE, and a page for what is in front of the data.
pub(crate) const MAX_FORGETS: u32 = (MAX_WRITE + 4096) / size_of::<wire::ForgetOne>() as u32;

/// Nothing else bounds how long a request takes: its buffers may be the same memory again and again.
pub(crate) fn within(size: u32, most: u32) -> Result<()> {
    if size > most {
        return Err(Errno::EINVAL.rule("it is larger than INIT allows"));
    }
    Ok(())
}
