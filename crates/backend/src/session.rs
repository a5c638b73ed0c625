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

/// A front end and its setup. Dropping it stops the queues and ends the device's session.
pub struct Session<'d> {
    protocol: protocol::Session,
    connection: Connection<'d>,
}

/// Reason why a session stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The front end disconnected.
    Gone,
    /// The owner requested it; [`Session::run`] continues from there.
    Stopped,
}

/// Reason why a session cannot be resumed here.
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

    /// Serves requests of the front end until it disconnects or `stop` is readable. The queues run meanwhile and
    /// afterwards.
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

    /// Stops all queues, completes all chains that were taken, and returns the state with which another process can
    /// continue. The front end and the driver notice nothing. Mappings of shared memory are removed. The state
    /// includes neither the device's own state nor areas in the windows of other devices.
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

    /// Resumes a session that was stopped, here or in another process, for a device of the same kind. Its queues run
    /// when this returns.
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

    /// The status of the session.
    #[must_use]
    pub fn status(&self) -> Status {
        self.connection.status_of_queues()
    }

    /// A handle with which other threads read the counts.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch::new(self.connection.counters())
    }
}
