//! Block device (VIRTIO 1.1 5.2): each queue moves sectors between a host image and guest memory.
//!
//! Requests of one queue are in flight together and complete in any order. Reads and writes go through `io_uring`; what it
//! cannot do, and everything where the kernel does not offer it, runs on helper threads.

mod cache;
mod config;
mod disk;
mod lane;
mod request;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use backend::{ConfigRefused, Device, Lanes, Setup, ThreadStart};
pub use image::ImageOptions;
use image::{Image, Ring};
use tracing::info;

pub use self::config::feature;
use self::disk::Disk;
use self::lane::{Flight, QueueLane, Rings};
use self::request::Rules;
pub use self::request::{
    DISCARD_SECTORS_MAX, DISCARD_SEGMENTS_MAX, WRITE_ZEROES_SECTORS_MAX, WRITE_ZEROES_SEGMENTS_MAX,
};
use crate::deferral::{DeferredChains, Helpers};

/// Maximum number of queues. Linux uses at most one per processor.
pub const QUEUES_MAX: u16 = 64;
/// Maximum length of the serial number in bytes (VIRTIO 1.1 5.2.6).
pub const SERIAL_MAX: usize = 20;

/// Transfers of a queue in flight at a time. Further ones wait in the ring.
const TRANSFERS_MAX: u32 = 256;
/// Threads for flushes, discards and zeros; for everything without `io_uring`.
const HELPERS_MAX: usize = 16;

/// Options of a block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlkOptions {
    /// The image, and how it is opened.
    pub image: ImageOptions,
    /// Number of queues, 1 to [`QUEUES_MAX`].
    pub queues: u16,
    /// Serial number that the guest sees: at most [`SERIAL_MAX`] bytes without NUL.
    pub serial: String,
    /// Whether the guest can give up space of the image. Otherwise DISCARD is not offered.
    pub discard: bool,
    /// How requests are carried out.
    pub engine: Engine,
}

/// How reads and writes are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// By `io_uring` if the kernel offers it, by threads otherwise.
    Auto,
    /// By threads.
    Threads,
}

/// Errors in making a block device.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image cannot be used.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// Too few or too many queues.
    #[error("{0} queues: there must be 1 to {QUEUES_MAX}")]
    Queues(u16),
    /// The serial number does not fit.
    #[error("the serial number {0:?} must have at most {SERIAL_MAX} bytes, none of them NUL")]
    Serial(String),
}

/// The block device.
pub struct BlkDevice {
    disk: Arc<Disk>,
    queues: u16,
    helpers: Arc<Helpers>,
    /// Made with the device, so that no thread that serves needs the right to make one.
    rings: Rings,
}

impl BlkDevice {
    /// Opens the image, and makes the rings of `io_uring`.
    pub fn new(options: BlkOptions) -> Result<Self, Error> {
        let BlkOptions {
            image,
            queues,
            serial,
            discard,
            engine,
        } = options;
        if !(1..=QUEUES_MAX).contains(&queues) {
            return Err(Error::Queues(queues));
        }
        if serial.len() > SERIAL_MAX || serial.contains('\0') {
            return Err(Error::Serial(serial));
        }
        let disk = Disk::new(Image::open(&image)?, &serial, discard);
        let rings = if engine == Engine::Auto {
            rings(queues)
        } else {
            Vec::new()
        };
        Ok(Self {
            disk: Arc::new(disk),
            queues,
            helpers: Arc::new(Helpers::new(HELPERS_MAX, ThreadStart::default())),
            rings: Arc::new(Mutex::new(rings)),
        })
    }

    /// Has each helper thread call `start` first. No queue runs yet.
    #[must_use]
    pub fn at_helper_start(self, start: ThreadStart) -> Self {
        Self {
            helpers: Arc::new(Helpers::new(HELPERS_MAX, start)),
            ..self
        }
    }
}

/// One for each queue, or none.
fn rings(queues: u16) -> Vec<Ring<Box<Flight>>> {
    let made: io::Result<Vec<_>> = (0..queues).map(|_| Ring::new(TRANSFERS_MAX)).collect();
    made.unwrap_or_else(|error| {
        info!("io_uring is not available here ({error}); threads read and write the image");
        Vec::new()
    })
}

impl Device for BlkDevice {
    fn features(&self) -> u64 {
        config::features(&self.disk)
    }

    fn queue_count(&self) -> u16 {
        self.queues
    }

    /// A request may be done twice: it has the same effect as long as its driver has no answer.
    fn tracks_inflight(&self) -> bool {
        true
    }

    fn config(&self) -> Vec<u8> {
        config::space(&self.disk, self.queues)
    }

    /// The only field that a driver may write is `writeback` (VIRTIO 1.1 5.2.5.1). A front end may write the whole space.
    fn set_config(&self, offset: u32, bytes: &[u8]) -> Result<(), ConfigRefused> {
        let position = config::WRITEBACK.checked_sub(offset);
        let Some(&writeback) = position.and_then(|position| bytes.get(position as usize)) else {
            return Err(ConfigRefused(
                "only the writeback field of a block device can be written",
            ));
        };
        if writeback > 1 {
            return Err(ConfigRefused("the writeback field of a block device is 0 or 1"));
        }
        self.disk.set_writeback(writeback == 1);
        Ok(())
    }

    fn start(&self, setup: &Setup, lanes: &mut Lanes) -> io::Result<()> {
        self.disk.cache.negotiated(setup.features);
        let rules = Rules {
            sectors: self.disk.image.size() / image::SECTOR,
            is_read_only: self.disk.image.is_read_only(),
            features: setup.features,
        };
        for index in 0..self.queues {
            let ring = self.rings.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let files = lane::files(ring.as_ref())?;
            lanes.add(&[index], |waker| {
                let deferred = DeferredChains::new(Arc::clone(&self.helpers), index, usize::MAX, waker.clone());
                QueueLane::new(index, Arc::clone(&self.disk), rules, deferred, ring, files, &self.rings)
            })?;
        }
        Ok(())
    }

    fn reset(&self) {
        self.disk.cache.reset();
    }
}
