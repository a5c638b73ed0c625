//! Requests as drivers send them (VIRTIO 1.1 5.2.6): parsed and checked before anything is done.

use guestmem::{CursorError, Reader};
use image::SECTOR;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::feature;

/// Maximum number of sectors of a discard segment: 2 GiB.
pub const DISCARD_SECTORS_MAX: u32 = 1 << 22;
/// Maximum number of segments of a discard.
pub const DISCARD_SEGMENTS_MAX: u32 = 32;
/// Maximum number of sectors of a request for zeros: 128 MiB, since a file system may have them written one by one.
pub const WRITE_ZEROES_SECTORS_MAX: u32 = 1 << 18;
/// Maximum number of segments of a request for zeros.
pub const WRITE_ZEROES_SEGMENTS_MAX: u32 = 1;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

/// The flag of a segment that permits giving up its space.
const UNMAP: u32 = 1;

/// `struct virtio_blk_req`, up to its data.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes)]
#[repr(C)]
struct Header {
    kind: U32,
    reserved: U32,
    sector: U64,
}

/// `struct virtio_blk_discard_write_zeroes`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes)]
#[repr(C)]
struct WireSegment {
    sector: U64,
    sectors: U32,
    flags: U32,
}

const SEGMENT_SIZE: usize = size_of::<WireSegment>();

/// A request that can be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Read as many bytes at this offset.
    Read { offset: u64, length: usize },
    /// Write as many bytes at this offset.
    Write { offset: u64, length: usize },
    /// Make all finished writes durable.
    Flush,
    /// Return the serial number.
    Identify,
    /// Give up the contents of these ranges.
    Discard(Vec<Segment>),
    /// Make these ranges read as zeros.
    WriteZeroes(Vec<Segment>),
}

/// A range in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) offset: u64,
    pub(super) length: u64,
    /// Its space may be given up.
    pub(super) unmap: bool,
}

/// The last byte of each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// A request that cannot be read is one that went wrong.
impl From<CursorError> for Status {
    fn from(_: CursorError) -> Self {
        Self::IoError
    }
}

/// What requests are checked against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Size of the disk.
    pub(super) sectors: u64,
    pub(super) is_read_only: bool,
    /// Feature bits that the driver acknowledged.
    pub(super) features: u64,
}

impl Rules {
    /// Reads a request up to its data. `space` is the number of bytes that it has for data.
    pub(super) fn parse(&self, reader: &mut Reader<'_>, space: usize) -> Result<Request, Status> {
        let header: Header = reader.read_object()?;
        let kind = header.kind.get();
        if self.is_read_only && matches!(kind, OUT | DISCARD | WRITE_ZEROES) {
            return Err(Status::IoError);
        }
        let sector = header.sector.get();
        match kind {
            IN => self
                .range(sector, space)
                .map(|offset| Request::Read { offset, length: space }),
            OUT => {
                let length = reader.remaining();
                self.range(sector, length)
                    .map(|offset| Request::Write { offset, length })
            }
            FLUSH => Ok(Request::Flush),
            GET_ID => Ok(Request::Identify),
            DISCARD if self.features & feature::DISCARD != 0 => {
                let segments = self.segments(reader, DISCARD_SEGMENTS_MAX, DISCARD_SECTORS_MAX)?;
                if segments.iter().any(|segment| segment.unmap) {
                    return Err(Status::Unsupported);
                }
                Ok(Request::Discard(segments))
            }
            WRITE_ZEROES if self.features & feature::WRITE_ZEROES != 0 => self
                .segments(reader, WRITE_ZEROES_SEGMENTS_MAX, WRITE_ZEROES_SECTORS_MAX)
                .map(Request::WriteZeroes),
            _ => Err(Status::Unsupported),
        }
    }

    /// The offset in bytes of a range of whole sectors that the disk has.
    fn range(&self, sector: u64, length: usize) -> Result<u64, Status> {
        let sectors = length as u64 / SECTOR;
        let has = (length as u64).is_multiple_of(SECTOR) && self.has(sector, sectors);
        has.then(|| sector * SECTOR).ok_or(Status::IoError)
    }

    fn has(&self, sector: u64, sectors: u64) -> bool {
        sector.checked_add(sectors).is_some_and(|end| end <= self.sectors)
    }

    /// All segments, each of them checked.
    fn segments(&self, reader: &mut Reader<'_>, most: u32, sectors_most: u32) -> Result<Vec<Segment>, Status> {
        let length = reader.remaining();
        let count = length / SEGMENT_SIZE;
        if count == 0 || count > most as usize || !length.is_multiple_of(SEGMENT_SIZE) {
            return Err(Status::IoError);
        }
        let mut segments = Vec::with_capacity(count);
        let mut is_valid = true;
        for _ in 0..count {
            let WireSegment { sector, sectors, flags } = reader.read_object()?;
            if flags.get() & !UNMAP != 0 {
                return Err(Status::Unsupported);
            }
            let (sector, sectors) = (sector.get(), sectors.get());
            is_valid &= sectors <= sectors_most && self.has(sector, sectors.into());
            segments.push(Segment {
                offset: sector.wrapping_mul(SECTOR),
                length: u64::from(sectors) * SECTOR,
                unmap: flags.get() & UNMAP != 0,
            });
        }
        if is_valid { Ok(segments) } else { Err(Status::IoError) }
    }
}
