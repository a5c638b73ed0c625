//! The block device on a socket, and its driver half.

#[path = "../common/served.rs"]
mod served;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::driver::{Guest, Options, Ticket};
use devices::blk::{BlkDevice, BlkOptions, Engine, ImageOptions};
use tempfile::TempDir;
use virtqueue::features::{EVENT_IDX, INDIRECT_DESC};

use self::served::{SOCKET, Served};

/// Bytes of a sector.
pub(crate) const SECTOR: usize = 512;
/// Bytes of a request with all that belongs to it.
pub(crate) const PLACE: u64 = 1 << 20;

pub(crate) const IN: u32 = 0;
pub(crate) const OUT: u32 = 1;
pub(crate) const FLUSH: u32 = 4;
pub(crate) const GET_ID: u32 = 8;
pub(crate) const DISCARD: u32 = 11;
pub(crate) const WRITE_ZEROES: u32 = 13;

pub(crate) const OK: u8 = 0;
pub(crate) const IO_ERROR: u8 = 1;
pub(crate) const UNSUPPORTED: u8 = 2;

/// An image file in a directory of its own.
pub(crate) struct Disk(TempDir);

impl Disk {
    /// With these contents. On a disk rather than in memory, so that direct I/O works.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let directory = option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let disk = Self(tempfile::tempdir_in(directory).unwrap());
        std::fs::write(disk.path(), bytes).unwrap();
        disk
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("image")
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.path()).unwrap()
    }

    pub(crate) fn options(&self, engine: Engine) -> BlkOptions {
        BlkOptions {
            image: ImageOptions {
                path: self.path(),
                read_only: false,
                direct: false,
            },
            queues: 1,
            serial: "serial".into(),
            discard: true,
            engine,
        }
    }

    pub(crate) fn serve(&self, engine: Engine) -> Daemon {
        Daemon::new(self.options(engine))
    }
}

/// The device on a socket, until dropped.
pub(crate) struct Daemon(Served);

impl Daemon {
    pub(crate) fn new(options: BlkOptions) -> Self {
        let device = BlkDevice::new(options).unwrap();
        Self(Served::start(tempfile::tempdir().unwrap(), Arc::new(device)))
    }

    pub(crate) fn connect(&self, options: &Options) -> Client {
        Client::connect(&self.0.path(SOCKET), options)
    }
}

/// Packed or split, with one queue and all features of the device.
pub(crate) fn options(packed: bool) -> Options {
    Options {
        queues: 1,
        packed,
        features: INDIRECT_DESC | EVENT_IDX | 0x7fff,
        place_size: PLACE,
        // The longest chains of these tests fit.
        queue_size: 1024,
        ..Options::default()
    }
}

/// The header of a request (VIRTIO 1.1 5.2.6).
pub(crate) fn header(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &0_u32.to_le_bytes(), &sector.to_le_bytes()].concat()
}

/// A segment of a discard or of a request for zeros.
pub(crate) fn segment(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

/// A guest of the device.
pub(crate) struct Client(pub(crate) Guest);

impl Client {
    fn connect(socket: &Path, options: &Options) -> Self {
        Self(Guest::connect(socket, options).unwrap())
    }

    /// Sends a request with data to read, and space for data.
    pub(crate) fn submit(&mut self, kind: u32, sector: u64, data: &[u8], space: usize) -> Ticket {
        let request = [&header(kind, sector), data].concat();
        self.0.queues[0].submit(&request, space as u32 + 1).unwrap()
    }

    /// Sends a request and waits for its used length and its whole writable part.
    pub(crate) fn exchange(&mut self, request: &[u8], space: u32) -> (u32, Vec<u8>) {
        let queue = &mut self.0.queues[0];
        let place = queue.take_place().unwrap();
        let at = place + (request.len() as u64).next_multiple_of(16);
        self.0.memory().write(place, request).unwrap();
        self.0.memory().write(at, &vec![0xee; space as usize]).unwrap();
        let queue = &mut self.0.queues[0];
        let buffer = |address, length| virtqueue::Buffer { address, length };
        let readable = [buffer(place, request.len() as u32)];
        let writable = [buffer(at, space)];
        let readable = if request.is_empty() { &[][..] } else { &readable };
        let writable = if space == 0 { &[][..] } else { &writable };
        let ticket = queue.ring().post(readable, writable).unwrap();
        queue.kick().unwrap();
        let (answered, written, _) = queue.wait().unwrap();
        assert_eq!(answered, ticket);
        queue.return_place(place);
        let mut bytes = vec![0; space as usize];
        self.0.memory().read(at, &mut bytes).unwrap();
        (written, bytes)
    }

    /// The status of a request.
    pub(crate) fn status(&mut self, kind: u32, sector: u64, data: &[u8]) -> u8 {
        let request = [&header(kind, sector), data].concat();
        self.exchange(&request, 1).1[0]
    }

    pub(crate) fn read(&mut self, sector: u64, length: usize) -> Vec<u8> {
        let (written, mut bytes) = self.exchange(&header(IN, sector), length as u32 + 1);
        assert_eq!(bytes.pop(), Some(OK));
        assert_eq!(written as usize, length + 1);
        bytes
    }

    pub(crate) fn write(&mut self, sector: u64, data: &[u8]) {
        let request = [&header(OUT, sector), data].concat();
        assert_eq!(self.exchange(&request, 1), (1, vec![OK]));
    }

    pub(crate) fn set_writeback(&mut self, on: bool) {
        self.0.frontend().set_config(32, &[u8::from(on)]).unwrap();
    }
}
