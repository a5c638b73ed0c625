//! In-flight tracking (vhost-user, "Inflight I/O tracking"): a record in shared memory that outlives the device's process.
//!
//! Every chain is marked before the device sees it, and unmarked once its used element is published. A successor that starts on
//! the record hands out the marked chains again, the oldest first, before any new one. Each store leaves a state from which it
//! finds its place: the process may be killed between any two of them. Hence each has release order, which keeps them in turn.
//!
//! The front end returns the record, and may have changed it. It is read once, at the start, and checked; later it is only
//! written. What the fetch and the completion need of it is kept privately.

mod packed;
mod split;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use packed::{LeftBehind, PackedRecord};
pub(crate) use split::SplitRecord;

use guestmem::Area;

use crate::words::Words;
use std::sync::atomic::Ordering::{Relaxed, Release};

/// The version of both layouts. 0 means that nothing was written yet.
const VERSION: u16 = 1;
/// Fields that both layouts have; a field for features lies in front of them.
const VERSION_AT: usize = 8;
const ENTRIES_AT: usize = 10;
/// The first field of an entry: whether the chain with this head is in flight. One byte, handled with the padding behind it.
const IN_FLIGHT_AT: usize = 0;

/// The shared record of the chains in flight of one queue, in the layout of the vhost-user specification.
#[derive(Debug)]
pub struct InflightRecord {
    pub(crate) area: Area,
    pub(crate) entries: u16,
}

/// Why a record is of no use. It comes back from the front end, which may have changed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InflightError {
    /// It is smaller than its entries, or has fewer entries than the queue.
    #[error("{bytes} bytes with {entries} entries are too few for a queue of {size}")]
    TooSmall {
        /// Bytes of the record.
        bytes: usize,
        /// Its entries.
        entries: u16,
        /// Queue size.
        size: u16,
    },
    /// A version that is not known here.
    #[error("version {0} is unknown")]
    Version(u16),
    /// Its number of entries is not the one that the front end announced.
    #[error("it has {found} entries instead of {expected}")]
    Entries {
        /// The number found.
        found: u16,
        /// The number announced.
        expected: u16,
    },
    /// A position or a link that leads nowhere, or twice to the same entry.
    #[error("its {0} is inconsistent")]
    Inconsistent(&'static str),
    /// Its file was shortened.
    #[error("its memory is lost")]
    Lost,
}

impl InflightRecord {
    /// Bytes of the record of a queue of `entries`.
    pub const fn bytes(packed: bool, entries: u16) -> usize {
        if packed {
            packed::HEADER + packed::ENTRY * entries as usize
        } else {
            split::HEADER + split::ENTRY * entries as usize
        }
    }

    /// A record of `entries` at the start of `area`, aligned to 8. All zeros, it is a new one.
    pub fn new(area: Area, entries: u16) -> InflightRecord {
        InflightRecord { area, entries }
    }

    pub(crate) fn check(&self, packed: bool, size: u16) -> Result<(), InflightError> {
        let (bytes, entries) = (self.area.len(), self.entries);
        if entries < size || bytes < Self::bytes(packed, entries) {
            return Err(InflightError::TooSmall { bytes, entries, size });
        }
        Ok(())
    }
}

/// Whether a record was written before, with this number of entries.
fn is_written<W: Words>(record: &W, expected: u16) -> Result<bool, InflightError> {
    match record.load_u16(VERSION_AT, Relaxed) {
        0 => return Ok(false),
        VERSION => {}
        version => return Err(InflightError::Version(version)),
    }
    let found = record.load_u16(ENTRIES_AT, Relaxed);
    if found != expected {
        return Err(InflightError::Entries { found, expected });
    }
    Ok(true)
}

/// Ends the first setup of a record, whose other fields are written.
fn set_written<W: Words>(record: &W, entries: u16) {
    record.store_u16(ENTRIES_AT, entries, Release);
    record.store_u16(VERSION_AT, VERSION, Release);
}
