//! The driver half: posts buffers, reaps them, and never trusts the device.

mod packed;
mod split;

use std::collections::VecDeque;

use guestmem::{Memory, OutOfMemory};

use crate::layout::{DESCRIPTOR_SIZE, Descriptor, Format, INDIRECT, MAX_CHAIN_BYTES, NEXT, WRITE};
use crate::{ConfigError, QueueConfig};

pub(crate) use packed::Slots;
pub(crate) use split::Rings;

/// A buffer in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// Guest address.
    pub address: u64,
    /// Length in bytes.
    pub length: u32,
}

/// Names a chain from [`DriverQueue::post`] until it is reaped; less than the queue size, and then free for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u16);

/// Why a chain was not posted. Nothing of it is in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// The ring has too few free descriptors.
    #[error("{needed} descriptors needed, {free} are free")]
    Full {
        /// Descriptors of the chain.
        needed: usize,
        /// Descriptors left.
        free: u16,
    },
    /// A chain has at least one buffer, at most as many as the queue has entries, and 2^32 bytes in all.
    #[error("a chain of {buffers} buffers and {bytes} bytes is not allowed")]
    Shape {
        /// Buffers of the chain.
        buffers: usize,
        /// Their length in all.
        bytes: u64,
    },
    /// Indirect tables were not negotiated.
    #[error("indirect tables were not negotiated")]
    NoIndirect,
    /// The table's place is not guest memory.
    #[error("cannot write the indirect table")]
    Table(#[from] OutOfMemory),
}

/// What the device did that no device may do. The queue is of no further use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It used more chains than were posted.
    #[error("the device used more chains than were posted")]
    TooManyUsed,
    /// It used a chain that was not posted.
    #[error("the device used chain {id}, which is not posted")]
    NotPosted {
        /// The id given.
        id: u32,
    },
    /// It claims to have written more than there is space.
    #[error("the device claims {written} bytes in the {space} of chain {id}")]
    TooMuchWritten {
        /// The chain.
        id: u32,
        /// Bytes it claims.
        written: u32,
        /// Bytes there are.
        space: u64,
    },
}

/// An indirect table in guest memory that stays as it is, for chains that are posted again and again in one shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    address: u64,
    length: u32,
    space: u64,
}

/// What the two formats disagree about.
trait Half {
    type Layout: Format;
    /// Entry `index` of an indirect table of `count`.
    fn table_entry(descriptor: Descriptor, index: u16, count: u16) -> Descriptor;
    /// Descriptors that can be posted.
    fn free(&self) -> u16;
    /// Makes a chain available, of at least one and at most `free` descriptors.
    fn place(&mut self, chain: &[Descriptor]) -> u16;
    /// Id and length of the next used element, which stays the next one until its chains are released.
    fn used(&self) -> Result<Option<(u32, u32)>, Fault>;
    /// Takes back a chain that was placed.
    fn release(&mut self, id: u16);
    fn kick_wanted(&mut self) -> bool;
    fn arm_interrupt(&mut self) -> bool;
    fn disarm_interrupt(&mut self);
}

/// The driver half of a queue.
#[derive(Debug)]
pub struct DriverQueue(Either);

#[derive(Debug)]
enum Either {
    Split(Core<split::Split>),
    Packed(Core<packed::Packed>),
}

#[derive(Debug)]
struct Core<H> {
    half: H,
    memory: Memory,
    size: u16,
    indirect: bool,
    /// Space of each posted chain, by id.
    posted: Vec<Option<u64>>,
    /// With `IN_ORDER`, the posted chains, the oldest first.
    order: Option<VecDeque<u16>>,
    /// Chains of a batch that were used with one element and not reaped yet.
    batch: VecDeque<(Token, u32)>,
    /// The descriptors of the chain being posted; kept for its space.
    chain: Vec<Descriptor>,
}

