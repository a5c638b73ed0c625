//! Whole messages with their files over a Unix stream socket.

use std::fmt;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::Error;
use crate::message::{HEADER_SIZE, Header, MAX_FILES, MAX_PAYLOAD, VERSION, VERSION_MASK};

/// One message as it came: framed, of the right version, not yet understood.
#[derive(Debug)]
pub struct Message {
    /// Its header.
    pub header: Header,
    /// Exactly `header.size` bytes.
    pub payload: Vec<u8>,
    /// At most [`MAX_FILES`], close-on-exec.
    pub files: Vec<OwnedFd>,
}

/// What a look at the socket found.
#[derive(Debug)]
pub enum Incoming {
    /// A whole message.
    Message(Message),
    /// Nothing, or the beginning of a message: look again when the socket is readable.
    Pending,
    /// The peer closed the connection between two messages.
    Closed,
}

/// A limit on waiting; `None` waits for ever.
#[derive(Clone, Copy, Debug)]
pub struct Timeout(pub Option<Duration>);

impl fmt::Display for Timeout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(limit) => write!(formatter, "{limit:?}"),
            None => formatter.write_str("any time"),
        }
    }
}

/// A connected socket and the message that is arriving on it.
#[derive(Debug)]
pub struct Socket {
    stream: OwnedFd,
    arrived: Vec<u8>,
    files: Vec<OwnedFd>,
}

impl Socket {
    /// Takes over a connected Unix stream socket.
    pub fn new(stream: impl Into<OwnedFd>) -> Self {
        Self {
            stream: stream.into(),
            arrived: Vec::with_capacity(HEADER_SIZE),
            files: Vec::new(),
        }
    }

    /// The stream, with what has arrived of a message.
    pub fn into_parts(self) -> (OwnedFd, Vec<u8>, Vec<OwnedFd>) {
        (self.stream, self.arrived, self.files)
    }

    /// The reverse of [`into_parts`](Self::into_parts).
    pub fn from_parts(stream: OwnedFd, arrived: Vec<u8>, files: Vec<OwnedFd>) -> Self {
        Self { stream, arrived, files }
    }

    /// Takes what has arrived, without waiting: a peer that stops in the middle of a message blocks nobody.
    pub fn try_receive(&mut self) -> Result<Incoming, Error> {
        loop {
            let wanted = self.wanted()?;
            if self.arrived.len() == wanted {
                return Ok(Incoming::Message(self.take()));
            }
            match self.receive_some(wanted) {
                Ok(0) if self.arrived.is_empty() => return Ok(Incoming::Closed),
                Ok(0) => {
                    return Err(Error::Truncated {
                        received: self.arrived.len(),
                        expected: wanted,
                    });
                }
                Ok(_) => {}
                Err(ReceiveError::NotYet) => return Ok(Incoming::Pending),
                Err(ReceiveError::Fatal(error)) => return Err(error),
            }
        }
    }

    /// Waits for a whole message; `None` if the peer closed the connection instead.
    pub fn receive(&mut self, timeout: Timeout) -> Result<Option<Message>, Error> {
        self.receive_unless(timeout, None)
    }

    /// As [`receive`](Self::receive), but gives up with [`Error::CalledOff`] as soon as `stop` is readable.
    pub fn receive_unless(&mut self, timeout: Timeout, stop: Option<BorrowedFd<'_>>) -> Result<Option<Message>, Error> {
        let deadline = timeout.0.map(|limit| Instant::now() + limit);
        loop {
            match self.try_receive()? {
                Incoming::Message(message) => return Ok(Some(message)),
                Incoming::Closed => return Ok(None),
                Incoming::Pending => {
                    if !self.wait_readable(deadline, stop)? {
                        return Err(Error::Timeout(timeout));
                    }
                }
            }
        }
    }

