//! A queue before it runs: the negotiated parameters, checked once.

use std::sync::atomic::{AtomicU64, Ordering};

use guestmem::{Area, Memory, OutOfMemory};

use crate::chain::Limits;
use crate::inflight::{InflightError, InflightRecord, PackedRecord, SplitRecord};
use crate::layout::packed::{EVENT_SIZE, Position};
use crate::layout::split::{available, used};
use crate::layout::{DESCRIPTOR_SIZE, MAX_SIZE};
use crate::packed::{Packed, Slots};
use crate::queue::{Format, Queue};
use crate::ring::Core;
use crate::split::{Rings, Split};

/// What a queue is to be: features, size, and where its parts lie in guest memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueConfig {
    /// `VIRTIO_F_RING_PACKED` was negotiated.
    pub packed: bool,
    /// Entries, 1 to 32768; for a split ring a power of two.
    pub size: u16,
    /// Guest address of the descriptor table, or of the packed ring; aligned to 16.
    pub descriptor: u64,
    /// Guest address of the available ring, aligned to 2, or of the driver event structure, aligned to 4.
    pub driver: u64,
    /// Guest address of the used ring, or of the device event structure; aligned to 4.
    pub device: u64,
    /// Where to go on, as in `SET_VRING_BASE`: split the available index; packed the available position in the lower
    /// half and the used position in the upper, each with its wrap counter in bit 15. 0 is also accepted for a packed
    /// ring that is fresh.
    pub base: u32,
    /// `VIRTIO_F_INDIRECT_DESC` was negotiated.
    pub indirect: bool,
    /// `VIRTIO_F_EVENT_IDX` was negotiated.
    pub event_idx: bool,
    /// `VIRTIO_F_IN_ORDER` was negotiated.
    pub in_order: bool,
    /// Most descriptors of a chain, with those in tables. As many as the ring has entries are always accepted.
    pub chain_limit: u32,
}

/// Why a queue cannot start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No such size in this format.
    #[error("queue size {size} is invalid for a {} ring", if *packed { "packed" } else { "split" })]
    Size {
        /// The size given.
        size: u16,
        /// Which format.
        packed: bool,
    },
    /// A part lies askew.
    #[error("{part} at guest address {address:#x} is not aligned to {alignment}")]
    Unaligned {
        /// Which part.
        part: &'static str,
        /// Where.
        address: u64,
        /// The alignment it needs.
        alignment: u64,
    },
    /// A part is not in guest memory, or not in one piece.
    #[error("cannot access the {part}")]
    OutOfMemory {
        /// Which part.
        part: &'static str,
        /// Where it should be.
        source: OutOfMemory,
    },
    /// A base that is no position of this ring.
    #[error("base {base:#x} is not a position in a ring of {size}")]
    Base {
        /// The number given.
        base: u32,
        /// Queue size.
        size: u16,
    },
    /// The record of chains in flight is of no use.
    #[error("cannot use the record of chains in flight: {0}")]
    Inflight(#[from] InflightError),
}

impl QueueConfig {
    /// Descriptors of a chain that any ring accepts: Linux and QEMU put up to this many into an indirect table, also
    /// where VIRTIO 1.1 2.6.5.3.1 allows only as many as the queue has entries.
    pub const CHAIN_LIMIT: u32 = 1024;

    /// The number for `base` that a fresh ring starts with.
    pub const fn fresh_base(packed: bool) -> u32 {
        if packed { 0x8000_8000 } else { 0 }
    }

    /// Checks everything that can be checked before the first chain, and starts the queue in `memory`.
    pub fn start(&self, memory: &Memory) -> Result<Queue, ConfigError> {
        self.start_on(memory, None)
    }

    /// The same with in-flight tracking: the chains that a predecessor took and did not complete are handed out again first.
    ///
    /// Where the queue goes on follows from the record, unless that is new: front ends do not know how far a process came that
    /// was killed.
    pub fn start_tracked(&self, memory: &Memory, record: InflightRecord) -> Result<Queue, ConfigError> {
        record.check(self.packed, self.size)?;
        self.start_on(memory, Some(record))
    }

