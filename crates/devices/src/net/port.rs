//! What a queue pair is connected to.

use std::io;
use std::os::fd::BorrowedFd;

use guestmem::{Reader, Writer};

use super::header::{FRAME_MAX, Header};

/// The host's end of a queue pair: a tap queue, a stream to a user-mode network, the port of a switch.
///
/// A device has one for each pair, for life. Nothing here blocks.
pub trait Port: Send {
    /// The offloads that it carries, as feature bits of the device.
    fn features(&self) -> u64;

    /// Readable while a frame may be received, writable while one may be sent; a hang-up is the end of the port.
    fn file(&self) -> BorrowedFd<'_>;

    /// Sends a frame: all that is left in `frame`, at most [`FRAME_MAX`] bytes. The header is checked.
    fn send(&mut self, header: &Header, frame: &mut Reader<'_>) -> Sent;

    /// Goes on with what [`send`](Self::send) has left over, when the file is writable.
    fn flush(&mut self) -> Sent {
        Sent::Whole
    }

    /// Whether the port waits for its file to be writable, to go on with [`flush`](Self::flush).
    fn is_flushing(&self) -> bool {
        false
    }

    /// Receives a frame into memory of our own.
    fn receive(&mut self, frame: &mut Frame) -> Received;

    /// Receives a frame straight into guest memory. One that is longer than `space` is dropped: [`Received::Cut`].
    fn receive_into(&mut self, header: &mut Header, space: &mut Writer<'_>) -> Received;

    /// Has the port leave these to the guest, of the offloads in [`features`](Self::features). Holds for all ports of the device.
    fn set_offloads(&mut self, _guest: u64) -> io::Result<()> {
        Ok(())
    }

    /// Whether the port gets frames.
    fn set_attached(&mut self, _attached: bool) -> io::Result<()> {
        Ok(())
    }
}

/// What became of a frame of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way.
    Whole,
    /// It has to wait until the file is writable.
    Full,
    /// The host refused it.
    Refused,
    /// The port is gone for good.
    Lost,
}

/// What a port had for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A frame of this many bytes.
    Frame(usize),
    /// A frame that did not fit, and is gone.
    Cut,
    /// The space cannot be reached. No frame is gone.
    Unreachable,
    /// Nothing, until the file is readable.
    Nothing,
    /// The port is gone for good.
    Lost,
}

/// A frame in memory of our own: it goes into several chains, or waits for them.
#[derive(Debug)]
pub struct Frame {
    /// Its header.
    pub header: Header,
    /// Space for any frame, and one byte more that shows that one is too long.
    space: Box<[u8]>,
    length: usize,
}

impl Frame {
    pub(super) fn new() -> Self {
        Self {
            header: Header::default(),
            space: vec![0; FRAME_MAX + 1].into(),
            length: 0,
        }
    }

    /// Where a port puts the bytes.
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.space
    }

    pub(super) fn set(&mut self, length: usize) {
        self.length = length.min(self.space.len());
    }

    /// None is held.
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn clear(&mut self) {
        self.length = 0;
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.space[..self.length]
    }
}
