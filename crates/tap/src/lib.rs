//! Tap interfaces of Linux: open one with as many queues as wanted, choose its offloads, attach and detach queues.
//!
//! Each frame is read or written with one system call on a [`Queue`], behind a header of [`HEADER`] bytes: `virtio_net_hdr`
//! with `num_buffers` (linux/virtio_net.h), which is that of VIRTIO 1.1 5.1.6.

mod error;
mod ioctl;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open as open_file};
use rustix::io::Errno;

pub use error::Error;
pub use ioctl::{SET_OFFLOAD, SET_QUEUE};

/// Bytes in front of each frame.
pub const HEADER: usize = 12;

/// Most bytes of an interface's name (IFNAMSIZ without the final zero).
const NAME_MOST: usize = 15;

const DEVICE: &str = "/dev/net/tun";

bitflags::bitflags! {
    /// What a reader of frames can finish by itself (TUN_F_*): without a bit the kernel does it before it hands a frame out.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Offloads: u32 {
        /// Checksums of TCP and UDP. All others need it.
        const CHECKSUM = 1;
        /// TCP over IPv4 in segments larger than the MTU.
        const TSO4 = 2;
        /// The same over IPv6.
        const TSO6 = 4;
        /// Congestion marks in such segments.
        const ECN = 8;
        /// UDP datagrams larger than the MTU, to be cut in IP fragments.
        const UFO = 16;
    }
}

/// One queue of a tap interface, in non-blocking mode.
#[derive(Debug)]
pub struct Queue(File);

/// Opens the interface `name` with `count` queues, at least 1. An interface that does not exist is made, and lasts as long as its
/// queues.
pub fn open(name: &str, count: u16) -> Result<Vec<Queue>, Error> {
    let good = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':' && byte != b'%';
    if name.is_empty() || name.len() > NAME_MOST || matches!(name, "." | "..") || !name.bytes().all(good) {
        return Err(Error::Name { name: name.into() });
    }
    let mut queues = Vec::new();
    for _ in 0..count.max(1) {
        queues.push(Queue(open_queue(name, count > 1)?.into()));
    }
    Ok(queues)
}

impl Queue {
    /// Has the kernel leave `offloads` to whoever reads frames. This holds for all queues of the interface.
    pub fn set_offloads(&self, offloads: Offloads) -> Result<(), Errno> {
        ioctl::set_offload(self.as_fd(), offloads.bits())
    }

    /// Whether the interface takes part with this queue. A detached queue gets no frames and takes none. Only for interfaces that are
    /// opened with several queues.
    pub fn set_attached(&self, attached: bool) -> Result<(), Errno> {
        ioctl::set_queue(self.as_fd(), attached)
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn open_queue(name: &str, several: bool) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fresh = || open_file(DEVICE, flags, Mode::empty()).map_err(Error::device);
    let file = fresh()?;
    match ioctl::set_interface(file.as_fd(), name, several) {
        // An interface that was made for several queues can only be opened as such.
        Err(Errno::INVAL) if !several => {
            let file = fresh()?;
            ioctl::set_interface(file.as_fd(), name, true).map_err(|errno| Error::interface(name, several, errno))?;
            prepare(file, name)
        }
        Err(errno) => Err(Error::interface(name, several, errno)),
        Ok(()) => prepare(file, name),
    }
}

fn prepare(file: OwnedFd, name: &str) -> Result<OwnedFd, Error> {
    ioctl::set_header_size(file.as_fd(), HEADER as libc::c_int)
        .and_then(|()| ioctl::set_offload(file.as_fd(), 0))
        .map_err(|errno| Error::interface(name, false, errno))?;
    Ok(file)
}
