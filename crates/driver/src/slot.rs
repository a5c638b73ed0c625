//! Messages of fixed shape: laid out once, posted repeatedly without allocating.

use guestmem::{Pieces, Reader, Writer};
use virtqueue::{Buffer, Table};

use crate::{Error, Queue, Ticket};

const PAGE: u32 = 4096;
/// Where the parts of a slot lie. Requests are short: a header, arguments and names.
const REPLY: u64 = PAGE as u64;
const DATA: u64 = 2 * PAGE as u64;

/// Bytes of the four parts of a message. Linux lays it out so: header and arguments apart, data in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Header and arguments, at least a header and at most a page.
    pub request: u32,
    /// Data after them (WRITE).
    pub data_out: u32,
    /// Reply header and arguments, at most a page; 0: there is no reply.
    pub reply: u32,
    /// Space for data after them (READ, READDIR).
    pub data_in: u32,
}

/// Room for one message on its way, and what it has room for.
#[derive(Debug)]
pub struct Slot {
    place: u64,
    request: Pieces,
    reply: Pieces,
    data: Pieces,
    data_room: u32,
    /// Where the next table goes, and where the room ends.
    next_table: u64,
    end: u64,
    shapes: Vec<(Shape, Table)>,
}

impl Slot {
    /// Bytes of a place ([`crate::Options::place_size`]) for messages of at most `data` bytes of data in `shapes` different shapes.
    pub const fn place_size(data: u32, shapes: u64) -> u64 {
        DATA + data.next_multiple_of(PAGE) as u64 + shapes * table_size(data)
    }

    /// What the device wrote of the reply's header and arguments: as many bytes as `into` has, old ones behind the reply's end.
    pub fn read_reply(&self, into: &mut [u8]) -> Result<(), Error> {
        read(&self.reply, into)
    }

    /// The first bytes of the data.
    pub fn read_data(&self, into: &mut [u8]) -> Result<(), Error> {
        read(&self.data, into)
    }

    /// Fills the data that a WRITE sends.
    pub fn write_data(&mut self, data: &[u8]) -> Result<(), Error> {
        write(&self.data, data)
    }
}

impl Queue {
    /// Takes one of the queue's places for good, for messages with at most `data` bytes of data.
    pub fn slot(&mut self, data: u32) -> Result<Slot, Error> {
        let data_room = data.next_multiple_of(PAGE);
        let tables = DATA + u64::from(data_room);
        let size = Slot::place_size(data, 1);
        if size > self.places.size {
            return Err(Error::NoPlace { size });
        }
        let place = self.places.free.pop().ok_or(Error::NoPlace { size })?;
        let part = |offset: u64, length: u32| {
            let mut pieces = Pieces::new(&self.memory);
            pieces.push(place + offset, length.into()).map(|()| pieces)
        };
        Ok(Slot {
            place,
            request: part(0, PAGE)?,
            reply: part(REPLY, PAGE)?,
            data: part(DATA, data_room)?,
            data_room,
            next_table: place + tables,
            end: place + self.places.size,
            shapes: Vec::new(),
        })
    }

    /// Sends `request` from the slot, whose last message must have been used; kicks nobody.
    pub fn post_slot(&mut self, slot: &mut Slot, shape: Shape, request: &[u8]) -> Result<Ticket, Error> {
        write(&slot.request, request)?;
        let table = match slot.shapes.iter().find(|(known, _)| *known == shape) {
            Some((_, table)) => *table,
            None => self.lay_out(slot, shape)?,
        };
        Ok(self.ring.post_table(&table)?)
    }

    /// Kicks the device if it wants that for what was posted since the last time.
    pub fn kick_if_wanted(&mut self) -> Result<(), Error> {
        if self.ring.kick_wanted() { self.kick() } else { Ok(()) }
    }

    /// The next message that the device has used, and the bytes it wrote, if there is one.
    pub fn used(&mut self) -> Result<Option<(Ticket, u32)>, Error> {
        Ok(self.ring.reap()?)
    }

    /// The same, asleep until there is one, as a guest's driver is.
    pub fn wait_used(&mut self) -> Result<(Ticket, u32), Error> {
        loop {
            if let Some(used) = self.used()? {
                return Ok(used);
            }
            if self.ring.arm_interrupt() {
                self.wait_for_interrupt()?;
            }
        }
    }

    fn lay_out(&mut self, slot: &mut Slot, shape: Shape) -> Result<Table, Error> {
        let address = slot.next_table;
        let data = shape.data_out.max(shape.data_in);
        let next = address + table_size(data);
        if data > slot.data_room || shape.request > PAGE || shape.reply > PAGE || next > slot.end {
            return Err(Error::NoPlace {
                size: next - slot.place,
            });
        }
        let mut readable = apart(slot.place, shape.request, crate::fs::IN_HEADER as u32);
        readable.extend(pages(slot.place + DATA, shape.data_out));
        let mut writable = apart(slot.place + REPLY, shape.reply, crate::fs::OUT_HEADER as u32);
        writable.extend(pages(slot.place + DATA, shape.data_in));
        let table = self.ring.table(address, &readable, &writable)?;
        slot.next_table = next;
        slot.shapes.push((shape, table));
        Ok(table)
    }
}

/// Bytes of the table of a message with this much data: two descriptors a side, one a page.
const fn table_size(data: u32) -> u64 {
    16 * (4 + data.div_ceil(PAGE) as u64)
}

/// A header of `header` bytes and what follows it.
fn apart(address: u64, length: u32, header: u32) -> Vec<Buffer> {
    let header = header.min(length);
    let rest = Buffer {
        address: address + u64::from(header),
        length: length - header,
    };
    let header = Buffer {
        address,
        length: header,
    };
    [header, rest].into_iter().filter(|part| part.length > 0).collect()
}

fn pages(address: u64, length: u32) -> impl Iterator<Item = Buffer> {
    (0..length).step_by(PAGE as usize).map(move |offset| Buffer {
        address: address + u64::from(offset),
        length: PAGE.min(length - offset),
    })
}

fn read(pieces: &Pieces, into: &mut [u8]) -> Result<(), Error> {
    let size = into.len() as u64;
    Reader::new(pieces)
        .read_exact(into)
        .map_err(|_| Error::NoPlace { size })
}

fn write(pieces: &Pieces, from: &[u8]) -> Result<(), Error> {
    let size = from.len() as u64;
    Writer::new(pieces).write_all(from).map_err(|_| Error::NoPlace { size })
}
