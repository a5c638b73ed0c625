//! Entropy device (VIRTIO 1.1 5.4): one queue whose writable buffers are filled with bytes of a host file.
//!
//! While the source has no bytes, or the rate is used up, requests wait in the ring. No thread blocks meanwhile, so
//! that a waiting request delays neither a pause nor a reset nor the end of a session.

mod bucket;
mod source;
mod wait;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use backend::{Device, Files, Lane, Lanes, Queues, Setup};
use guestmem::Writer;

use self::bucket::Bucket;
use self::source::Source;
use self::wait::{Wait, Waits};

/// Default entropy source: the host kernel's generator, which never blocks and never ends.
pub const DEFAULT_SOURCE: &str = "/dev/urandom";

/// Maximum number of bytes for one request, however large its buffers are. A driver must cope with less than it
/// requested (VIRTIO 1.1 5.4.6: one or more bytes), and a request for gigabytes must not keep the lane from commands
/// of the front end.
pub const REQUEST_MAX: usize = 64 << 10;

/// Index of requestq (VIRTIO 1.1 5.4.2).
const REQUESTS: u16 = 0;

/// Source and limit of an entropy device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RngOptions {
    /// File that entropy is read from, opened once by [`RngDevice::new`]. All guests of the device read on where the last one
    /// stopped, so no byte is handed out twice.
    ///
    /// - Regular file or block device: read once from front to back. At its end requests wait, in case the file grows. A new
    ///   `RngDevice` starts at the front again.
    /// - FIFO: requests wait for a writer and for its bytes. The end of a writer is no end of the FIFO.
    /// - Character device such as `/dev/hwrng`: opened non-blocking. Without support for poll(2) it is read again every 10 ms while
    ///   a request waits.
    ///
    /// A source that ends or fails is reported once, at level error, and read again once a second while a request waits. The
    /// guest sees requests that take longer, never an error or made-up bytes.
    pub source: PathBuf,
    /// Maximum bytes per second for the guest, at least 1; `None` for no limit. Up to one second's worth accumulates
    /// while the guest requests nothing. A request waits until the requested bytes are available, or one second's
    /// worth if it requests more.
    pub rate: Option<u64>,
}

impl Default for RngOptions {
    /// [`DEFAULT_SOURCE`] without a limit.
    fn default() -> Self {
        Self {
            source: DEFAULT_SOURCE.into(),
            rate: None,
        }
    }
}

/// Errors in making an entropy device.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source cannot be opened.
    #[error("cannot open the entropy source {}", path.display())]
    Open {
        /// The source.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The source is a FIFO that cannot be opened for reading and writing.
    #[error(
        "cannot open the entropy source {} for reading and writing, as a FIFO needs it to outlast its writers; \
         grant both permissions",
        path.display()
    )]
    OpenFifo {
        /// The source.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The source is a directory.
    #[error("the entropy source {} is a directory", path.display())]
    Directory {
        /// The source.
        path: PathBuf,
    },
    /// The rate is 0.
    #[error("a rate of 0 bytes per second lets no request finish; choose at least 1, or no limit")]
    Rate,
}

/// The entropy device. It has no feature bits and no configuration space of its own (VIRTIO 1.1 5.4.3, 5.4.4).
#[derive(Debug)]
pub struct RngDevice {
    supply: Arc<Mutex<Supply>>,
}

impl RngDevice {
    /// Opens the source. Never blocks, not even on a FIFO without a writer.
    pub fn new(options: RngOptions) -> Result<Self, Error> {
        let RngOptions { source, rate } = options;
        if rate == Some(0) {
            return Err(Error::Rate);
        }
        let supply = Supply {
            source: Source::open(source)?,
            bucket: rate.map(|rate| Bucket::full(rate, Instant::now())),
        };
        Ok(Self {
            supply: Arc::new(Mutex::new(supply)),
        })
    }
}

impl Device for RngDevice {
    fn queue_count(&self) -> u16 {
        1
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn start(&self, _setup: &Setup, lanes: &mut Lanes) -> io::Result<()> {
        let waits = Waits::new()?;
        let supply = Arc::clone(&self.supply);
        lanes.add(&[REQUESTS], |_| RequestLane {
            supply,
            waits,
            space: vec![0; REQUEST_MAX],
        })
    }

    /// Keeps the supply: a guest that resets the device repeatedly gets neither old bytes nor a new burst.
    fn reset(&self) {}
}

/// State that outlives guests and lanes. No two lanes use it at a time.
#[derive(Debug)]
struct Supply {
    source: Source,
    bucket: Option<Bucket>,
}

impl Supply {
    /// Reads at least one byte into `space`, or returns what to wait for. `space` is not empty.
    fn take(&mut self, space: &mut [u8]) -> Result<usize, Wait> {
        let allowed = match &mut self.bucket {
            Some(bucket) => bucket.allowance(space.len(), Instant::now()).map_err(Wait::Time)?,
            None => space.len(),
        };
        let read = self.source.read(&mut space[..allowed])?;
        if let Some(bucket) = &mut self.bucket {
            bucket.spend(read);
        }
        Ok(read)
    }
}

struct RequestLane {
    supply: Arc<Mutex<Supply>>,
    waits: Waits,
    /// Bytes on their way from the source into guest memory.
    space: Vec<u8>,
}

impl Lane for RequestLane {
    fn serve(&mut self, index: u16, queues: &mut Queues) {
        let Self { supply, waits, space } = self;
        let mut supply = supply.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wait = None;
        queues.serve(index, |mut chain| match fill(&mut chain.writer, &mut supply, space) {
            Ok(written) => chain.done(written),
            Err(reason) => {
                wait = Some(reason);
                chain.put_back()
            }
        });
        // Without a request that waits, nothing is waited for: a source that stays readable would wake the lane again and again.
        waits.set(wait, supply.source.file());
    }

    fn files(&self) -> Option<&Files> {
        Some(self.waits.files())
    }

    fn ready(&mut self, file: u64, queues: &mut Queues) {
        self.waits.acknowledge(file);
        self.serve(REQUESTS, queues);
    }
}

/// Fills the writable part of a chain as far as the supply lasts, and returns the used length; the readable part has
/// no meaning (VIRTIO 1.1 5.4.6.1). On `Err`, nothing was written, and the chain must wait.
fn fill(writer: &mut Writer<'_>, supply: &mut Supply, space: &mut [u8]) -> Result<u32, Wait> {
    let wanted = writer.remaining().min(space.len());
    if wanted == 0 {
        return Ok(0);
    }
    let read = supply.take(&mut space[..wanted])?;
    // Bytes for a buffer that cannot be reached are dropped: the guest may have seen some of them, and the next must not get those.
    Ok(writer.write_all(&space[..read]).map_or(0, |()| read as u32))
}
