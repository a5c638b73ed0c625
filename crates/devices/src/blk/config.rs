//! Feature bits and configuration space (VIRTIO 1.1 5.2.3, 5.2.4).

use image::SECTOR;

use super::disk::Disk;
use super::request::{DISCARD_SECTORS_MAX, DISCARD_SEGMENTS_MAX, WRITE_ZEROES_SECTORS_MAX, WRITE_ZEROES_SEGMENTS_MAX};

/// Feature bits of the device.
pub mod feature {
    /// `seg_max` holds the maximum number of segments of a request.
    pub const SEG_MAX: u64 = 1 << 2;
    /// The device is read-only.
    pub const RO: u64 = 1 << 5;
    /// `blk_size` holds the block size.
    pub const BLK_SIZE: u64 = 1 << 6;
    /// The device has a flush command.
    pub const FLUSH: u64 = 1 << 9;
    /// `topology` holds the optimal sizes.
    pub const TOPOLOGY: u64 = 1 << 10;
    /// `writeback` can be written.
    pub const CONFIG_WCE: u64 = 1 << 11;
    /// There are several queues.
    pub const MQ: u64 = 1 << 12;
    /// The device has a discard command.
    pub const DISCARD: u64 = 1 << 13;
    /// The device has a command to write zeros.
    pub const WRITE_ZEROES: u64 = 1 << 14;
}

/// Offset of the field `writeback`.
pub(super) const WRITEBACK: u32 = 32;
/// Length of the space, up to the padding behind `write_zeroes_may_unmap`.
const LENGTH: usize = 60;

/// Segments of a request. A chain without an indirect table must fit in the ring, of 128 entries at QEMU, with header and status.
const SEGMENTS_MAX: u32 = 126;

/// What the device offers.
pub(super) fn features(disk: &Disk) -> u64 {
    let always =
        feature::SEG_MAX | feature::BLK_SIZE | feature::FLUSH | feature::TOPOLOGY | feature::CONFIG_WCE | feature::MQ;
    if disk.image.is_read_only() {
        return always | feature::RO;
    }
    let discard = if disk.discard { feature::DISCARD } else { 0 };
    always | feature::WRITE_ZEROES | discard
}

/// `struct virtio_blk_config`.
pub(super) fn space(disk: &Disk, queues: u16) -> Vec<u8> {
    let (block, physical) = (disk.image.block(), disk.image.physical());
    let exponent = (physical / block).checked_ilog2().unwrap_or(0);
    let mut space = [0; LENGTH];
    let mut put = |offset: usize, bytes: &[u8]| space[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, &(disk.image.size() / SECTOR).to_le_bytes());
    put(12, &SEGMENTS_MAX.to_le_bytes());
    put(20, &block.to_le_bytes());
    put(24, &[exponent as u8, 0]);
    // In logical blocks; no optimal size is known.
    put(26, &(1_u16 << exponent).to_le_bytes());
    put(WRITEBACK as usize, &[u8::from(disk.cache.is_writeback())]);
    put(34, &queues.to_le_bytes());
    if disk.image.is_read_only() {
        return space.to_vec();
    }
    if disk.discard {
        put(36, &DISCARD_SECTORS_MAX.to_le_bytes());
        put(40, &DISCARD_SEGMENTS_MAX.to_le_bytes());
        put(44, &(physical / SECTOR as u32).to_le_bytes());
    }
    put(48, &WRITE_ZEROES_SECTORS_MAX.to_le_bytes());
    put(52, &WRITE_ZEROES_SEGMENTS_MAX.to_le_bytes());
    put(56, &[u8::from(disk.discard)]);
    space.to_vec()
}