    fn start_on(&self, memory: &Memory, record: Option<InflightRecord>) -> Result<Queue, ConfigError> {
        static STARTED: AtomicU64 = AtomicU64::new(0);
        let size = self.size;
        let areas = self.areas(memory)?;
        let limits = Limits {
            descriptors: self.chain_limit.max(u32::from(size)),
            indirect: self.indirect,
        };
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let format = if self.packed {
            let (mut next_available, mut next_used) = self.packed_base()?;
            if self.base == 0 && is_fresh(&areas, size) {
                (next_available, next_used) = (Position::FIRST, Position::FIRST);
            }
            let mut ring = Slots::new(areas, size, self.event_idx, next_available, next_used);
            let mut kept = None;
            if let Some(InflightRecord { area, entries }) = record {
                let was_used = |at| ring.was_used(at);
                let taken = PackedRecord::recover(area, entries, size, next_used, was_used)?;
                if !taken.is_new() {
                    ring = ring.with_left(taken.used(), taken.slots_left());
                }
                kept = Some(taken);
            }
            let ring = Packed {
                ring,
                limits,
                record: kept,
            };
            Format::Packed(Core::new(ring, memory, number, self.in_order))
        } else {
            let [table, available, used] = areas;
            let mut rings = Rings::new(available, used, size, self.event_idx, self.split_base()?);
            let mut kept = None;
            if let Some(InflightRecord { area, entries }) = record {
                let taken = SplitRecord::recover(area, entries, size, rings.next_used())?;
                if !taken.is_new() {
                    rings = rings.with_left(taken.left());
                }
                kept = Some(taken);
            }
            let split = Split {
                rings,
                table,
                limits,
                record: kept,
            };
            Format::Split(Core::new(split, memory, number, self.in_order))
        };
        Ok(Queue::new(self.clone(), format))
    }

    /// The three parts of the ring, as the format has them.
    pub(crate) fn areas(&self, memory: &Memory) -> Result<[Area; 3], ConfigError> {
        let size = self.size;
        if size == 0 || size > MAX_SIZE || !(self.packed || size.is_power_of_two()) {
            return Err(ConfigError::Size {
                size,
                packed: self.packed,
            });
        }
        let descriptors = size as usize * DESCRIPTOR_SIZE;
        // The event index of a split ring exists only with the feature: without, a ring may end at the end of memory.
        let event = if self.event_idx { 2 } else { 0 };
        let parts = if self.packed {
            [
                ("descriptor ring", self.descriptor, descriptors, 16),
                ("driver event structure", self.driver, EVENT_SIZE, 4),
                ("device event structure", self.device, EVENT_SIZE, 4),
            ]
        } else {
            [
                ("descriptor table", self.descriptor, descriptors, 16),
                ("available ring", self.driver, available(size) + event, 2),
                ("used ring", self.device, used(size) + event, 4),
            ]
        };
        let [first, second, third] = parts.map(|(part, address, length, alignment)| {
            if address % alignment != 0 {
                return Err(ConfigError::Unaligned {
                    part,
                    address,
                    alignment,
                });
            }
            memory
                .area(address, length)
                .map_err(|source| ConfigError::OutOfMemory { part, source })
        });
        Ok([first?, second?, third?])
    }

    pub(crate) fn split_base(&self) -> Result<u16, ConfigError> {
        u16::try_from(self.base).map_err(|_| ConfigError::Base {
            base: self.base,
            size: self.size,
        })
    }

    /// Available and used position.
    pub(crate) fn packed_base(&self) -> Result<(Position, Position), ConfigError> {
        let (base, size) = (self.base, self.size);
        let (available, used) = (
            Position::from_bits(base as u16),
            Position::from_bits((base >> 16) as u16),
        );
        if available.slot >= size || used.slot >= size {
            return Err(ConfigError::Base { base, size });
        }
        Ok((available, used))
    }
}

/// Whether this packed ring has not been used yet, although its base is 0: slot 0 with both wrap counters 0.
///
/// Both wrap counters start at 1 (VIRTIO 1.1 2.7.1), so the base of a fresh ring is 0x8000_8000. QEMU sends that, User-Mode Linux
/// sends 0 for both ring formats. Base 0 is also where a ring resumes after an odd number of laps. Then the last slot is not zero: its
/// driver has written the AVAIL flag there (wrap counter 1), or the USED flag if it has filled the next lap already. A fresh ring
/// is zeroed by its driver. Only its first slots may hold buffers that were posted before the start.
fn is_fresh([ring, _, _]: &[Area; 3], size: u16) -> bool {
    let last = (usize::from(size) - 1) * DESCRIPTOR_SIZE;
    [last, last + 8]
        .iter()
        .all(|&word| ring.load_u64(word, Ordering::Relaxed) == 0)
}
