//! Files mapped into the window: the guest's loads and stores there act on the host's file.

mod coherence;
mod mapping;
mod random;
mod refused;
mod session;

use std::path::Path;

use driver::fs::{field_u32, field_u64};
use driver::{AddressRange, Options, Window};

use crate::daemon::{Client, Daemon, Reply, options};
use crate::numbers::Numbers;

/// What Linux maps at once.
const PIECE: u64 = 2 << 20;
const PAGE: u64 = 4096;

/// INIT flags of DAX (FUSE 7.31 and 7.36), and the one without which the second word of flags does not count.
const MAP_ALIGNMENT: u64 = 1 << 26;
const INIT_EXT: u64 = 1 << 30;
const HAS_INODE_DAX: u64 = 1 << 33;

/// A daemon with a window of `pieces` times 2 MiB, and a guest that has begun a session.
fn start(pieces: u64, packed: bool) -> (Daemon, Client) {
    let daemon = Daemon::with_window(pieces * PIECE);
    let client = begin(&daemon, packed);
    (daemon, client)
}

fn begin(daemon: &Daemon, packed: bool) -> Client {
    begin_with(daemon, &options(packed, 1))
}

fn begin_with(daemon: &Daemon, options: &Options) -> Client {
    let mut client = daemon.connect(options);
    client.init_dax();
    client
}

/// What INIT told of DAX.
#[derive(Debug, PartialEq, Eq)]
struct Terms {
    /// FUSE_MAP_ALIGNMENT was granted, and this is the alignment in bytes.
    alignment: Option<u64>,
    inode_dax: bool,
}

impl Client {
    fn init_dax(&mut self) -> Terms {
        let flags = MAP_ALIGNMENT | INIT_EXT | HAS_INODE_DAX;
        let body = self.ask(|requests| requests.init(45, flags)).unwrap();
        let granted = u64::from(field_u32(&body, 12)) | u64::from(field_u32(&body, 32)) << 32;
        Terms {
            // The upper half of the word that begins with max_pages.
            alignment: (granted & MAP_ALIGNMENT != 0).then(|| 1 << (field_u32(&body, 28) >> 16)),
            inode_dax: granted & HAS_INODE_DAX != 0,
        }
    }

    /// SETUPMAPPING: what of the file, and where in the window.
    fn map(&mut self, node: u64, file_offset: u64, offset: u64, length: u64, write: bool) -> Reply {
        self.ask(|requests| requests.set_up_mapping(node, file_offset, offset, length, write))
    }

    fn unmap(&mut self, ranges: &[(u64, u64)]) -> Reply {
        self.ask(|requests| requests.remove_mappings(0, ranges))
    }

    fn window(&self) -> &Window {
        self.guest.window().unwrap()
    }

    fn memory(&self) -> &AddressRange {
        self.window().memory()
    }

    /// What the guest sees there.
    fn load(&self, offset: u64, length: u64) -> Vec<u8> {
        let mut bytes = vec![0; length as usize];
        self.memory().load(offset, &mut bytes).unwrap();
        bytes
    }

    fn open(&mut self, node: u64, flags: i32) -> u64 {
        let opened = self.ask(|requests| requests.open(node, flags as u32));
        field_u64(&opened.unwrap(), 0)
    }
}

/// Bytes of which no two pages are equal.
fn pattern(length: u64, seed: u64) -> Vec<u8> {
    let mut bytes = Numbers(seed).bytes(length.div_ceil(8));
    bytes.truncate(length as usize);
    bytes
}

/// How many descriptors of this process, daemon and guest, are of files below a directory.
fn descriptors(below: &Path) -> usize {
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        // Other threads open and close descriptors meanwhile.
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| target.starts_with(below) && target != below)
        .count()
}
