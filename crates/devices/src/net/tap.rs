//! A queue of a tap interface as a port: frames go between guest memory and the kernel by one system call each.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};

use guestmem::{Reader, Writer};
use rustix::io::{Errno, readv, retry_on_intr};
use tap::{Offloads, Queue};
use tracing::debug;
use zerocopy::IntoBytes;

use super::features;
use super::header::Header;
use super::port::{Frame, Port, Received, Sent};

/// How often a call that a signal interrupts is made again.
const TRIES: usize = 8;

/// A queue of a tap interface.
#[derive(Debug)]
pub struct TapPort {
    queue: Queue,
    /// There are several queues, so that this one can be detached.
    detachable: bool,
    attached: bool,
}

/// Opens the interface `name` with a port for each of `pairs` queue pairs, at least 1.
pub fn open(name: &str, pairs: u16) -> Result<Vec<Box<dyn Port>>, tap::Error> {
    let queues = tap::open(name, pairs)?.into_iter();
    let port = |queue| -> Box<dyn Port> {
        Box::new(TapPort {
            queue,
            detachable: pairs > 1,
            attached: true,
        })
    };
    Ok(queues.map(port).collect())
}

impl Port for TapPort {
    fn features(&self) -> u64 {
        features::ALL_OFFLOADS
    }

    fn file(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }

    fn send(&mut self, header: &Header, frame: &mut Reader<'_>) -> Sent {
        let file = self.queue.as_fd();
        match uninterrupted(|| frame.write_message(file, header.as_bytes())) {
            Ok(_) => Sent::Whole,
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::AGAIN) => Sent::Full,
                Some(Errno::BADFD) if self.attached => Sent::Lost,
                _ => {
                    debug!(%error, "the tap interface refused a frame");
                    Sent::Refused
                }
            },
        }
    }

    fn receive(&mut self, frame: &mut Frame) -> Received {
        let mut header = Header::default();
        let parts = &mut [IoSliceMut::new(header.as_mut_bytes()), IoSliceMut::new(frame.space())];
        let read = retry_on_intr(|| readv(&self.queue, parts));
        frame.header = header;
        match read {
            Ok(read) => Received::Frame(read.saturating_sub(size_of::<Header>())),
            Err(errno) => self.nothing(errno),
        }
    }

    fn receive_into(&mut self, header: &mut Header, space: &mut Writer<'_>) -> Received {
        let room = space.remaining();
        let file = self.queue.as_fd();
        match uninterrupted(|| space.read_message(file, header.as_mut_bytes())) {
            Ok(length) if length > room => Received::Cut,
            Ok(length) => Received::Frame(length),
            Err(error) => self.nothing(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }

    fn set_offloads(&mut self, guest: u64) -> io::Result<()> {
        let mut offloads = Offloads::empty();
        for (feature, offload) in [
            (features::GUEST_CSUM, Offloads::CHECKSUM),
            (features::GUEST_TSO4, Offloads::TSO4),
            (features::GUEST_TSO6, Offloads::TSO6),
            (features::GUEST_ECN, Offloads::ECN),
            (features::GUEST_UFO, Offloads::UFO),
        ] {
            offloads.set(offload, guest & feature != 0);
        }
        if !offloads.contains(Offloads::CHECKSUM) {
            offloads = Offloads::empty();
        }
        Ok(self.queue.set_offloads(offloads)?)
    }

    fn set_attached(&mut self, attached: bool) -> io::Result<()> {
        if self.detachable && attached != self.attached {
            self.queue.set_attached(attached)?;
            self.attached = attached;
        }
        Ok(())
    }
}

impl TapPort {
    fn nothing(&self, errno: Errno) -> Received {
        match errno {
            Errno::AGAIN | Errno::INTR => Received::Nothing,
            Errno::FAULT | Errno::MSGSIZE => Received::Unreachable,
            Errno::BADFD if self.attached => Received::Lost,
            // The interface is down.
            _ => Received::Nothing,
        }
    }
}

fn uninterrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    for _ in 1..TRIES {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
    call()
}
