//! One request: its readable part, its writable part, and the right to complete it once.

use guestmem::{CursorError, Memory, Pieces, Reader, Vectors, Writer};

use crate::Violation;
use crate::layout::{DESCRIPTOR_SIZE, Descriptor, Format, INDIRECT, MAX_CHAIN_BYTES, NEXT, WRITE};

/// A chain that the driver has made available.
///
/// It ends as an [`Outcome`], which is all that `serve` takes back.
#[derive(Debug)]
#[must_use = "every chain goes back to the driver or is kept"]
pub struct Chain<'q> {
    /// The bytes for the device to read.
    pub reader: Reader<'q>,
    /// The space for the device to write.
    pub writer: Writer<'q>,
    pub(crate) buffers: &'q Buffers,
    pub(crate) ticket: Ticket,
}

/// What became of a chain.
#[derive(Debug)]
#[must_use = "a queue needs to know what became of a chain"]
pub struct Outcome(pub(crate) Ending);

#[derive(Debug)]
pub(crate) enum Ending {
    Done(u32),
    Kept,
    PutBack,
}

/// A chain to be completed later, by any thread, in any order: give it back with [`Queue::complete`](crate::Queue::complete).
///
/// It keeps its memory mapped. One that is dropped stays in flight until the queue is stopped.
#[derive(Debug)]
#[must_use = "a chain that is dropped never returns to the driver"]
pub struct Pending {
    readable: Pieces,
    writable: Pieces,
    consumed: usize,
    pub(crate) ticket: Ticket,
}

/// Says which chain of which queue a completion is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    /// The queue's number in this process; a stopped queue's chains must not complete in its successor.
    pub(crate) queue: u64,
    /// Counts the chains taken off the ring, kept up in any case since it is cheap; `IN_ORDER` goes by it.
    pub(crate) sequence: u64,
    pub(crate) claim: Claim,
}

/// A chain as the rings count it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim {
    /// What the driver knows it by: split the head's index, packed the buffer id.
    pub(crate) id: u16,
    /// How far it moves the ring's positions: split 1, packed its slots.
    pub(crate) span: u16,
    /// Its first entry in the record of chains in flight, if there is one.
    pub(crate) entry: u16,
}

impl Chain<'_> {
    /// The device is finished, having written the first `written` bytes of the writable part. More than there are is
    /// taken as all of them: the driver must never believe in bytes that nobody wrote (VIRTIO 1.1 2.6.8.2).
    pub fn done(self, written: u32) -> Outcome {
        Outcome(Ending::Done(written))
    }

    /// The device cannot serve it now: it stays the next chain of the ring, and `serve` returns.
    pub fn put_back(self) -> Outcome {
        Outcome(Ending::PutBack)
    }

    /// The device will complete it later.
    pub fn keep(self) -> (Pending, Outcome) {
        let Chain {
            reader,
            buffers,
            ticket,
            ..
        } = self;
        let (readable, writable) = (buffers.readable.clone(), buffers.writable.clone());
        (
            Pending {
                readable,
                writable,
                consumed: reader.consumed(),
                ticket,
            },
            Outcome(Ending::Kept),
        )
    }
}

impl Pending {
    /// What is left to read, behind the bytes that were read before the chain was kept (so that none is read twice),
    /// and all the space to write.
    pub fn open(&self) -> (Reader<'_>, Writer<'_>) {
        let mut reader = Reader::new(&self.readable);
        let skipped = reader.skip(self.consumed);
        debug_assert!(skipped.is_ok(), "{} bytes were read of the same pieces", self.consumed);
        (reader, Writer::new(&self.writable))
    }

    /// The next `length` bytes to read, for a transfer by the kernel; `None` if one call cannot have them.
    #[must_use]
    pub fn source(&self, length: usize) -> Option<Vectors> {
        Vectors::new(&self.readable, self.consumed, length)
    }

    /// The first `length` bytes of space to write, for a transfer by the kernel; `None` if one call cannot have them.
    #[must_use]
    pub fn target(&self, length: usize) -> Option<Vectors> {
        Vectors::new(&self.writable, 0, length)
    }

    /// Bytes of space in the whole writable part.
    pub fn space(&self) -> usize {
        self.writable.total()
    }

    /// Bytes of the whole readable part.
    pub(crate) fn load(&self) -> usize {
        self.readable.total()
    }
}

/// The checked buffers of one chain, in lists that are reused for the next.
#[derive(Debug)]
pub(crate) struct Buffers {
    pub(crate) readable: Pieces,
    pub(crate) writable: Pieces,
    /// The indirect table that is being walked.
    table: Pieces,
}

impl Buffers {
    pub(crate) fn new(memory: &Memory) -> Buffers {
        let none = Pieces::new(memory);
        Buffers {
            readable: none.clone(),
            writable: none.clone(),
            table: none,
        }
    }
}

/// What bounds a walk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Most descriptors of a chain, tables included.
    pub(crate) descriptors: u32,
    pub(crate) indirect: bool,
}

/// A walk along the descriptors of one chain. It takes each at its first word, and ends at the limit.
#[derive(Debug)]
pub(crate) struct Walk<'b> {
    buffers: &'b mut Buffers,
    limits: Limits,
    left: u32,
    /// A writable buffer was seen: only such may follow.
    writing: bool,
}