macro_rules! core {
    ($queue:expr, $core:ident => $what:expr) => {
        match $queue {
            Either::Split($core) => $what,
            Either::Packed($core) => $what,
        }
    };
}

impl QueueConfig {
    /// Clears the ring in `memory` and starts the driver half on it, both positions at `base`. Comes before the device
    /// half starts.
    pub fn drive(&self, memory: &Memory) -> Result<DriverQueue, ConfigError> {
        let areas = self.areas(memory)?;
        for area in &areas {
            for offset in (0..area.len()).step_by(2) {
                area.store_u16(offset, 0, std::sync::atomic::Ordering::Relaxed);
            }
        }
        Ok(DriverQueue(if self.packed {
            let (next_available, next_used) = self.packed_base()?;
            let ring = Slots::new(areas, self.size, self.event_idx, next_available, next_used);
            Either::Packed(Core::new(packed::Packed::new(ring, self.size), self, memory))
        } else {
            let [table, available, used] = areas;
            let rings = Rings::new(available, used, self.size, self.event_idx, self.split_base()?);
            Either::Split(Core::new(split::Split::new(rings, table, self.size), self, memory))
        }))
    }
}

impl DriverQueue {
    /// Makes a chain available: buffers to read, then buffers to write.
    pub fn post(&mut self, readable: &[Buffer], writable: &[Buffer]) -> Result<Token, PostError> {
        core!(&mut self.0, core => core.post(readable, writable))
    }

    /// The same with one descriptor in the ring, the others being in a table that is written to guest address `table`
    /// and must stay there until the chain is reaped.
    pub fn post_indirect(&mut self, table: u64, readable: &[Buffer], writable: &[Buffer]) -> Result<Token, PostError> {
        let table = self.table(table, readable, writable)?;
        self.post_table(&table)
    }

    /// Writes an indirect table to guest address `address`, where it must stay as long as it is in use.
    pub fn table(&mut self, address: u64, readable: &[Buffer], writable: &[Buffer]) -> Result<Table, PostError> {
        core!(&mut self.0, core => core.table(address, readable, writable))
    }

    /// Makes a chain available whose table is there already, on this queue's memory and in its format.
    pub fn post_table(&mut self, table: &Table) -> Result<Token, PostError> {
        core!(&mut self.0, core => core.post_table(table))
    }

    /// The next chain that the device has used, and the bytes it has written. With `IN_ORDER` a chain that was skipped
    /// in a batch counts as fully written.
    pub fn reap(&mut self) -> Result<Option<(Token, u32)>, Fault> {
        core!(&mut self.0, core => core.reap())
    }

    /// Whether the device wants a kick for what was posted since the last time this was asked.
    pub fn kick_wanted(&mut self) -> bool {
        core!(&mut self.0, core => core.half.kick_wanted())
    }

    /// Asks for an interrupt at the next used chain. False if one has slipped in, for which none may come.
    pub fn arm_interrupt(&mut self) -> bool {
        core!(&mut self.0, core => core.half.arm_interrupt())
    }

    /// Tells the device that no interrupt is needed.
    pub fn disarm_interrupt(&mut self) {
        core!(&mut self.0, core => core.half.disarm_interrupt());
    }

    /// Descriptors that can be posted now.
    pub fn free(&self) -> u16 {
        core!(&self.0, core => core.half.free())
    }
}

impl<H: Half> Core<H> {
    fn new(half: H, config: &QueueConfig, memory: &Memory) -> Core<H> {
        Core {
            half,
            memory: memory.clone(),
            size: config.size,
            indirect: config.indirect,
            posted: vec![None; config.size as usize],
            order: config.in_order.then(VecDeque::new),
            batch: VecDeque::new(),
            chain: Vec::new(),
        }
    }

    fn post(&mut self, readable: &[Buffer], writable: &[Buffer]) -> Result<Token, PostError> {
        let space = self.describe(readable, writable)?;
        self.place(space)
    }

