//! Requests of virtio-fs as a guest kernel lays them out, and parsed replies.
//!
//! The layouts are defined a second time on purpose: the driver is an independent peer of the FUSE server. An error
//! in one table must not be hidden by the same error in the other.

/// FUSE operation numbers (`include/uapi/linux/fuse.h`).
#[expect(missing_docs, reason = "the names are those of fuse.h")]
pub mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const RELEASE: u32 = 18;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const CREATE: u32 = 35;
    pub const DESTROY: u32 = 38;
    pub const READDIRPLUS: u32 = 44;
    pub const SETUPMAPPING: u32 = 48;
    pub const REMOVEMAPPING: u32 = 49;
}

/// Bytes of `fuse_in_header`.
pub const IN_HEADER: usize = 40;
/// Bytes of `fuse_out_header`.
pub const OUT_HEADER: usize = 16;
/// The node id of the shared directory.
pub const ROOT: u64 = 1;

const ENTRY_OUT: u32 = 128;
const ATTR_OUT: u32 = 104;
const OPEN_OUT: u32 = 16;
const INIT_OUT: u32 = 64;
const WRITE_OUT: u32 = 8;
const FATTR_MODE: u32 = 1;
const FATTR_UID: u32 = 1 << 1;
const FATTR_GID: u32 = 1 << 2;
const FATTR_SIZE: u32 = 1 << 3;

/// One request: what the device may read, and how much space it gets for its reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The request's number, which the reply repeats.
    pub unique: u64,
    /// Header and arguments.
    pub readable: Vec<u8>,
    /// Bytes of writable space; 0 for requests without a reply.
    pub reply_space: u32,
}

/// Makes requests of one caller, numbered upwards.
#[derive(Clone, Debug)]
pub struct Requests {
    next_unique: u64,
    /// User id that the requests claim.
    pub uid: u32,
    /// Group id that the requests claim.
    pub gid: u32,
}

impl Requests {
    /// Requests of a user, from number 2 on (Linux counts in steps of 2).
    pub fn new(uid: u32, gid: u32) -> Self {
        Self {
            next_unique: 2,
            uid,
            gid,
        }
    }

    /// Any operation with any arguments, right or wrong.
    pub fn raw(&mut self, opcode: u32, node: u64, arguments: &[&[u8]], reply_space: u32) -> Request {
        let unique = self.next_unique;
        self.next_unique += 2;
        let body: usize = arguments.iter().map(|part| part.len()).sum();
        let length = u32::try_from(IN_HEADER + body).unwrap_or(u32::MAX);
        let mut readable = Vec::with_capacity(IN_HEADER + body);
        for field in [length, opcode] {
            readable.extend(field.to_le_bytes());
        }
        readable.extend(unique.to_le_bytes());
        readable.extend(node.to_le_bytes());
        for field in [self.uid, self.gid, std::process::id(), 0] {
            readable.extend(field.to_le_bytes());
        }
        for part in arguments {
            readable.extend(*part);
        }
        Request {
            unique,
            readable,
            reply_space,
        }
    }

    /// INIT with these flags (both words joined), for 7.`minor`.
    pub fn init(&mut self, minor: u32, flags: u64) -> Request {
        let mut body = [0; 64];
        body[..4].copy_from_slice(&7_u32.to_le_bytes());
        body[4..8].copy_from_slice(&minor.to_le_bytes());
        body[8..12].copy_from_slice(&(1_u32 << 20).to_le_bytes()); // max_readahead
        body[12..16].copy_from_slice(&low_word(flags).to_le_bytes());
        body[16..20].copy_from_slice(&low_word(flags >> 32).to_le_bytes());
        self.raw(opcode::INIT, 0, &[&body], OUT_HEADER as u32 + INIT_OUT)
    }

    /// DESTROY: the end of the session.
    pub fn destroy(&mut self) -> Request {
        self.raw(opcode::DESTROY, 0, &[], OUT_HEADER as u32)
    }

    /// LOOKUP of `name` in `parent`.
    pub fn lookup(&mut self, parent: u64, name: &[u8]) -> Request {
        self.raw(opcode::LOOKUP, parent, &[name, b"\0"], OUT_HEADER as u32 + ENTRY_OUT)
    }

