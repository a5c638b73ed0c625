//! Network device (VIRTIO 1.1 5.1): queue pairs, each with a [`Port`] to the host's end, and a control queue.
//!
//! Frames move by one system call between guest memory and a tap queue, wherever the length of the next frame is known to
//! fit. Nothing is queued here: a ring without buffers leaves frames in the port, and a port that takes no more leaves
//! chains in the ring. One frame a pair may wait in memory of our own.

mod control;
pub mod features;
mod header;
mod lane;
mod port;
mod receive;
mod shared;
mod stream;
mod tap;
mod watch;

use std::io;
use std::sync::Arc;

use backend::{ConfigChanges, Device, Lanes, Setup};

use self::control::ControlLane;
use self::lane::PairLane;
use self::shared::Shared;
use self::watch::Watch;

pub use self::header::{FRAME_MAX, Header};
pub use self::port::{Frame, Port, Received, Sent};
pub use self::shared::{Counts, Mac};
pub use self::stream::StreamPort;
pub use self::tap::{TapPort, open as open_tap};

/// Most queue pairs of a device. The specification has 0x8000 (VIRTIO 1.1 5.1.4.1), but vhost-user has 256 queues.
pub const PAIRS_MOST: u16 = 127;

/// Least MTU: what IPv4 needs (VIRTIO 1.1 5.1.4.1).
pub const MTU_LEAST: u16 = 68;

/// `VIRTIO_NET_S_LINK_UP`.
const LINK_UP: u16 = 1;

/// Options of a network device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetOptions {
    /// The guest's address, which is not a multicast address.
    pub mac: Mac,
    /// The MTU that the guest is given, at least [`MTU_LEAST`]; `None`: the guest chooses.
    pub mtu: Option<u16>,
    /// Offer `STANDBY`: the guest uses the device only while another one with the same MAC address is missing.
    pub standby: bool,
}

/// Errors in making a network device.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no port, or there are too many.
    #[error("a network device has 1 to {PAIRS_MOST} queue pairs, not {0}")]
    Pairs(usize),
    /// The address is one of a group.
    #[error("a machine cannot have the multicast MAC address {}: its first byte must be even", text(.0))]
    Multicast(Mac),
    /// The address is the one that stands for none.
    #[error("a machine cannot have the MAC address 00:00:00:00:00:00")]
    NoMac,
    /// The MTU is too small.
    #[error("an MTU of {0} is too small: IPv4 needs {MTU_LEAST}, and IPv6 needs 1280")]
    Mtu(u16),
}

/// A MAC address as people write it.
#[must_use]
pub fn text(mac: &Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The network device.
pub struct NetDevice {
    shared: Arc<Shared>,
    options: NetOptions,
    features: u64,
}

impl NetDevice {
    /// Makes a device with a queue pair for each of `ports`.
    pub fn new(ports: Vec<Box<dyn Port>>, options: NetOptions) -> Result<Self, Error> {
        let NetOptions { mac, mtu, standby } = options;
        if !(1..=usize::from(PAIRS_MOST)).contains(&ports.len()) {
            return Err(Error::Pairs(ports.len()));
        }
        if mac[0] & 1 != 0 {
            return Err(Error::Multicast(mac));
        }
        if mac == [0; 6] {
            return Err(Error::NoMac);
        }
        if let Some(mtu) = mtu.filter(|&mtu| mtu < MTU_LEAST) {
            return Err(Error::Mtu(mtu));
        }
        let carried = ports
            .iter()
            .fold(features::ALL_OFFLOADS, |all, port| all & port.features());
        let when = |condition, feature| if condition { feature } else { 0 };
        let features = features::MAC
            | features::MRG_RXBUF
            | features::STATUS
            | features::CTRL_VQ
            | features::CTRL_MAC_ADDR
            | carried
            | when(carried & features::GUEST_OFFLOADS != 0, features::CTRL_GUEST_OFFLOADS)
            | when(mtu.is_some(), features::MTU)
            | when(ports.len() > 1, features::MQ)
            | when(standby, features::STANDBY);
        Ok(Self {
            shared: Arc::new(Shared::new(ports, mac)),
            options,
            features,
        })
    }

    /// What has become of frames so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// The control queue comes behind all pairs, whether they are in use or not (VIRTIO 1.1 5.1.2).
    fn control_queue(&self) -> u16 {
        2 * self.shared.count_of_pairs()
    }
}

impl Device for NetDevice {
    fn features(&self) -> u64 {
        self.features
    }

    fn queue_count(&self) -> u16 {
        self.control_queue() + 1
    }

    /// `struct virtio_net_config` (VIRTIO 1.1 5.1.4).
    fn config(&self) -> Vec<u8> {
        let mut config = self.shared.mac().to_vec();
        let status = if self.shared.is_link_up() { LINK_UP } else { 0 };
        for field in [status, self.shared.count_of_pairs(), self.options.mtu.unwrap_or(0)] {
            config.extend(field.to_le_bytes());
        }
        config
    }

    fn start(&self, setup: &Setup, lanes: &mut Lanes) -> io::Result<()> {
        // A driver without the control queue has one pair (VIRTIO 1.1 5.1.2).
        let several = setup.features & features::MQ != 0;
        self.shared.begin(setup.features, setup.config.clone());
        let pairs = if several { self.shared.count_of_pairs() } else { 1 };
        for index in 0..pairs {
            let watch = Watch::new()?;
            lanes.add(&[2 * index, 2 * index + 1], |waker| {
                self.shared.add_waker(waker.clone());
                let woken_by = (watch, waker.clone());
                PairLane::new(
                    index,
                    Arc::clone(&self.shared),
                    woken_by,
                    setup.features,
                    self.options.mtu,
                )
            })?;
        }
        if setup.features & features::CTRL_VQ != 0 {
            // Without MQ, the queue's number is still 2 (VIRTIO 1.1 5.1.2).
            let control = if several { self.control_queue() } else { 2 };
            lanes.add(&[control], |_| ControlLane {
                shared: Arc::clone(&self.shared),
                features: setup.features,
            })?;
        }
        Ok(())
    }

    fn reset(&self) {
        self.shared.begin(0, ConfigChanges::default());
    }
}
