//! Reads and writes in open files.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use driver::Slot;

use super::common::{Common, PAGE};
use super::operation::{Next, Steps};
use crate::error::Error;
use crate::random::Random;
use crate::ring::message::{Message, Reply};
use crate::ring::session::Open;
use crate::scratch::word_at;

/// What Linux reads ahead by default, in the guest and on the host.
const READ_AHEAD: u32 = 128 << 10;

/// A page at random places, or larger pieces one after another.
pub(super) struct Read {
    common: Arc<Common>,
    random: Random,
    size: u32,
    offset: u64,
}

impl Read {
    pub(super) fn new(common: Arc<Common>, random: Random, size: u32) -> Self {
        Self {
            common,
            random,
            size,
            offset: 0,
        }
    }
}

impl Steps for Read {
    fn first(&mut self, _: &mut Slot, message: &mut Message) -> Result<(), Error> {
        self.offset = place(&self.common, &mut self.random, self.size);
        let Open { node, handle } = self.common.nodes.data;
        message.read(node, handle, self.offset, self.size);
        Ok(())
    }

    fn next(&mut self, reply: &Reply, slot: &mut Slot, _: &mut Message) -> Result<Next, Error> {
        reply.expect_success("READ")?;
        let mut word = [0; 8];
        slot.read_data(&mut word)?;
        if reply.length != self.size || u64::from_le_bytes(word) != word_at(self.offset) {
            return Err(Error::Contents { what: "READ" });
        }
        Ok(Next::Done(counted(self.size)))
    }
}

/// As much as a guest reads ahead, at a place that is not in the page cache.
///
/// From the end of the file to its start, with gaps: so that the host reads nothing ahead. The page cache lets go of all of it once a
/// pass; to have it let go of each place by itself would take the driving thread as long as the daemon is to take for a GETATTR.
pub(super) struct ColdRead {
    pub(super) common: Arc<Common>,
}

impl Steps for ColdRead {
    fn first(&mut self, _: &mut Slot, message: &mut Message) -> Result<(), Error> {
        let apart = 2 * u64::from(READ_AHEAD);
        let places = self.common.data / apart;
        let place = self.common.cursor.fetch_add(1, Relaxed) % places;
        if place == 0 {
            self.common.drop_cold_pages()?;
        }
        let Open { node, handle } = self.common.nodes.cold;
        message.read(node, handle, (places - 1 - place) * apart, READ_AHEAD);
        Ok(())
    }

    fn next(&mut self, reply: &Reply, _: &mut Slot, _: &mut Message) -> Result<Next, Error> {
        reply.expect_success("READ")?;
        Ok(Next::Done(0))
    }
}

/// The same with WRITE.
pub(super) struct Write {
    common: Arc<Common>,
    random: Random,
    size: u32,
}

impl Write {
    pub(super) fn new(common: Arc<Common>, random: Random, size: u32) -> Self {
        Self { common, random, size }
    }
}

impl Steps for Write {
    fn first(&mut self, _: &mut Slot, message: &mut Message) -> Result<(), Error> {
        let offset = place(&self.common, &mut self.random, self.size);
        let Open { node, handle } = self.common.nodes.sink;
        message.write(node, handle, offset, self.size);
        Ok(())
    }

    fn next(&mut self, reply: &Reply, _: &mut Slot, _: &mut Message) -> Result<Next, Error> {
        reply.expect_success("WRITE")?;
        if reply.wrote() != self.size {
            return Err(Error::Contents { what: "WRITE" });
        }
        Ok(Next::Done(counted(self.size)))
    }
}

/// Where the next access goes.
fn place(common: &Common, random: &mut Random, size: u32) -> u64 {
    let pieces = common.data / u64::from(size);
    let piece = if size == PAGE {
        random.below(pieces)
    } else {
        common.cursor.fetch_add(1, Relaxed) % pieces
    };
    piece * u64::from(size)
}

/// Pages are counted by operations, larger pieces by bytes.
fn counted(size: u32) -> u64 {
    if size == PAGE { 1 } else { size.into() }
}