    /// FORGET of `count` lookups of `node`: no reply.
    pub fn forget(&mut self, node: u64, count: u64) -> Request {
        self.raw(opcode::FORGET, node, &[&count.to_le_bytes()], 0)
    }

    /// GETATTR without a handle.
    pub fn getattr(&mut self, node: u64) -> Request {
        self.raw(opcode::GETATTR, node, &[&[0; 16]], OUT_HEADER as u32 + ATTR_OUT)
    }

    /// SETATTR of owner and group.
    pub fn chown(&mut self, node: u64, uid: u32, gid: u32) -> Request {
        let ids = [uid.to_le_bytes(), gid.to_le_bytes()].concat();
        self.setattr(node, FATTR_UID | FATTR_GID, 76, &ids)
    }

    /// SETATTR of the permission bits.
    pub fn chmod(&mut self, node: u64, mode: u32) -> Request {
        self.setattr(node, FATTR_MODE, 68, &mode.to_le_bytes())
    }

    /// SETATTR of the length in bytes.
    pub fn truncate(&mut self, node: u64, length: u64) -> Request {
        self.setattr(node, FATTR_SIZE, 16, &length.to_le_bytes())
    }

    /// SETATTR without a handle: `value` at the place `at` of `fuse_setattr_in`.
    fn setattr(&mut self, node: u64, valid: u32, at: usize, value: &[u8]) -> Request {
        let mut body = [0; 88];
        body[..4].copy_from_slice(&valid.to_le_bytes());
        body[at..at + value.len()].copy_from_slice(value);
        self.raw(opcode::SETATTR, node, &[&body], OUT_HEADER as u32 + ATTR_OUT)
    }

    /// SYMLINK `name` in `parent`, to `target`.
    pub fn symlink(&mut self, parent: u64, name: &[u8], target: &[u8]) -> Request {
        let arguments = [name, b"\0", target, b"\0"];
        self.raw(opcode::SYMLINK, parent, &arguments, OUT_HEADER as u32 + ENTRY_OUT)
    }

    /// MKNOD of `name` in `parent`: `mode` has the kind, `device` Linux' 32-bit device number.
    pub fn mknod(&mut self, parent: u64, name: &[u8], mode: u32, device: u32) -> Request {
        let body = words([mode, device, 0, 0]);
        let arguments = [&body, name, b"\0"];
        self.raw(opcode::MKNOD, parent, &arguments, OUT_HEADER as u32 + ENTRY_OUT)
    }

    /// MKDIR of `name` in `parent`.
    pub fn mkdir(&mut self, parent: u64, name: &[u8], mode: u32) -> Request {
        let body = words([mode, 0]);
        self.raw(
            opcode::MKDIR,
            parent,
            &[&body, name, b"\0"],
            OUT_HEADER as u32 + ENTRY_OUT,
        )
    }

    /// UNLINK of `name` in `parent`.
    pub fn unlink(&mut self, parent: u64, name: &[u8]) -> Request {
        self.raw(opcode::UNLINK, parent, &[name, b"\0"], OUT_HEADER as u32)
    }

    /// RENAME of `name` in `parent` to `new_name` in `new_parent`.
    pub fn rename(&mut self, parent: u64, name: &[u8], new_parent: u64, new_name: &[u8]) -> Request {
        let arguments = [&new_parent.to_le_bytes(), name, b"\0", new_name, b"\0"];
        self.raw(opcode::RENAME, parent, &arguments, OUT_HEADER as u32)
    }

    /// LINK of `node` as `name` in `parent`.
    pub fn link(&mut self, node: u64, parent: u64, name: &[u8]) -> Request {
        let arguments = [&node.to_le_bytes(), name, b"\0"];
        self.raw(opcode::LINK, parent, &arguments, OUT_HEADER as u32 + ENTRY_OUT)
    }

    /// CREATE of `name` in `parent`, opened with Linux `flags`.
    pub fn create(&mut self, parent: u64, name: &[u8], flags: u32, mode: u32) -> Request {
        let body = words([flags, mode, 0, 0]);
        self.raw(
            opcode::CREATE,
            parent,
            &[&body, name, b"\0"],
            OUT_HEADER as u32 + ENTRY_OUT + OPEN_OUT,
        )
    }

    /// OPEN with Linux `flags`.
    pub fn open(&mut self, node: u64, flags: u32) -> Request {
        self.raw(opcode::OPEN, node, &[&words([flags, 0])], OUT_HEADER as u32 + OPEN_OUT)
    }

