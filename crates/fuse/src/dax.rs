//! DAX: files mapped into the window, which is memory in the guest's address space (VIRTIO 1.2 5.11.6.4).

use guestmem::{Window, WindowError, WindowMapping};
use zerocopy::FromBytes;

use crate::arguments::malformed;
use crate::cause::HostResult as _;
use crate::fs::{Errno, Mappable, NodeId, Result};
use crate::operation::Setup;
use crate::wire;

/// What offsets and lengths of mappings are multiples of: the host's pages. Linux wants 2 MiB at most and maps that much at once.
pub(crate) fn alignment() -> u64 {
    rustix::param::page_size() as u64
}

/// Of a request that cannot be served now and has had no effect that matters when it is served once more. No guest sees it: the
/// number is that of Linux' ERESTARTSYS.
pub(crate) const PUT_OFF: Errno = Errno(512);

/// SETUPMAPPING.
pub(crate) fn set_up(
    window: &dyn Window,
    node: NodeId,
    setup: &Setup,
    open: impl Fn(bool) -> Result<Mappable>,
) -> Result<()> {
    let Setup {
        file_offset,
        offset,
        length,
        writable,
    } = *setup;
    check_range(window, offset, length)?;
    let end = file_offset.checked_add(length);
    if !file_offset.is_multiple_of(alignment()) || end.is_none_or(|end| i64::try_from(end).is_err()) {
        return Err(Errno::EINVAL.rule("the range of the file is none that can be mapped"));
    }
    let map = |mappable: Mappable| {
        // QEMU (11.1) takes an empty file for one to be filled, and gives it the length of the mapping.
        if rustix::fs::fstat(&mappable.file).of(|| "fstat(file)".into())?.st_size == 0 {
            return Err(Errno::EIO.rule("the file is empty, so that there is nothing to map"));
        }
        let mapping = WindowMapping {
            owner: node.0,
            file: mappable.file,
            file_offset,
            offset,
            length,
            // What is open for writing is mapped so at once: to make a mapping writable later would leave a hole for a moment.
            writable: mappable.writable,
        };
        window.map(&mapping).map_err(errno)
    };
    let mappable = open(writable)?;
    let read_only = !mappable.writable;
    match map(mappable) {
        // QEMU (11.1) maps everything for writing, so it fails to map what is open for reading alone.
        Err(Errno::ENOMEM) if read_only => open(true).map_err(|_| errno(WindowError::Refused)).and_then(map),
        result => result,
    }
}

/// REMOVEMAPPING of any number of ranges; none is removed if one of them is no range of the window.
pub(crate) fn remove(window: &dyn Window, ranges: &[u8]) -> Result<()> {
    let each = || {
        ranges
            .chunks_exact(size_of::<wire::RemovemappingOne>())
            .map(|bytes| wire::RemovemappingOne::read_from_bytes(bytes).map_err(|_| malformed()))
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
        _ => Err(errno(WindowError::OutOfRange)),
    }
}

pub(crate) fn errno(error: WindowError) -> Errno {
    match error {
        WindowError::OutOfRange => Errno::EINVAL.rule("the range is none of the window"),
        WindowError::Refused => Errno::ENOMEM.rule("the virtual machine monitor refused to map it"),
        WindowError::Unanswered => Errno::EIO.rule("the virtual machine monitor did not answer"),
        WindowError::CalledOff => PUT_OFF,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::sync::{Arc, Mutex};

    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;

    /// A front end that maps everything for writing, as QEMU does, and so nothing that is open for reading alone.
    #[derive(Debug, Default)]
    struct ForWriting(Mutex<Vec<bool>>);

    impl Window for ForWriting {
        fn size(&self) -> u64 {
            2 << 20
        }
        fn map(&self, mapping: &WindowMapping) -> std::result::Result<(), WindowError> {
            self.0.lock().unwrap().push(mapping.writable);
            if mapping.writable {
                Ok(())
            } else {
                Err(WindowError::Refused)
            }
        }
        fn unmap(&self, _offset: u64, _length: u64) -> std::result::Result<(), WindowError> {
            Ok(())
        }
        fn release(&self, _owner: u64) {}
        fn clear(&self) -> std::result::Result<(), WindowError> {
            Ok(())
        }
    }

    fn set_up_for_reading(open: impl Fn(Arc<OwnedFd>, bool) -> Result<Mappable>) -> (Result<()>, Vec<bool>) {
        let file = memfd_create("file", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, 1).unwrap();
        let file = Arc::new(file);
        let window = ForWriting::default();
        let setup = Setup {
            file_offset: 0,
            offset: 0,
            length: 2 << 20,
            writable: false,
        };
        let result = set_up(&window, NodeId::ROOT, &setup, |write| open(Arc::clone(&file), write));
        (result, window.0.into_inner().unwrap())
    }

    #[test]
    fn what_a_front_end_refuses_to_map_for_reading_is_mapped_for_writing_if_that_may_be() {
        let program = |file, writable| Ok(Mappable { file, writable });
        assert_eq!(set_up_for_reading(program), (Ok(()), vec![false, true]));
        let read_only_share = |file, writable| match writable {
            true => Err(Errno::EROFS),
            false => Ok(Mappable { file, writable }),
        };
        assert_eq!(set_up_for_reading(read_only_share), (Err(Errno::ENOMEM), vec![false]));
        let data = |file, _| Ok(Mappable { file, writable: true });
        assert_eq!(set_up_for_reading(data), (Ok(()), vec![true]));
    }
}
