//! The control queue (VIRTIO 1.1 5.1.6.5): queue pairs, offloads and the MAC address.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use backend::{Lane, Queues};
use guestmem::Reader;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::features;
use super::shared::Shared;

const OK: u8 = 0;
const ERROR: u8 = 1;

/// Most bytes that a command has; longer ones are refused unread.
const DATA_MOST: usize = 8;

/// `struct virtio_net_ctrl` up to its data.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Command {
    class: u8,
    command: u8,
}

/// `VIRTIO_NET_CTRL_MAC`, and `VIRTIO_NET_CTRL_MAC_ADDR_SET` in it.
const MAC: (u8, u8) = (1, 1);
/// `VIRTIO_NET_CTRL_MQ`, and `VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET` in it.
const PAIRS: (u8, u8) = (4, 0);
/// `VIRTIO_NET_CTRL_GUEST_OFFLOADS`, and `VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET` in it.
const OFFLOADS: (u8, u8) = (5, 0);

pub(super) struct ControlLane {
    pub(super) shared: Arc<Shared>,
    pub(super) features: u64,
}

impl Lane for ControlLane {
    fn serve(&mut self, index: u16, queues: &mut Queues) {
        self.shared.controlled.store(true, Relaxed);
        queues.serve(index, |mut chain| {
            // A command without space for its answer is not done.
            if chain.writer.remaining() == 0 {
                return chain.done(0);
            }
            let done = self.obey(&mut chain.reader);
            let acknowledged = chain.writer.write_all(&[if done.is_some() { OK } else { ERROR }]);
            chain.done(u32::from(acknowledged.is_ok()))
        });
    }
}

impl ControlLane {
    /// Does a command, before it is used (VIRTIO 1.1 5.1.6.5). `None` if it is refused, and nothing has changed.
    fn obey(&self, reader: &mut Reader<'_>) -> Option<()> {
        let Command { class, command } = reader.read_object().ok()?;
        if reader.remaining() > DATA_MOST {
            return None;
        }
        let data = reader.read_to_vec(reader.remaining()).ok()?;
        let has = |feature| self.features & feature != 0;
        match (class, command) {
            MAC if has(features::CTRL_MAC_ADDR) => {
                let mac = <[u8; 6]>::try_from(data).ok()?;
                self.shared.set_mac(mac);
            }
            PAIRS if has(features::MQ) => {
                let count = u16::from_le_bytes(data.try_into().ok()?);
                if !(1..=self.shared.count_of_pairs()).contains(&count) {
                    return None;
                }
                self.shared.use_pairs(count);
            }
            OFFLOADS if has(features::CTRL_GUEST_OFFLOADS) => {
                let offloads = u64::from_le_bytes(data.try_into().ok()?);
                if offloads & !(self.features & features::GUEST_OFFLOADS) != 0 {
                    return None;
                }
                self.shared.set_offloads(offloads);
            }
            _ => return None,
        }
        Some(())
    }
}
