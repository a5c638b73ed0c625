//! Bytes of the guest that a socket had no room for yet. Credit bounds them.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use guestmem::{CursorError, Reader};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

use super::wire::Kind;

/// Messages without a byte that may wait: credit does not count them.
const EMPTY_MESSAGES: usize = 1024;
/// Bytes copied out of guest memory at a time.
const STEP: usize = 16 << 10;

/// What waits for a socket.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: VecDeque<u8>,
    /// Length of each complete message in front; none on a stream.
    messages: VecDeque<u32>,
    /// Bytes behind them, of a message whose end has not come.
    incomplete: u32,
}

/// The driver sent more empty messages than may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl Outbox {
    /// Whether nothing waits, for the socket or for the end of a message.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.messages.is_empty()
    }

    /// Whether the socket can be sent something.
    pub(super) fn has_work(&self, kind: Kind) -> bool {
        match kind {
            Kind::Stream => !self.bytes.is_empty(),
            Kind::Record => !self.messages.is_empty(),
        }
    }

    /// Takes all that is left in `reader`.
    pub(super) fn take(&mut self, reader: &mut Reader<'_>) -> Result<(), CursorError> {
        while reader.remaining() > 0 {
            let bytes = reader.read_to_vec(reader.remaining().min(STEP))?;
            self.bytes.extend(&bytes);
            self.incomplete = self.incomplete.saturating_add(bytes.len() as u32);
        }
        Ok(())
    }

    /// Ends a message.
    pub(super) fn end_message(&mut self) -> Result<(), TooMany> {
        if self.messages.len() >= self.bytes.len() + EMPTY_MESSAGES {
            return Err(TooMany);
        }
        self.messages.push_back(std::mem::take(&mut self.incomplete));
        Ok(())
    }

    /// Drops everything. Returns how many bytes that were.
    pub(super) fn clear(&mut self) -> u32 {
        let dropped = self.bytes.len() as u32;
        *self = Self::default();
        dropped
    }

    /// Sends one piece, or one message. Returns how many bytes left.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>, kind: Kind) -> Result<u32, Errno> {
        let length = match kind {
            Kind::Stream => self.bytes.len(),
            Kind::Record => match self.messages.front() {
                Some(&length) => length as usize,
                None => return Ok(0),
            },
        };
        let (front, back) = self.bytes.as_slices();
        let front = &front[..front.len().min(length)];
        let back = &back[..length - front.len()];
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let slices = [IoSlice::new(front), IoSlice::new(back)];
        let sent = sendmsg(socket, &slices, &mut SendAncillaryBuffer::default(), flags)?;
        self.bytes.drain(..sent.min(length));
        if kind == Kind::Record {
            self.messages.pop_front();
        }
        Ok(sent.min(length) as u32)
    }
}