    fn table(&mut self, table: u64, readable: &[Buffer], writable: &[Buffer]) -> Result<Table, PostError> {
        if !self.indirect {
            return Err(PostError::NoIndirect);
        }
        let space = self.describe(readable, writable)?;
        let length = (self.chain.len() * DESCRIPTOR_SIZE) as u32;
        for (index, descriptor) in self.chain.iter().enumerate() {
            let (address, rest) =
                H::Layout::encode(&H::table_entry(*descriptor, index as u16, self.chain.len() as u16));
            let bytes = [address, rest].map(u64::to_le_bytes);
            self.memory.write(
                table.wrapping_add((index * DESCRIPTOR_SIZE) as u64),
                bytes.as_flattened(),
            )?;
        }
        Ok(Table {
            address: table,
            length,
            space,
        })
    }

    fn post_table(&mut self, table: &Table) -> Result<Token, PostError> {
        self.chain.clear();
        self.chain.push(Descriptor {
            address: table.address,
            length: table.length,
            flags: INDIRECT,
            link: 0,
        });
        self.place(table.space)
    }

    /// Fills `chain` with one descriptor a buffer, not linked. Gives the space to write.
    fn describe(&mut self, readable: &[Buffer], writable: &[Buffer]) -> Result<u64, PostError> {
        let sum = |buffers: &[Buffer]| buffers.iter().map(|buffer| u64::from(buffer.length)).sum::<u64>();
        let (buffers, space) = (readable.len() + writable.len(), sum(writable));
        let bytes = sum(readable) + space;
        if buffers == 0 || buffers > self.size as usize || bytes > MAX_CHAIN_BYTES {
            return Err(PostError::Shape { buffers, bytes });
        }
        let with = |flags| {
            move |&Buffer { address, length }: &Buffer| Descriptor {
                address,
                length,
                flags,
                link: 0,
            }
        };
        self.chain.clear();
        self.chain.extend(readable.iter().map(with(0)));
        self.chain.extend(writable.iter().map(with(WRITE)));
        Ok(space)
    }

    fn place(&mut self, space: u64) -> Result<Token, PostError> {
        let (needed, free) = (self.chain.len(), self.half.free());
        if needed > free as usize {
            return Err(PostError::Full { needed, free });
        }
        let id = self.half.place(&self.chain);
        self.posted[id as usize] = Some(space);
        if let Some(order) = &mut self.order {
            order.push_back(id);
        }
        Ok(Token(id))
    }

    fn reap(&mut self) -> Result<Option<(Token, u32)>, Fault> {
        if let Some(reaped) = self.batch.pop_front() {
            return Ok(Some(reaped));
        }
        let Some((id, written)) = self.half.used()? else {
            return Ok(None);
        };
        let posted = usize::try_from(id).ok().and_then(|id| *self.posted.get(id)?);
        let space = posted.ok_or(Fault::NotPosted { id })?;
        if u64::from(written) > space {
            return Err(Fault::TooMuchWritten { id, written, space });
        }
        let last = id as u16;
        if let Some(order) = &mut self.order {
            // One element may stand for all chains up to its own; those before are full (VIRTIO 1.1 2.6.9, 2.7.8).
            while let Some(skipped) = order.pop_front().filter(|&skipped| skipped != last) {
                let space = self.posted[skipped as usize].take().unwrap_or(0);
                self.half.release(skipped);
                self.batch
                    .push_back((Token(skipped), u32::try_from(space).unwrap_or(u32::MAX)));
            }
        }
        self.posted[last as usize] = None;
        self.half.release(last);
        self.batch.push_back((Token(last), written));
        Ok(self.batch.pop_front())
    }
}

/// The flags of descriptor `index` of a chain of `count`.
fn flags(descriptor: &Descriptor, index: usize, count: usize) -> u16 {
    descriptor.flags | if index + 1 < count { NEXT } else { 0 }
}