impl<'b> Walk<'b> {
    #[inline]
    pub(crate) fn new(buffers: &'b mut Buffers, limits: Limits) -> Walk<'b> {
        buffers.readable.clear();
        buffers.writable.clear();
        Walk {
            buffers,
            limits,
            left: limits.descriptors,
            writing: false,
        }
    }

    /// Adds the buffer of an ordinary descriptor. One that cannot be reached is for the device to refuse: it may lie in a window of
    /// another device, which a driver hands out as it does memory.
    #[inline]
    pub(crate) fn add(&mut self, descriptor: &Descriptor) -> Result<(), Violation> {
        let limit = self.limits.descriptors;
        self.left = self.left.checked_sub(1).ok_or(Violation::ChainTooLong { limit })?;
        let (address, length) = (descriptor.address, descriptor.length);
        if descriptor.flags & WRITE != 0 {
            self.writing = true;
            self.buffers.writable.push_buffer(address, length);
        } else if self.writing {
            return Err(Violation::ReadableBehindWritable);
        } else {
            self.buffers.readable.push_buffer(address, length);
        }
        Ok(())
    }

    /// Opens the table that `pointer` points to. Its `WRITE` flag means nothing (VIRTIO 1.1 2.6.5.3.2).
    pub(crate) fn open_table(&mut self, pointer: &Descriptor) -> Result<u32, Violation> {
        if !self.limits.indirect {
            return Err(Violation::IndirectNotNegotiated);
        }
        if pointer.flags & NEXT != 0 {
            return Err(Violation::IndirectMisplaced);
        }
        let length = pointer.length;
        if length == 0 || !length.is_multiple_of(DESCRIPTOR_SIZE as u32) {
            return Err(Violation::IndirectLength { length });
        }
        self.buffers.table.clear();
        self.buffers.table.push(pointer.address, u64::from(length))?;
        Ok(length / DESCRIPTOR_SIZE as u32)
    }

    /// Adds the buffers of a table of a split ring, which is a chain that starts at entry 0 (VIRTIO 1.1 2.6.5.3).
    pub(crate) fn follow_table<F: Format>(&mut self, pointer: &Descriptor) -> Result<(), Violation> {
        let entries = self.open_table(pointer)?;
        let mut copy = TableCopy::new(entries);
        let mut index = 0;
        loop {
            let entry = copy.entry::<F>(&self.buffers.table, index)?;
            if entry.flags & INDIRECT != 0 {
                return Err(Violation::IndirectMisplaced);
            }
            self.add(&entry)?;
            if entry.flags & NEXT == 0 {
                return Ok(());
            }
            if u32::from(entry.link) >= entries {
                return Err(Violation::NoSuchDescriptor {
                    index: entry.link,
                    entries,
                });
            }
            index = u32::from(entry.link);
        }
    }

    /// Adds the buffers of a table of a packed ring: all entries in turn, of which only `WRITE` counts (VIRTIO 1.1
    /// 2.7.7).
    pub(crate) fn sweep_table<F: Format>(&mut self, pointer: &Descriptor) -> Result<(), Violation> {
        let entries = self.open_table(pointer)?;
        let mut copy = TableCopy::new(entries);
        for index in 0..entries {
            let entry = copy.entry::<F>(&self.buffers.table, index)?;
            self.add(&entry)?;
        }
        Ok(())
    }

    /// The end of the chain: its length is known.
    #[inline]
    pub(crate) fn finish(self) -> Result<(), Violation> {
        let total = self.buffers.readable.total() as u64 + self.buffers.writable.total() as u64;
        if total > MAX_CHAIN_BYTES {
            Err(Violation::TooManyBytes)
        } else {
            Ok(())
        }
    }
}

/// Entries copied out of an indirect table at a time: a buffer for each page makes long tables, which drivers link in order.
const COPIED: u32 = 16;

/// A descriptor's two words.
type Entry = [[u8; 8]; DESCRIPTOR_SIZE / 8];

/// Some entries of an open table as they were at one moment.
struct TableCopy {
    /// The first of them.
    first: u32,
    /// How many there are.
    count: u32,
    /// How many the table has.
    entries: u32,
    bytes: [Entry; COPIED as usize],
}

impl TableCopy {
    fn new(entries: u32) -> TableCopy {
        TableCopy {
            first: 0,
            count: 0,
            entries,
            bytes: [Entry::default(); COPIED as usize],
        }
    }

    /// Entry `index` of `table`, copied out of guest memory unless it was just now.
    #[inline]
    fn entry<F: Format>(&mut self, table: &Pieces, index: u32) -> Result<Descriptor, Violation> {
        let at = index.wrapping_sub(self.first);
        let bytes = match self.bytes.get(at as usize) {
            Some(bytes) if at < self.count => bytes,
            _ => self.copy(table, index)?,
        };
        let [address, rest] = bytes;
        Ok(F::decode(u64::from_le_bytes(*address), u64::from_le_bytes(*rest)))
    }

    /// Copies `index` and what follows it. Gives `index`.
    fn copy(&mut self, table: &Pieces, index: u32) -> Result<&Entry, Violation> {
        self.count = 0;
        let none = Violation::NoSuchDescriptor {
            index: index as u16,
            entries: self.entries,
        };
        let count = self.entries.saturating_sub(index).min(COPIED);
        let into = self.bytes[..count as usize].as_flattened_mut().as_flattened_mut();
        let mut reader = Reader::new(table);
        let read = reader
            .skip(index as usize * DESCRIPTOR_SIZE)
            .and_then(|()| reader.read_exact(into));
        read.map_err(|error| match error {
            CursorError::Short { .. } => none,
            CursorError::Fault => Violation::IndirectUnreadable,
        })?;
        (self.first, self.count) = (index, count);
        self.bytes[..count as usize].first().ok_or(none)
    }
}
