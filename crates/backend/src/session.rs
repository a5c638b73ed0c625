//! A session: one front end, from its first message to its end, as a value that its owner runs and queries.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tracing::{debug, warn};
use vhost_user::ProtocolFeatures;
use vhost_user::backend::{self as protocol, Served};
use vhost_user::socket::Socket;

use crate::connection::Connection;
use crate::wait::{Woken, wait};
use crate::{Device, Error, Options, Saved, Status, Watch};

/// A front end and what it has set up. Dropping it stops the queues and tells the device of the end.
pub struct Session<'d> {
    protocol: protocol::Session,
    connection: Connection<'d>,
}

/// Why a session runs no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The front end is gone.
    Gone,
    /// The owner asked for it; [`Session::run`] goes on where it was.
    Stopped,
}

/// Why a session cannot go on here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot resume the session: {0}")]
pub struct ResumeError(String);

impl<'d> Session<'d> {
    /// Serves the front end at the other end of a connected socket.
    pub fn new(stream: impl Into<OwnedFd>, device: &'d dyn Device, options: Options) -> Session<'d> {
        Session {
            protocol: protocol::Session::new(stream),
            connection: Connection::new(device, options),
        }
    }

    /// Does what the front end says until it is gone, or `stop` is readable. The queues run on meanwhile and after.
    pub fn run(&mut self, stop: BorrowedFd<'_>) -> Result<Ended, Error> {
        loop {
            match self.protocol.serve(&mut self.connection) {
                Ok(Served::Granted(request)) => debug!("{request}"),
                Ok(Served::Refused(request, refusal)) => warn!("{request} refused: {refusal}"),
                Ok(Served::Malformed(malformed)) => warn!("{malformed}"),
                Ok(Served::Closed) => return Ok(Ended::Gone),
                Ok(Served::Pending) => {
                    if wait(self.protocol.as_fd(), stop, None)? == Woken::Stop {
                        return Ok(Ended::Stopped);
                    }
                }
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, "the connection failed");
                    return Ok(Ended::Gone);
                }
            }
        }
    }

    /// Stops all queues, with all chains complete that were taken, and gives what another process takes to go on where this one was:
    /// the front end and the driver notice nothing. Mappings of shared memory are taken out. State of the device is not in
    /// it, nor what windows of other devices show the guest.
    pub fn stop(mut self) -> io::Result<Saved> {
        let connection = self.connection.save()?;
        let (socket, negotiated) = self.protocol.into_parts();
        let (stream, bytes, files) = socket.into_parts();
        Ok(Saved {
            stream,
            arrived: (bytes, files),
            negotiated: negotiated.bits(),
            connection,
        })
    }

    /// Goes on with a session that was stopped, here or in another process, for a device of the same kind. Its queues run when this
    /// returns.
    pub fn resume(saved: Saved, device: &'d dyn Device, options: Options) -> Result<Session<'d>, ResumeError> {
        let (bytes, files) = saved.arrived;
        let negotiated = ProtocolFeatures::from_bits_truncate(saved.negotiated);
        let mut connection = Connection::new(device, options);
        let restored = connection.restore(saved.connection, negotiated);
        restored.map_err(|refusal| ResumeError(refusal.to_string()))?;
        let socket = Socket::from_parts(saved.stream, bytes, files);
        Ok(Session {
            protocol: protocol::Session::resume(socket, negotiated),
            connection,
        })
    }

    /// What it has come to.
    #[must_use]
    pub fn status(&self) -> Status {
        self.connection.status_of_queues()
    }

    /// For others to read the counts.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch::new(self.connection.counters())
    }
}
