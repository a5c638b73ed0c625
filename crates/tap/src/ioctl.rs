//! The ioctls of linux/if_tun.h.
#![expect(unsafe_code, reason = "ioctls that the C library has no functions for")]

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

const SET_INTERFACE: u32 = 0x4004_54ca;
/// `TUNSETOFFLOAD`.
pub const SET_OFFLOAD: u32 = 0x4004_54d0;
const SET_HEADER_SIZE: u32 = 0x4004_54d8;
/// `TUNSETQUEUE`.
pub const SET_QUEUE: u32 = 0x4004_54d9;

const TAP: u16 = 0x0002;
const NO_PACKET_INFORMATION: u16 = 0x1000;
const HEADERS: u16 = 0x4000;
const MULTI_QUEUE: u16 = 0x0100;
const ATTACH_QUEUE: u16 = 0x0200;
const DETACH_QUEUE: u16 = 0x0400;

/// `struct ifreq` with flags.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

impl Request {
    fn new(name: &str, flags: u16) -> Self {
        let mut request = Self {
            name: [0; 16],
            flags,
            rest: [0; 22],
        };
        for (to, from) in request.name.iter_mut().take(15).zip(name.bytes()) {
            *to = from;
        }
        request
    }
}

/// Binds a file of /dev/net/tun to an interface.
pub(crate) fn set_interface(file: BorrowedFd<'_>, name: &str, several: bool) -> Result<(), Errno> {
    let several = if several { MULTI_QUEUE } else { 0 };
    let mut request = Request::new(name, TAP | NO_PACKET_INFORMATION | HEADERS | several);
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, which `Request` is, of 40 bytes.
    result(unsafe { libc::ioctl(file.as_raw_fd(), SET_INTERFACE.into(), &raw mut request) })
}

pub(crate) fn set_queue(file: BorrowedFd<'_>, attached: bool) -> Result<(), Errno> {
    let mut request = Request::new("", if attached { ATTACH_QUEUE } else { DETACH_QUEUE });
    // SAFETY: TUNSETQUEUE reads a `struct ifreq`, which `Request` is, of 40 bytes.
    result(unsafe { libc::ioctl(file.as_raw_fd(), SET_QUEUE.into(), &raw mut request) })
}

pub(crate) fn set_offload(file: BorrowedFd<'_>, offloads: u32) -> Result<(), Errno> {
    let offloads = libc::c_ulong::from(offloads);
    // SAFETY: TUNSETOFFLOAD takes a number.
    result(unsafe { libc::ioctl(file.as_raw_fd(), SET_OFFLOAD.into(), offloads) })
}

pub(crate) fn set_header_size(file: BorrowedFd<'_>, size: libc::c_int) -> Result<(), Errno> {
    // SAFETY: TUNSETVNETHDRSZ reads an int.
    result(unsafe { libc::ioctl(file.as_raw_fd(), SET_HEADER_SIZE.into(), &raw const size) })
}

fn result(answer: libc::c_int) -> Result<(), Errno> {
    if answer >= 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}
