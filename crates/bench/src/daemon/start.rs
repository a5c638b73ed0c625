//! Everything needed to start a daemon.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::daemon::contender::Contender;
use crate::daemon::placement::Processors;
use crate::daemon::recipe::Recipe;
use crate::error::Error;
use crate::ring::session::Connection;
use crate::scratch::Scratch;

/// What is needed to start a daemon.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start<'a> {
    pub(crate) recipes: &'a [Recipe],
    pub(crate) scratch: &'a Scratch,
    pub(crate) connection: Connection,
    pub(crate) processors: &'a Processors,
    pub(crate) stop: &'a AtomicBool,
}

impl Start<'_> {
    pub(crate) fn daemon(&self, recipe: &Recipe) -> Result<(Contender, UnixStream), Error> {
        if self.stop.load(Relaxed) {
            return Err(Error::Interrupted);
        }
        let Self {
            scratch, connection, ..
        } = self;
        let socket = scratch.socket();
        let mut contender = Contender::start(recipe, &scratch.share(), &socket, connection.queues, self.processors)?;
        let stream = contender.connect(&socket)?;
        Ok((contender, stream))
    }
}
