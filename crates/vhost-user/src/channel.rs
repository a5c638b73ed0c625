//! The second socket, on which the backend sends requests and the frontend answers them: [`Channel`] is the backend's end,
//! [`BackendRequests`] the frontend's.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use zerocopy::{FromBytes, IntoBytes};

use crate::Error;
use crate::message::{BackendRequestCode, FLAG_NEED_REPLY, FLAG_REPLY, Header, SHARED_WRITABLE, SharedMapping};
use crate::socket::{Message, Socket, Timeout};

/// The backend's end.
#[derive(Debug)]
pub struct Channel {
    socket: Socket,
    /// The last request was given up before its answer came: that answer is still to come, ahead of any other.
    owed: Option<BackendRequestCode>,
}

/// How long to wait for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Wait<'a> {
    /// The longest time.
    pub limit: Duration,
    /// Gives up with [`Error::CalledOff`] as soon as this is readable.
    pub stop: Option<BorrowedFd<'a>>,
}

impl Channel {
    /// Takes over the socket of SET_BACKEND_REQ_FD.
    pub fn new(stream: impl Into<OwnedFd>) -> Self {
        Self {
            socket: Socket::new(stream),
            owed: None,
        }
    }

    /// Gives the socket back. An answer that is owed comes to whoever takes it over.
    pub fn into_stream(self) -> OwnedFd {
        self.socket.into_parts().0
    }

    /// Another handle on the same channel, for [`config_changed`](Self::config_changed), to which no answer comes.
    pub fn try_clone(&self) -> Result<Self, Errno> {
        let stream = rustix::io::fcntl_dupfd_cloexec(self.socket.as_fd(), 0)?;
        Ok(Self::new(stream))
    }

    /// Tells the frontend that the configuration space has changed, so that it tells the driver.
    pub fn config_changed(&self) -> Result<(), Error> {
        self.socket.send(BackendRequestCode::ConfigChange as u32, 0, &[], &[])
    }

    /// SHMEM_MAP: has the frontend map part of `file` into a shared memory region where nothing is mapped yet, and waits until
    /// it has. Needs REPLY_ACK, SHMEM, BACKEND_REQ and BACKEND_SEND_FD.
    ///
    /// After [`Error::Timeout`] and [`Error::CalledOff`] it is not known what becomes of the mapping, until
    /// [`finish`](Self::finish) tells.
    pub fn map(&mut self, mapping: &SharedMapping, file: BorrowedFd<'_>, wait: Wait<'_>) -> Result<(), Error> {
        self.ask(BackendRequestCode::Map, mapping, &[file], wait)
    }

    /// SHMEM_UNMAP: has the frontend take out exactly one mapping, whole. As for the rest, see [`map`](Self::map).
    pub fn unmap(&mut self, mapping: &SharedMapping, wait: Wait<'_>) -> Result<(), Error> {
        self.ask(BackendRequestCode::Unmap, mapping, &[], wait)
    }

    /// Waits for the answer to the last request if that was given up before it came. `None`: no answer is due.
    pub fn finish(&mut self, wait: Wait<'_>) -> Result<Option<()>, Error> {
        let Some(owed) = self.owed else { return Ok(None) };
        let status = self.answer(owed, wait)?;
        self.owed = None;
        granted(owed, status).map(Some)
    }

    fn ask(
        &mut self,
        code: BackendRequestCode,
        mapping: &SharedMapping,
        files: &[BorrowedFd<'_>],
        wait: Wait<'_>,
    ) -> Result<(), Error> {
        match self.finish(wait) {
            Ok(_) | Err(Error::RefusedByFrontend { .. }) => {}
            Err(error) => return Err(error),
        }
        self.socket
            .send(code as u32, FLAG_NEED_REPLY, &[mapping.as_bytes()], files)?;
        match self.answer(code, wait) {
            Ok(status) => granted(code, status),
            Err(error) => {
                if matches!(error, Error::Timeout(_) | Error::CalledOff) {
                    self.owed = Some(code);
                }
                Err(error)
            }
        }
    }

    fn answer(&mut self, code: BackendRequestCode, wait: Wait<'_>) -> Result<u64, Error> {
        let wrong = |what: String| Error::Channel {
            request: code.to_string(),
            what,
        };
        let Some(reply) = self.socket.receive_unless(Timeout(Some(wait.limit)), wait.stop)? else {
            return Err(wrong("the frontend closed the channel instead of answering".into()));
        };
        let Header { request, flags, .. } = reply.header;
        if request != code as u32 || flags & FLAG_REPLY == 0 {
            return Err(wrong(format!("answered by message {request} with flags {flags:#x}")));
        }
        u64::read_from_bytes(&reply.payload).map_err(|_| wrong(format!("answered with {} bytes", reply.payload.len())))
    }
}

fn granted(request: BackendRequestCode, status: u64) -> Result<(), Error> {
    match status {
        0 => Ok(()),
        status => Err(Error::RefusedByFrontend { request, status }),
    }
}

/// What a backend asks of a frontend.
#[derive(Debug)]
pub enum BackendRequest {
    /// Tell the driver that the configuration space has changed.
    ConfigChanged,
    /// Map this file.
    Map(SharedMapping, OwnedFd),
    /// Take this mapping out.
    Unmap(SharedMapping),
}

impl BackendRequest {
    fn parse(message: Message) -> Result<Self, String> {
        let Message { header, payload, files } = message;
        let count = files.len();
        let mapping = || {
            let mapping = SharedMapping::read_from_bytes(&payload);
            let mapping = mapping.map_err(|_| format!("{} bytes of payload", payload.len()))?;
            let ends = [mapping.offset, mapping.file_offset].map(|start| start.checked_add(mapping.length));
            if mapping.length == 0 || ends.contains(&None) || mapping.flags & !SHARED_WRITABLE != 0 {
                return Err(format!("{mapping:?} is out of range"));
            }
            Ok(mapping)
        };
        let mut files = files.into_iter();
        match (header.request, files.next(), count) {
            (2, None, _) => Ok(Self::ConfigChanged),
            (9, Some(file), 1) => Ok(Self::Map(mapping()?, file)),
            (10, None, _) => Ok(Self::Unmap(mapping()?)),
            (number, _, files) => Err(format!("no request {number} with {files} files")),
        }
    }
}

/// The frontend's end.
#[derive(Debug)]
pub struct BackendRequests {
    socket: Socket,
}

impl BackendRequests {
    /// Serves the backend at the other end of a connected socket.
    pub fn new(stream: impl Into<OwnedFd>) -> Self {
        Self {
            socket: Socket::new(stream),
        }
    }

    /// Waits for the next request, has `handle` do it, and sends the status that it gives, 0 for success, if the backend asked
    /// for one. `false`: the backend closed the channel.
    ///
    /// A malformed request is answered with a non-zero status and handed to nobody.
    pub fn serve(&mut self, handle: impl FnOnce(BackendRequest) -> u64) -> Result<bool, Error> {
        let Some(message) = self.socket.receive(Timeout(None))? else {
            return Ok(false);
        };
        let header = message.header;
        let status = BackendRequest::parse(message).map_or(u64::MAX, handle);
        if header.needs_reply() {
            self.socket
                .send(header.request, FLAG_REPLY, &[status.as_bytes()], &[])?;
        }
        Ok(true)
    }
}

impl AsFd for BackendRequests {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