    /// OPENDIR.
    pub fn opendir(&mut self, node: u64) -> Request {
        self.raw(opcode::OPENDIR, node, &[&[0; 8]], OUT_HEADER as u32 + OPEN_OUT)
    }

    /// READ of `size` bytes at `offset`.
    pub fn read(&mut self, node: u64, handle: u64, offset: u64, size: u32) -> Request {
        self.raw(
            opcode::READ,
            node,
            &[&read_in(handle, offset, size)],
            OUT_HEADER as u32 + size,
        )
    }

    /// READDIR into `size` bytes from `offset` on.
    pub fn readdir(&mut self, node: u64, handle: u64, offset: u64, size: u32) -> Request {
        self.raw(
            opcode::READDIR,
            node,
            &[&read_in(handle, offset, size)],
            OUT_HEADER as u32 + size,
        )
    }

    /// WRITE of `data` at `offset`.
    pub fn write(&mut self, node: u64, handle: u64, offset: u64, data: &[u8]) -> Request {
        let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
        self.raw(
            opcode::WRITE,
            node,
            &[&read_in(handle, offset, size), data],
            OUT_HEADER as u32 + WRITE_OUT,
        )
    }

    /// SETUPMAPPING: `length` bytes of `node` from `file_offset` on, at `offset` of the window. Without a handle, as Linux asks.
    pub fn set_up_mapping(&mut self, node: u64, file_offset: u64, offset: u64, length: u64, write: bool) -> Request {
        let flags = if write { 3 } else { 2 };
        let body = long_words([u64::MAX, file_offset, length, flags, offset]);
        self.raw(opcode::SETUPMAPPING, node, &[&body], OUT_HEADER as u32)
    }

    /// REMOVEMAPPING of ranges of the window, each an offset and a length. `node` has no meaning; Linux names the last one mapped.
    pub fn remove_mappings(&mut self, node: u64, ranges: &[(u64, u64)]) -> Request {
        let count = u32::try_from(ranges.len()).unwrap_or(u32::MAX);
        let ranges: Vec<u8> = ranges.iter().flat_map(|range| long_words([range.0, range.1])).collect();
        self.raw(
            opcode::REMOVEMAPPING,
            node,
            &[&count.to_le_bytes(), &ranges],
            OUT_HEADER as u32,
        )
    }

    /// RELEASE of a file handle.
    pub fn release(&mut self, node: u64, handle: u64) -> Request {
        self.raw(
            opcode::RELEASE,
            node,
            &[&read_in(handle, 0, 0)[..24]],
            OUT_HEADER as u32,
        )
    }
}

/// A reply taken apart: `Err` holds the errno, positive.
pub type Reply<'a> = Result<&'a [u8], i32>;

/// Checks a reply against its request and the number of bytes that the device claims to have written.
pub fn reply<'a>(request: &Request, written: u32, bytes: &'a [u8]) -> Result<Reply<'a>, ReplyError> {
    let header = bytes
        .first_chunk::<OUT_HEADER>()
        .ok_or(ReplyError::NoHeader { written })?;
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (length, error) = (word(0), word(4).cast_signed());
    let unique = u64::from(word(8)) | u64::from(word(12)) << 32;
    if unique != request.unique {
        return Err(ReplyError::OtherRequest {
            unique,
            expected: request.unique,
        });
    }
    if length != written || (length as usize) < OUT_HEADER || bytes.len() < length as usize {
        return Err(ReplyError::Length { length, written });
    }
    match error {
        0 => Ok(Ok(&bytes[OUT_HEADER..length as usize])),
        -4095..0 if length as usize == OUT_HEADER => Ok(Err(-error)),
        _ => Err(ReplyError::Errno { error, length }),
    }
}

/// How a reply can break the rules of FUSE or VIRTIO.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Less than a header came back.
    #[error("the reply of {written} bytes has no header")]
    NoHeader {
        /// The used length.
        written: u32,
    },
    /// The reply belongs to another request.
    #[error("the reply is for request {unique}, not {expected}")]
    OtherRequest {
        /// What the reply says.
        unique: u64,
        /// What was asked.
        expected: u64,
    },
    /// The header's length is not the used length (VIRTIO 1.2 5.11.6.1), or lies outside of the buffer.
    #[error("the reply's header says {length} bytes, the used element {written}")]
    Length {
        /// What the header says.
        length: u32,
        /// The used length.
        written: u32,
    },
    /// The error is no errno, or comes with a body.
    #[error("the reply of {length} bytes has error {error}")]
    Errno {
        /// The error field.
        error: i32,
        /// What the header says.
        length: u32,
    },
}

