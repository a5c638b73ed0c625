//! A session: one front end, from its first message to its end, as a value that its owner runs and asks.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use tracing::{debug, warn};
use vhost_user::backend::{self as protocol, Served};

use crate::connection::Connection;
use crate::counters::Counters;
use crate::server::{Woken, wait};
use crate::{Counts, Device, Error, Options};

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

/// What a session has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Feature bits in use.
    pub features: u64,
    /// One for each queue of the device.
    pub queues: Vec<QueueStatus>,
}

/// What a queue has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueStatus {
    /// Whether it runs, enabled or not.
    pub running: bool,
    /// What it has done, in all its runs.
    pub counts: Counts,
}

/// Reads the counts of a session from another thread, while it runs and after.
#[derive(Clone, Debug)]
pub struct Watch(Arc<[Arc<Counters>]>);

impl Watch {
    /// The counts of each queue now.
    #[must_use]
    pub fn counts(&self) -> Vec<Counts> {
        self.0.iter().map(|counters| counters.now()).collect()
    }
}

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
                    warn!(error = &error as &dyn std::error::Error, "the connection is lost");
                    return Ok(Ended::Gone);
                }
            }
        }
    }

    /// What it has come to.
    #[must_use]
    pub fn status(&self) -> Status {
        self.connection.status_of_queues()
    }

    /// For others to read the counts.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch(self.connection.counters())
    }
}
