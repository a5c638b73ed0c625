//! Operations on names and attributes: GETATTR and LOOKUP.

use std::sync::Arc;

use driver::Slot;

use super::common::Common;
use super::operation::{Next, Steps};
use crate::error::Error;
use crate::random::Random;
use crate::ring::message::{Message, Reply};
use crate::scratch::file_name;

/// GETATTR of a file that is known.
pub(super) struct Getattr {
    pub(super) common: Arc<Common>,
    pub(super) random: Random,
}

impl Steps for Getattr {
    fn first(&mut self, _: &mut Slot, message: &mut Message) -> Result<(), Error> {
        message.getattr(*self.random.of(&self.common.nodes.files));
        Ok(())
    }

    fn next(&mut self, reply: &Reply, _: &mut Slot, _: &mut Message) -> Result<Next, Error> {
        reply.expect_success("GETATTR")?;
        Ok(Next::Done(1))
    }
}

/// LOOKUP of a name that is there, or of one that is missing.
pub(super) struct Lookup {
    common: Arc<Common>,
    random: Random,
    names: Vec<String>,
    /// The errno that is expected.
    errno: i32,
}

impl Lookup {
    pub(super) fn new(common: Arc<Common>, random: Random, errno: i32) -> Self {
        let count = common.nodes.files.len() as u32;
        // There are as many files as names from 0 on; the names behind them are missing.
        let first = if errno == 0 { 0 } else { count };
        Self {
            names: (first..first + count).map(file_name).collect(),
            common,
            random,
            errno,
        }
    }
}

impl Steps for Lookup {
    fn first(&mut self, _: &mut Slot, message: &mut Message) -> Result<(), Error> {
        let name = self.random.of(&self.names);
        message.lookup(self.common.nodes.files_directory, name.as_bytes());
        Ok(())
    }

    fn next(&mut self, reply: &Reply, _: &mut Slot, _: &mut Message) -> Result<Next, Error> {
        // A missing name may also be told by node 0, which the guest may remember (FUSE 7.4).
        let found = reply.error == 0 && reply.node() != 0;
        if found == (self.errno == 0) {
            return Ok(Next::Done(1));
        }
        reply.expect_success("LOOKUP")?;
        Err(Error::Contents { what: "LOOKUP" })
    }
}
