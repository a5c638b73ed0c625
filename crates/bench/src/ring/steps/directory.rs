//! Listing of a directory with the attributes of its entries.

use std::sync::Arc;

use driver::Slot;
use driver::fs::{field_u32, field_u64};

use super::common::Common;
use super::files::Phase;
use super::operation::{Next, Steps};
use crate::error::Error;
use crate::ring::message::{Message, Reply};

/// What Linux 6.16 reads of a directory at a time for the C library.
const DIRECTORY_BYTES: u32 = 32 << 10;
/// `fuse_entry_out` in front of each `fuse_dirent` of READDIRPLUS, and the parts of the latter.
const ENTRY: usize = 128;
const DIRENT: usize = 24;

/// A directory from its start to its end.
pub(super) struct Readdirplus {
    common: Arc<Common>,
    handle: u64,
    offset: u64,
    entries: u64,
    phase: Phase,
    bytes: Vec<u8>,
}

impl Readdirplus {
    pub(super) fn new(common: Arc<Common>) -> Self {
        Self {
            common,
            handle: 0,
            offset: 0,
            entries: 0,
            phase: Phase::Opening,
            bytes: vec![0; DIRECTORY_BYTES as usize],
        }
    }

    fn read(&mut self, message: &mut Message) {
        self.phase = Phase::Transferring;
        message.readdirplus(
            self.common.nodes.entries_directory,
            self.handle,
            self.offset,
            DIRECTORY_BYTES,
        );
    }

    /// Counts the entries and finds where the next message goes on, as the kernel does.
    fn walk(&mut self, length: usize) -> Result<(), Error> {
        let wrong = Error::Contents { what: "READDIRPLUS" };
        let mut rest = self.bytes.get(..length).ok_or(wrong)?;
        while rest.len() >= ENTRY + DIRENT {
            self.offset = field_u64(rest, ENTRY + 8);
            let name = field_u32(rest, ENTRY + 16) as usize;
            self.entries += 1;
            rest = rest
                .get((ENTRY + DIRENT + name).next_multiple_of(8)..)
                .unwrap_or_default();
        }
        Ok(())
    }
}

impl Steps for Readdirplus {
    fn first(&mut self, _: &mut Slot, message: &mut Message) -> Result<(), Error> {
        (self.handle, self.offset, self.entries) = (0, 0, 0);
        if self.common.nodes.manners.no_opendir {
            self.read(message);
        } else {
            self.phase = Phase::Opening;
            message.opendir(self.common.nodes.entries_directory);
        }
        Ok(())
    }

    fn next(&mut self, reply: &Reply, slot: &mut Slot, message: &mut Message) -> Result<Next, Error> {
        reply.expect_success("OPENDIR, READDIRPLUS or RELEASEDIR")?;
        match self.phase {
            Phase::Opening => {
                self.handle = reply.handle();
                self.read(message);
                Ok(Next::Send)
            }
            Phase::Transferring if reply.length > 0 => {
                let length = (reply.length as usize).min(self.bytes.len());
                slot.read_data(&mut self.bytes[..length])?;
                self.walk(length)?;
                self.read(message);
                Ok(Next::Send)
            }
            Phase::Transferring if !self.common.nodes.manners.no_opendir => {
                self.phase = Phase::Releasing;
                message.releasedir(self.common.nodes.entries_directory, self.handle);
                Ok(Next::Send)
            }
            _ => Ok(Next::Done(self.entries)),
        }
    }
}
