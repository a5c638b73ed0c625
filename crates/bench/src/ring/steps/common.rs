//! Code shared by the operations of one lane.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::fs::{Advice, fadvise};

use crate::error::Error;
use crate::ring::session::Nodes;

/// Bytes of the smaller pieces that are read and written.
pub(super) const PAGE: u32 = 4096;

/// What the operations of one lane have in common.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) nodes: Nodes,
    /// Bytes of the data file and of the sink.
    pub(crate) data: u64,
    /// The cold file on the host, to have it dropped from the page cache.
    cold: File,
    /// Counts what takes place after place of a file.
    pub(super) cursor: AtomicU64,
}

impl Common {
    pub(crate) fn new(nodes: Nodes, data: u64, cold: File) -> Arc<Self> {
        Arc::new(Self {
            nodes,
            data,
            cold,
            cursor: AtomicU64::new(0),
        })
    }

    /// Has the page cache let go of the cold file, to be read from its end again.
    pub(crate) fn cool(&self) -> Result<(), Error> {
        self.cursor.store(0, Relaxed);
        self.drop_cold_pages()
    }

    /// All of them: large folios go as a whole or not at all. Later reads make small ones.
    pub(super) fn drop_cold_pages(&self) -> Result<(), Error> {
        fadvise(&self.cold, 0, None, Advice::DontNeed).map_err(Error::system("drop pages"))
    }
}
