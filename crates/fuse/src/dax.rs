//! DAX: files mapped into the window, which is memory of the guest (VIRTIO 1.2 5.11.6.4).

use guestmem::{Window, WindowError, WindowMapping};
use zerocopy::FromBytes;

use crate::fs::{Errno, Mappable, Result};
use crate::operation::Setup;
use crate::wire;

/// What offsets and lengths of mappings are multiples of: the host's pages. Linux wants 2 MiB at most and maps that much at once.
pub(crate) fn alignment() -> u64 {
    rustix::param::page_size() as u64
}

/// SETUPMAPPING.
pub(crate) fn set_up(window: &dyn Window, setup: &Setup, open: impl FnOnce(bool) -> Result<Mappable>) -> Result<()> {
    let Setup {
        file_offset,
        offset,
        length,
        writable,
    } = *setup;
    check_range(window, offset, length)?;
    let end = file_offset.checked_add(length);
    if !file_offset.is_multiple_of(alignment()) || end.is_none_or(|end| i64::try_from(end).is_err()) {
        return Err(Errno::EINVAL);
    }
    let Mappable { file, writable: open } = open(writable)?;
    // QEMU (11.1) takes an empty file for one to be filled, and gives it the length of the mapping.
    if rustix::fs::fstat(&file)?.st_size == 0 {
        return Err(Errno::EIO);
    }
    let mapping = WindowMapping {
        file,
        file_offset,
        offset,
        length,
        // What is open for writing is mapped so at once: to make a mapping writable later would leave a hole for a moment.
        writable: open,
    };
    window.map(&mapping).map_err(errno)
}

/// REMOVEMAPPING of any number of ranges; none is removed if one of them is no range of the window.
pub(crate) fn remove(window: &dyn Window, ranges: &[u8]) -> Result<()> {
    let each = || {
        ranges
            .chunks_exact(size_of::<wire::RemovemappingOne>())
            .map(|bytes| wire::RemovemappingOne::read_from_bytes(bytes).map_err(|_| Errno::EINVAL))
    };
    for range in each() {
        let wire::RemovemappingOne { moffset, len } = range?;
        check_range(window, moffset, len)?;
    }
    for range in each() {
        let wire::RemovemappingOne { moffset, len } = range?;
        window.unmap(moffset, len).map_err(errno)?;
    }
    Ok(())
}

fn check_range(window: &dyn Window, offset: u64, length: u64) -> Result<()> {
    let aligned = offset.is_multiple_of(alignment()) && length.is_multiple_of(alignment());
    match offset.checked_add(length) {
        Some(end) if aligned && length > 0 && end <= window.size() => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

fn errno(error: WindowError) -> Errno {
    match error {
        WindowError::OutOfRange => Errno::EINVAL,
        WindowError::Refused => Errno::ENOMEM,
        WindowError::Unanswered => Errno::EIO,
    }
}