/// The field of 8 bytes at `offset` of a reply's body (0 where the body ends before: a short body fails the test that asked).
pub fn field_u64(body: &[u8], offset: usize) -> u64 {
    body.get(offset..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The field of 4 bytes at `offset` of a reply's body.
pub fn field_u32(body: &[u8], offset: usize) -> u32 {
    body.get(offset..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// The names of a READDIR reply (`fuse_dirent`: ino, off, namelen, type, name, padding to 8 bytes).
pub fn directory_names(mut body: &[u8]) -> Vec<Vec<u8>> {
    let mut names = Vec::new();
    while body.len() >= 24 {
        let length = field_u32(body, 16) as usize;
        let Some(name) = body.get(24..24 + length) else { break };
        names.push(name.to_vec());
        body = body.get((24 + length).next_multiple_of(8)..).unwrap_or_default();
    }
    names
}

fn low_word(flags: u64) -> u32 {
    (flags & u64::from(u32::MAX)) as u32
}

fn words<const N: usize>(fields: [u32; N]) -> Vec<u8> {
    fields.iter().flat_map(|field| field.to_le_bytes()).collect()
}

fn long_words<const N: usize>(fields: [u64; N]) -> Vec<u8> {
    fields.iter().flat_map(|field| field.to_le_bytes()).collect()
}

/// `fuse_read_in`, which `fuse_write_in` equals in shape.
fn read_in(handle: u64, offset: u64, size: u32) -> [u8; 40] {
    let mut body = [0; 40];
    body[..8].copy_from_slice(&handle.to_le_bytes());
    body[8..16].copy_from_slice(&offset.to_le_bytes());
    body[16..20].copy_from_slice(&size.to_le_bytes());
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_starts_with_its_own_length_and_a_reply_is_held_against_it() {
        let request = Requests::new(1000, 100).lookup(ROOT, b"name");
        assert_eq!(field_u32(&request.readable, 0) as usize, request.readable.len());
        let mut good = [16_u32.to_le_bytes(), (-2_i32).to_le_bytes()].concat();
        good.extend(request.unique.to_le_bytes());
        assert_eq!(reply(&request, 16, &good), Ok(Err(2)));
        assert_eq!(
            reply(&request, 15, &good),
            Err(ReplyError::Length {
                length: 16,
                written: 15
            })
        );
        good[8] ^= 1;
        assert!(matches!(
            reply(&request, 16, &good),
            Err(ReplyError::OtherRequest { .. })
        ));
    }

    #[test]
    fn mappings_are_asked_for_as_fuse_h_lays_them_out() {
        let mut requests = Requests::new(0, 0);
        let request = requests.set_up_mapping(7, 1 << 21, 2 << 21, 3 << 21, true);
        let fields: Vec<_> = (0..5)
            .map(|index| field_u64(&request.readable, IN_HEADER + 8 * index))
            .collect();
        assert_eq!(fields, [u64::MAX, 1 << 21, 3 << 21, 3, 2 << 21]);
        let request = requests.remove_mappings(7, &[(1, 2), (3, 4)]);
        assert_eq!(field_u32(&request.readable, IN_HEADER), 2, "count");
        let fields: Vec<_> = (0..4)
            .map(|index| field_u64(&request.readable, IN_HEADER + 4 + 8 * index))
            .collect();
        assert_eq!(fields, [1, 2, 3, 4]);
    }

    #[test]
    fn directory_entries_are_padded_to_eight_bytes() {
        let mut body = Vec::new();
        for name in [&b"a"[..], b"exactly8", b"longer than eight"] {
            body.extend([0; 16]);
            body.extend((name.len() as u32).to_le_bytes());
            body.extend([0; 4]);
            body.extend(name);
            body.resize(body.len().next_multiple_of(8), 0);
        }
        assert_eq!(directory_names(&body), [&b"a"[..], b"exactly8", b"longer than eight"]);
    }
}
