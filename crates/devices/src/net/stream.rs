//! A stream socket with frames as a port: each behind its length in 4 bytes, the highest first. passt, and QEMU's
//! `-netdev stream`, speak it.
//!
//! There are no headers on the stream, so that the port carries no offloads: checksums are complete and frames have at
//! most [`FRAME_MAX`] bytes both ways.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use guestmem::{Reader, Writer};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tracing::error;

use super::header::{FRAME_MAX, Header};
use super::port::{Frame, Port, Received, Sent};

/// Bytes of a length.
const LENGTH: usize = 4;

/// Bytes received at a time. The largest frame fits in.
const INCOMING: usize = 256 << 10;

/// A stream socket that carries frames.
#[derive(Debug)]
pub struct StreamPort {
    stream: UnixStream,
    incoming: Incoming,
    /// The rest of a frame that the socket has taken in part.
    outgoing: Vec<u8>,
    /// How much of it was sent.
    sent: usize,
}

/// Bytes received: frames, the last of which may be there in part.
#[derive(Debug)]
struct Incoming {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

/// Why there is no whole frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// More bytes.
    Bytes,
    /// A length that no frame has.
    Sense(usize),
}

impl StreamPort {
    /// A port at this end of `stream`.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            incoming: Incoming {
                bytes: vec![0; INCOMING].into(),
                start: 0,
                end: 0,
            },
            outgoing: Vec::new(),
            sent: 0,
        }
    }

    /// Passes the next frame to `each`, which returns what became of it.
    fn next(&mut self, each: impl FnOnce(&[u8]) -> Received) -> Received {
        let mut asked = false;
        loop {
            match self.incoming.frame() {
                Ok(frame) => {
                    let received = each(frame);
                    if received != Received::Unreachable {
                        self.incoming.pass();
                    }
                    return received;
                }
                Err(Missing::Sense(length)) => {
                    error!("the network sent a frame of {length} bytes, more than the {FRAME_MAX} that there can be");
                    return Received::Lost;
                }
                Err(Missing::Bytes) if asked => return Received::Nothing,
                Err(Missing::Bytes) => asked = true,
            }
            let space = self.incoming.space();
            match retry_on_intr(|| recv(&self.stream, &mut *space, RecvFlags::DONTWAIT)) {
                Ok((0, _)) => return Received::Lost,
                Ok((_, read)) => self.incoming.end += read,
                Err(Errno::AGAIN) => return Received::Nothing,
                Err(errno) => {
                    error!(%errno, "cannot receive from the network");
                    return Received::Lost;
                }
            }
        }
    }
}

impl Port for StreamPort {
    fn features(&self) -> u64 {
        0
    }

    fn file(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    fn send(&mut self, _header: &Header, frame: &mut Reader<'_>) -> Sent {
        match self.flush() {
            Sent::Whole => {}
            other => return other,
        }
        let length = frame.remaining();
        debug_assert!(length <= FRAME_MAX);
        self.outgoing.clear();
        self.outgoing.extend((length as u32).to_be_bytes());
        self.outgoing.resize(LENGTH + length, 0);
        self.sent = 0;
        if frame.read_exact(&mut self.outgoing[LENGTH..]).is_err() {
            self.outgoing.clear();
            return Sent::Refused;
        }
        match self.flush() {
            // It is here and goes on from here.
            Sent::Full => Sent::Whole,
            other => other,
        }
    }

    fn flush(&mut self) -> Sent {
        while self.sent < self.outgoing.len() {
            let rest = &self.outgoing[self.sent..];
            match retry_on_intr(|| send(&self.stream, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)) {
                Ok(0) | Err(Errno::AGAIN) => return Sent::Full,
                Ok(sent) => self.sent += sent,
                Err(errno) => {
                    error!(%errno, "cannot send to the network");
                    return Sent::Lost;
                }
            }
        }
        Sent::Whole
    }

    fn is_flushing(&self) -> bool {
        self.sent < self.outgoing.len()
    }

    fn receive(&mut self, frame: &mut Frame) -> Received {
        self.next(|bytes| {
            frame.space()[..bytes.len()].copy_from_slice(bytes);
            frame.header = Header::default();
            Received::Frame(bytes.len())
        })
    }

    fn receive_into(&mut self, header: &mut Header, space: &mut Writer<'_>) -> Received {
        *header = Header::default();
        self.next(|bytes| {
            if bytes.len() > space.remaining() {
                Received::Cut
            } else if space.write_all(bytes).is_ok() {
                Received::Frame(bytes.len())
            } else {
                Received::Unreachable
            }
        })
    }
}

impl Incoming {
    fn available(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The first frame, if all of it is there.
    fn frame(&self) -> Result<&[u8], Missing> {
        let (length, rest) = self.available().split_first_chunk::<LENGTH>().ok_or(Missing::Bytes)?;
        let length = u32::from_be_bytes(*length) as usize;
        if length > FRAME_MAX {
            return Err(Missing::Sense(length));
        }
        rest.get(..length).ok_or(Missing::Bytes)
    }

    /// Passes over the first frame.
    fn pass(&mut self) {
        if let Ok(frame) = self.frame() {
            self.start += LENGTH + frame.len();
        }
    }

    /// Space for more bytes behind those that are there, which is never empty if a whole frame is not there.
    fn space(&mut self) -> &mut [u8] {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        &mut self.bytes[self.end..]
    }
}
