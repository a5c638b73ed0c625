//! What a socket of the host has for the guest: bytes of a stream, or messages in as many packets as they take.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use guestmem::Writer;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::host;
use super::wire::{END_OF_MESSAGE, Kind};

/// Most bytes of a message of the host. Unix sockets of Linux have a smaller limit, unless it was raised.
const MESSAGE_MOST: usize = 256 << 10;

/// What a socket had for the guest.
pub(super) enum Payload {
    /// So many bytes, with the flags of their packet.
    Bytes(usize, u32),
    End,
}

/// A message of the host that did not fit into one packet, and how much of it is gone.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    message: Vec<u8>,
    delivered: usize,
}

impl Inbox {
    pub(super) fn is_empty(&self) -> bool {
        self.message.is_empty()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Puts at most `room` bytes for the next packet into `writer`: what is left of a message, or else what `socket` has. `None` is a
    /// socket that is closed. No message is longer than `guest_buffer`, all that the guest has room for.
    pub(super) fn read(
        &mut self,
        socket: Option<&OwnedFd>,
        kind: Kind,
        (writer, room): (&mut Writer<'_>, usize),
        guest_buffer: usize,
    ) -> io::Result<Payload> {
        match (kind, socket) {
            (Kind::Stream, None) => Ok(Payload::End),
            (Kind::Stream, Some(socket)) => match writer.receive_from(socket.as_fd(), room)? {
                0 => Ok(Payload::End),
                length => Ok(Payload::Bytes(length, 0)),
            },
            (Kind::Record, Some(socket)) if self.is_empty() => self.read_message(socket, writer, room, guest_buffer),
            (Kind::Record, _) => self.continue_message(writer, room),
        }
    }

    /// A message, or the first part of one that is longer than a packet.
    fn read_message(
        &mut self,
        socket: &OwnedFd,
        writer: &mut Writer<'_>,
        room: usize,
        guest_buffer: usize,
    ) -> io::Result<Payload> {
        let mut nothing = [0; 1];
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK | RecvFlags::TRUNC;
        let (_, length) = recv(socket, &mut nothing, flags)?;
        if length == 0 {
            // An empty message, or the end.
            if host::has_state(socket, PollFlags::RDHUP) {
                return Ok(Payload::End);
            }
            recv(socket, &mut nothing, RecvFlags::DONTWAIT)?;
            return Ok(Payload::Bytes(0, END_OF_MESSAGE));
        }
        if length <= room {
            let received = writer.receive_from(socket.as_fd(), length)?;
            if received != length {
                return Err(Errno::MSGSIZE.into());
            }
            return Ok(Payload::Bytes(length, END_OF_MESSAGE));
        }
        if length > MESSAGE_MOST || length > guest_buffer {
            return Err(Errno::MSGSIZE.into());
        }
        let mut message = vec![0; length];
        let (_, received) = recv(socket, &mut message[..], RecvFlags::DONTWAIT)?;
        message.truncate(received);
        (self.message, self.delivered) = (message, 0);
        self.continue_message(writer, room)
    }

    fn continue_message(&mut self, writer: &mut Writer<'_>, room: usize) -> io::Result<Payload> {
        let left = &self.message[self.delivered..];
        let length = left.len().min(room);
        writer.write_all(&left[..length])?;
        self.delivered += length;
        if self.delivered < self.message.len() {
            return Ok(Payload::Bytes(length, 0));
        }
        self.clear();
        Ok(Payload::Bytes(length, END_OF_MESSAGE))
    }
}
