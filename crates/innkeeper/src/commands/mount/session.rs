//! The beginning and the end of a FUSE session, which are not merely relayed.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use driver::Queue;
use fuse::wire::{self, InitFlags, Opcode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read, write};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::error::Error;
use super::layout::DATA_MAX;

/// The kernel reads into no less (FUSE_MIN_READ_BUFFER), and INIT is shorter.
const REQUEST_MAX: usize = 8192;
/// The kernel sends INIT while it mounts.
const INIT_COMES_WITHIN: Duration = Duration::from_secs(5);
const IN_HEADER: usize = size_of::<wire::InHeader>();
const OUT_HEADER: usize = size_of::<wire::OutHeader>();

/// What cannot work here, or not over a virtqueue.
///
/// There is no window to map and no queue for notifications (which HAS_RESEND and HAS_EXPIRE_ONLY are about); PASSTHROUGH and
/// OVER_IO_URING are calls to /dev/fuse that the daemon would have to make; and the kernel has submounts for virtio-fs alone.
const IMPOSSIBLE: InitFlags = InitFlags::MAP_ALIGNMENT
    .union(InitFlags::HAS_INODE_DAX)
    .union(InitFlags::HAS_RESEND)
    .union(InitFlags::HAS_EXPIRE_ONLY)
    .union(InitFlags::PASSTHROUGH)
    .union(InitFlags::OVER_IO_URING)
    .union(InitFlags::SUBMOUNTS);

/// Has kernel and daemon agree on a session.
pub(super) fn begin(device: &OwnedFd, queue: &mut Queue) -> Result<(), Error> {
    let mut request = receive(device)?;
    let offered = restrict_offer(&mut request).ok_or(Error::Session {
        reason: "cannot parse the kernel's INIT".into(),
    })?;
    let space = OUT_HEADER + size_of::<wire::InitOut>();
    let (written, mut reply) = queue.call(&request, space as u32).map_err(|error| Error::Session {
        reason: error.to_string(),
    })?;
    restrict_answer(&mut reply, offered)?;
    tracing::debug!(bytes = written, "the daemon answered INIT");
    write(device, &reply).map_err(|errno| Error::Session {
        reason: format!("the kernel refuses the negotiated INIT: {errno}"),
    })?;
    Ok(())
}

/// Tells the daemon that it is over, as the kernel does to a virtio-fs. The mount is gone by now, so that whatever comes back is
/// no reason to fail.
pub(super) fn end(queue: &mut Queue) {
    let request = wire::InHeader {
        len: IN_HEADER as u32,
        opcode: Opcode::Destroy as u32,
        unique: 2,
        ..Default::default()
    };
    if let Err(error) = queue.call(request.as_bytes(), OUT_HEADER as u32) {
        tracing::debug!(%error, "no answer to DESTROY");
    }
}

