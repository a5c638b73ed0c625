//! The network device on a socket, its driver half, and the network behind it.

#[path = "../common/served.rs"]
mod served;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ::driver::{Guest, Options};
use devices::net::features::{CTRL_VQ, MAC, STATUS};
use devices::net::{Counts, NetDevice, NetOptions, Port, StreamPort};

use self::served::{SOCKET, Served};

/// Bytes of a chain with all that belongs to it: the largest frame fits.
pub(crate) const PLACE: u64 = 80 << 10;
pub(crate) const HEADER: usize = 12;
/// Longer than anything takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) const RECEIVE: usize = 0;
pub(crate) const SEND: usize = 1;

pub(crate) const PLAIN: NetOptions = NetOptions {
    mac: [2, 0, 0, 0, 0, 1],
    mtu: None,
    standby: false,
};

/// The device on a socket, until dropped.
pub(crate) struct Daemon {
    served: Served,
    device: Arc<NetDevice>,
}

impl Daemon {
    /// With one queue pair, and the other end of its stream.
    pub(crate) fn with_network(options: NetOptions) -> (Self, Network) {
        let (port, network) = network();
        (Self::new(vec![port], options), network)
    }

    pub(crate) fn new(ports: Vec<Box<dyn Port>>, options: NetOptions) -> Self {
        let device = Arc::new(NetDevice::new(ports, options).unwrap());
        Self {
            served: Served::start(tempfile::tempdir().unwrap(), Arc::clone(&device)),
            device,
        }
    }

    pub(crate) fn connect(&self, options: &Options) -> Client {
        Client(Guest::connect(&self.served.path(SOCKET), options).unwrap())
    }

    /// Waits until a counter has this value.
    pub(crate) fn await_count(&self, counter: impl Fn(&Counts) -> &AtomicU64, value: u64) {
        await_that(|| counter(self.device.counts()).load(Relaxed) == value);
    }

    pub(crate) fn count(&self, counter: impl Fn(&Counts) -> &AtomicU64) -> u64 {
        counter(self.device.counts()).load(Relaxed)
    }
}

pub(crate) fn await_that(mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < LIMIT, "it never happens");
        std::thread::yield_now();
    }
}

/// The other end of a stream: what passt would be.
pub(crate) struct Network(pub(crate) UnixStream);

pub(crate) fn network() -> (Box<dyn Port>, Network) {
    let (near, far) = UnixStream::pair().unwrap();
    far.set_read_timeout(Some(LIMIT)).unwrap();
    far.set_write_timeout(Some(LIMIT)).unwrap();
    (Box::new(StreamPort::new(near)), Network(far))
}

impl Network {
    pub(crate) fn send(&mut self, frame: &[u8]) {
        let mut message = (frame.len() as u32).to_be_bytes().to_vec();
        message.extend(frame);
        self.0.write_all(&message).unwrap();
    }

    pub(crate) fn receive(&mut self) -> Vec<u8> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut frame).unwrap();
        frame
    }
}

/// Packed or split, with one pair, and the control queue if it is among the features.
pub(crate) fn options(packed: bool, features: u64) -> Options {
    let defaults = Options::default();
    Options {
        queues: if features & CTRL_VQ == 0 { 2 } else { 3 },
        packed,
        features: defaults.features | MAC | STATUS | features,
        place_size: PLACE,
        ..defaults
    }
}

/// A frame of so many bytes that differ from those of another seed.
pub(crate) fn frame(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at as u8).wrapping_mul(31) ^ seed).collect()
}

/// A guest of the device.
pub(crate) struct Client(pub(crate) Guest);

impl Client {
    /// Sends a frame behind a header without offloads, and waits until it is used.
    pub(crate) fn send(&mut self, frame: &[u8]) {
        self.send_with([0; HEADER], frame);
    }

    pub(crate) fn send_with(&mut self, header: [u8; HEADER], frame: &[u8]) {
        let chain = [&header[..], frame].concat();
        let (written, _) = self.0.queues[SEND].call(&chain, 0).unwrap();
        assert_eq!(written, 0);
    }

    /// Gives the device a chain for a frame.
    pub(crate) fn offer(&mut self, space: u32) {
        self.0.queues[RECEIVE].submit(&[], space).unwrap();
    }

    /// The next chain of a received frame, as far as it is written.
    pub(crate) fn chain(&mut self) -> Vec<u8> {
        self.0.queues[RECEIVE].wait().unwrap().2
    }

    /// The next received frame with its header: all its chains.
    pub(crate) fn receive(&mut self) -> (Vec<u8>, Vec<Vec<u8>>) {
        let mut first = self.chain();
        let body = first.split_off(HEADER);
        let count = u16::from_le_bytes([first[10], first[11]]);
        let mut chains = vec![body];
        // All chains of a frame are used at once (VIRTIO 1.1 5.1.6.4.2).
        chains.extend((1..count).map(|_| self.0.queues[RECEIVE].poll().unwrap().expect("used together").2));
        (first, chains)
    }

    /// Sends a command. Whether it was done.
    pub(crate) fn command(&mut self, queue: usize, class: u8, command: u8, data: &[u8]) -> bool {
        let chain = [&[class, command], data].concat();
        let (written, answer) = self.0.queues[queue].call(&chain, 1).unwrap();
        assert_eq!(written, 1);
        answer == [0]
    }
}