    /// Sends one message, with its files attached to the first byte. Fails rather than waits if the peer does not read.
    ///
    /// A message without files can also be sent through a pipe: User-Mode Linux 6.1 gives one with SET_BACKEND_REQ_FD. Receiving
    /// from a pipe fails at once.
    ///
    /// Both ends wait for each other's replies, so a socket buffer full of unread messages means that the peer is broken.
    pub fn send(&self, request: u32, flags: u32, payload: &[&[u8]], files: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let size: usize = payload.iter().map(|part| part.len()).sum();
        assert!(
            size <= MAX_PAYLOAD && files.len() <= MAX_FILES,
            "callers send fixed, known messages"
        );
        let header = Header {
            request,
            flags: flags | VERSION,
            size: size as u32,
        };
        let bytes = [header.as_bytes(), &payload.concat()].concat();

        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            let fits = ancillary.push(SendAncillaryMessage::ScmRights(files));
            assert!(fits, "the buffer has room for MAX_FILES");
        }
        let sent = rustix::io::retry_on_intr(|| {
            sendmsg(
                &self.stream,
                &[IoSlice::new(&bytes)],
                &mut ancillary,
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            )
        });
        let sent = match sent {
            Err(Errno::NOTSOCK) if files.is_empty() => self.write(&bytes),
            sent => sent,
        }
        .map_err(|errno| Error::socket("sending a message", errno))?;
        // A stream socket takes a short message whole or not at all, unless its buffer is nearly full.
        if sent < bytes.len() {
            return Err(Error::socket("sending a whole message", Errno::AGAIN));
        }
        Ok(())
    }

    /// Writes to a pipe. It is set to non-blocking, since write(2) has no flag for that; the frontend only uses the other end.
    fn write(&self, bytes: &[u8]) -> rustix::io::Result<usize> {
        rustix::io::ioctl_fionbio(&self.stream, true)?;
        rustix::io::retry_on_intr(|| rustix::io::write(&self.stream, bytes))
    }

    /// How many bytes must have arrived before anything can be done: the header, then the whole message.
    fn wanted(&self) -> Result<usize, Error> {
        let Ok((header, _)) = Header::read_from_prefix(&self.arrived) else {
            return Ok(HEADER_SIZE);
        };
        if header.flags & VERSION_MASK != VERSION {
            return Err(Error::Version {
                request: header.request,
                flags: header.flags,
            });
        }
        if header.size as usize > MAX_PAYLOAD {
            return Err(Error::TooLong {
                request: header.request,
                size: header.size,
            });
        }
        Ok(HEADER_SIZE + header.size as usize)
    }

    fn take(&mut self) -> Message {
        let bytes = std::mem::replace(&mut self.arrived, Vec::with_capacity(HEADER_SIZE));
        let (header, payload) = Header::read_from_prefix(&bytes).expect("try_receive saw a whole header");
        Message {
            header,
            payload: payload.to_vec(),
            files: std::mem::take(&mut self.files),
        }
    }

    /// One recvmsg that never takes bytes of the next message: its files belong to it alone.
    fn receive_some(&mut self, wanted: usize) -> Result<usize, ReceiveError> {
        let start = self.arrived.len();
        let mut bytes = vec![0; wanted - start];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = rustix::io::retry_on_intr(|| {
            recvmsg(&self.stream, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags)
        });
        let received = match received {
            Ok(received) => received,
            Err(Errno::AGAIN) => return Err(ReceiveError::NotYet),
            // A peer that dies with unread replies resets the connection: an end like any other.
            Err(Errno::CONNRESET) => return Ok(0),
            Err(errno) => return Err(ReceiveError::Fatal(Error::socket("receiving a message", errno))),
        };

        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                self.files.extend(files);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) || self.files.len() > MAX_FILES {
            return Err(ReceiveError::Fatal(Error::TooManyFiles));
        }
        self.arrived.extend_from_slice(&bytes[..received.bytes]);
        Ok(received.bytes)
    }

    /// `false` when the deadline passed.
    fn wait_readable(&self, deadline: Option<Instant>, stop: Option<BorrowedFd<'_>>) -> Result<bool, Error> {
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let left = left.map(|left| Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            });
            let stream = self.stream.as_fd();
            let mut descriptors =
                [stream, stop.unwrap_or(stream)].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            let watched = if stop.is_some() { 2 } else { 1 };
            match poll(&mut descriptors[..watched], left.as_ref()) {
                // What has arrived goes first.
                Ok(ready) if ready > 0 && descriptors[0].revents().is_empty() => return Err(Error::CalledOff),
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::socket("waiting for a message", errno)),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

enum ReceiveError {
    NotYet,
    Fatal(Error),
}
