//! What `innkeeper check` does with a device: daemons to start, what a guest does with each, and what is to be told of the host.

use std::path::PathBuf;

use driver::{Error, Guest, Options};
use serde::Serialize;

/// How a device is tried out.
pub(crate) struct Exercise {
    /// Each with a daemon of its own.
    pub(crate) passes: Vec<Pass>,
    /// What the device could have of the host, from what the passes showed.
    pub(crate) needs: fn(&[Ran]) -> Vec<Need>,
}

/// One daemon, and what a guest does with it.
pub(crate) struct Pass {
    /// What it shows.
    pub(crate) name: &'static str,
    /// Options of the daemon, besides its socket.
    pub(crate) options: Vec<String>,
    /// Whether the daemon may refuse these options, where the host lacks what they need.
    pub(crate) may_be_refused: bool,
    /// What a guest does.
    pub(crate) guest: fn(&mut Steps) -> Result<(), Error>,
}

/// What a guest did with one daemon.
#[derive(Debug, Serialize)]
pub(crate) struct Ran {
    /// [`Pass::name`].
    pub(crate) pass: &'static str,
    /// The daemon's words where it refused to start.
    pub(crate) refused: Option<String>,
    /// What the daemon warned of.
    pub(crate) warnings: Vec<String>,
    /// Operations in their order.
    pub(crate) operations: Vec<Step>,
}

/// One operation.
#[derive(Debug, Serialize)]
pub(crate) struct Step {
    /// Its name in the device's terms, with what is special about it.
    pub(crate) operation: String,
    /// The name of the errno it got, if not the one that it should get.
    pub(crate) errno: Option<String>,
}

/// Something of the host that a device could use.
#[derive(Debug, Serialize)]
pub(crate) struct Need {
    /// What for.
    pub(crate) what: &'static str,
    /// Whether it works here.
    pub(crate) works: bool,
    /// Why, and what it takes.
    pub(crate) text: String,
}

/// Guests of one daemon, and what they did so far.
pub(crate) struct Steps {
    socket: PathBuf,
    /// The directory that is shared, as the host sees it.
    pub(crate) directory: PathBuf,
    pub(crate) done: Vec<Step>,
}

impl Steps {
    pub(crate) fn new(socket: PathBuf, directory: PathBuf) -> Self {
        Self {
            socket,
            directory,
            done: Vec::new(),
        }
    }

    /// A guest of the daemon. One at a time: the daemon takes the next when this one is gone.
    pub(crate) fn connect(&mut self, options: &Options) -> Result<Guest, Error> {
        let guest = Guest::connect(&self.socket, options)?;
        self.succeeded("connect");
        Ok(guest)
    }

    /// An operation succeeded.
    pub(crate) fn succeeded(&mut self, operation: impl Into<String>) {
        self.done.push(Step {
            operation: operation.into(),
            errno: None,
        });
    }

    /// The host refused an operation.
    pub(crate) fn refused(&mut self, operation: impl Into<String>, errno: i32) {
        let name = why::errno_name(errno).map_or_else(|| errno.to_string(), str::to_owned);
        self.done.push(Step {
            operation: operation.into(),
            errno: Some(name),
        });
    }
}