fn receive(device: &OwnedFd) -> Result<Vec<u8>, Error> {
    let mut request = vec![0; REQUEST_MAX];
    let deadline = Instant::now() + INIT_COMES_WITHIN;
    loop {
        match read(device, &mut request[..]) {
            Ok(length) => {
                request.truncate(length);
                return Ok(request);
            }
            Err(Errno::AGAIN | Errno::INTR | Errno::NOENT) => {}
            Err(errno) => return Err(process::Error::system("read the kernel's INIT")(errno).into()),
        }
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok();
        match poll(&mut [PollFd::new(device, PollFlags::IN)], left.as_ref()) {
            Ok(0) => return Err(process::Error::system("read the kernel's INIT")(Errno::TIMEDOUT).into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(process::Error::system("wait for the kernel's INIT")(errno).into()),
        }
    }
}

/// Takes out of the kernel's INIT what cannot work, and flags that are newer than this program. Answers what is left.
fn restrict_offer(request: &mut [u8]) -> Option<InitFlags> {
    let (header, body) = request.split_at_mut_checked(IN_HEADER)?;
    let header = wire::InHeader::read_from_bytes(header).ok()?;
    if header.opcode != Opcode::Init as u32 || body.len() < size_of::<wire::InitShortIn>() {
        return None;
    }
    with_prefix(body, |init: &mut wire::InitIn| {
        let flags = InitFlags::from_words(init.flags, init.flags2) - IMPOSSIBLE;
        (init.flags, init.flags2) = flags.words();
        flags
    })
}

/// Holds the daemon's answer to what it was offered, and to the size of our places.
fn restrict_answer(reply: &mut [u8], offered: InitFlags) -> Result<(), Error> {
    let refused = |reason: &str| Error::Session { reason: reason.into() };
    let (header, body) = reply
        .split_at_mut_checked(OUT_HEADER)
        .ok_or_else(|| refused("its answer to INIT is too short"))?;
    let header = wire::OutHeader::read_from_bytes(header).map_err(|_| refused("its answer to INIT is too short"))?;
    if header.error != 0 {
        let error = std::io::Error::from_raw_os_error(header.error.saturating_neg());
        return Err(Error::Session {
            reason: format!("it refuses INIT: {error}"),
        });
    }
    let major = with_prefix(body, |init: &mut wire::InitOut| {
        let flags = InitFlags::from_words(init.flags, init.flags2) & offered;
        (init.flags, init.flags2) = flags.words();
        (init.map_alignment, init.max_stack_depth) = (0, 0);
        init.max_write = init.max_write.min(DATA_MAX);
        let pages_max = DATA_MAX as usize / rustix::param::page_size();
        init.max_pages = init.max_pages.min(u16::try_from(pages_max).unwrap_or(u16::MAX));
        init.major
    });
    match major {
        Some(wire::MAJOR) => Ok(()),
        Some(other) => Err(Error::Session {
            reason: format!("it speaks version {other} of FUSE, and the kernel {}", wire::MAJOR),
        }),
        None => Err(refused("its answer to INIT is too short")),
    }
}

/// Changes the structure that `bytes` begin with; older protocols have shorter ones, and the rest counts as zeros.
fn with_prefix<T: FromBytes + IntoBytes + Immutable, R>(
    bytes: &mut [u8],
    change: impl FnOnce(&mut T) -> R,
) -> Option<R> {
    let mut whole = T::new_zeroed();
    let length = bytes.len().min(size_of::<T>());
    let (start, bytes) = (whole.as_mut_bytes().get_mut(..length)?, bytes.get_mut(..length)?);
    start.copy_from_slice(bytes);
    let result = change(&mut whole);
    bytes.copy_from_slice(whole.as_bytes().get(..length)?);
    Some(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn init(flags: InitFlags) -> Vec<u8> {
        let header = wire::InHeader {
            opcode: Opcode::Init as u32,
            ..Default::default()
        };
        let (flags, flags2) = flags.words();
        let body = wire::InitIn {
            flags,
            flags2,
            ..Default::default()
        };
        [header.as_bytes(), body.as_bytes()].concat()
    }

    #[test]
    fn what_cannot_work_is_not_offered_to_the_daemon() {
        let kept = InitFlags::ASYNC_READ | InitFlags::INIT_EXT | InitFlags::CREATE_SUPP_GROUP;
        let mut request = init(kept | IMPOSSIBLE);
        request[IN_HEADER + 19] |= 0x80; // bit 63, which FUSE 7.45 does not know
        assert_eq!(restrict_offer(&mut request), Some(kept));
        assert_eq!(request, init(kept));
    }

    #[test]
    fn the_short_init_of_an_old_kernel_is_understood() {
        let mut request = init(InitFlags::ASYNC_READ | InitFlags::MAP_ALIGNMENT);
        request.truncate(IN_HEADER + 16);
        assert_eq!(restrict_offer(&mut request), Some(InitFlags::ASYNC_READ));
        assert_eq!(request.len(), IN_HEADER + 16);
        assert_eq!(restrict_offer(&mut request[..IN_HEADER + 15]), None);
    }

    #[test]
    fn the_daemon_gets_no_more_than_it_was_offered_and_than_has_space() {
        let offered = InitFlags::ASYNC_READ | InitFlags::INIT_EXT | InitFlags::MAX_PAGES;
        let (flags, flags2) = (offered | InitFlags::PASSTHROUGH | InitFlags::SUBMOUNTS).words();
        let out = wire::InitOut {
            major: wire::MAJOR,
            flags,
            flags2,
            max_write: 4 << 20,
            max_pages: 1024,
            max_stack_depth: 1,
            map_alignment: 12,
            ..Default::default()
        };
        let mut reply = [wire::OutHeader::default().as_bytes(), out.as_bytes()].concat();
        restrict_answer(&mut reply, offered).unwrap();
        let out = wire::InitOut::read_from_bytes(&reply[OUT_HEADER..]).unwrap();
        assert_eq!(InitFlags::from_words(out.flags, out.flags2), offered);
        assert_eq!(
            (out.max_write, out.map_alignment, out.max_stack_depth),
            (DATA_MAX, 0, 0)
        );
        assert_eq!(
            usize::from(out.max_pages) * rustix::param::page_size(),
            DATA_MAX as usize
        );
    }

    #[test]
    fn a_daemon_of_another_major_version_is_refused() {
        for major in [0, wire::MAJOR - 1, wire::MAJOR + 1] {
            let out = wire::InitOut {
                major,
                ..Default::default()
            };
            let mut reply = [wire::OutHeader::default().as_bytes(), out.as_bytes()].concat();
            let refused = restrict_answer(&mut reply, InitFlags::all()).unwrap_err();
            assert!(
                refused.to_string().contains(&format!("version {major} of FUSE")),
                "{refused}"
            );
        }
    }

    #[test]
    fn a_daemon_that_refuses_init_ends_the_mount() {
        let header = wire::OutHeader {
            error: -libc::EPROTO,
            ..Default::default()
        };
        let refused = restrict_answer(header.clone().as_mut_bytes(), InitFlags::empty()).unwrap_err();
        assert!(refused.to_string().contains("refuses INIT"), "{refused}");
    }
}
