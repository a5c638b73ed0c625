//! A chain in guest memory, split as a test chooses, and the bytes of requests.

use std::ffi::CStr;

use fuse::deferred::{Answer, DeferredRead, OnBlock};
use fuse::fs::FileSystem;
use fuse::server::Server;
use fuse::wire::{self, InitFlags, Opcode};
use guestmem::{Memory, Pieces, Reader, Writer};
use zerocopy::{FromBytes, IntoBytes};

/// What every request of these tests bears as its number, so that a reply can be seen to echo it.
pub(crate) const UNIQUE: u64 = 0x1122_3344_5566_7788;

const BASE: u64 = 0x10_0000;
const SIZE: u64 = 1 << 20;
/// Not a multiple of anything, so that pieces start unaligned.
const GAP: u64 = 13;

/// A request and its place in guest memory.
pub(crate) struct Chain {
    memory: Memory,
    readable: Pieces,
    writable: Pieces,
    writable_start: Vec<(u64, usize)>,
}

impl Chain {
    /// Lays `request` out in pieces of the lengths in `cuts`, used in turn, and `room` bytes for the reply likewise.
    pub(crate) fn new(request: &[u8], room: usize, cuts: &[usize]) -> Chain {
        let (memory, _file) = Memory::memfd("fuse-test", SIZE, BASE).unwrap();
        let mut at = BASE;
        let mut pieces = |mut length: usize| {
            let mut list = Vec::new();
            for cut in cuts.iter().cycle() {
                let piece = length.min(*cut);
                if piece == 0 {
                    break;
                }
                list.push((at, piece));
                at += piece as u64 + GAP;
                length -= piece;
            }
            list
        };
        let (readable_start, writable_start) = (pieces(request.len()), pieces(room));
        let (mut readable, mut writable) = (Pieces::new(&memory), Pieces::new(&memory));
        let mut rest = request;
        for (address, length) in readable_start {
            let (now, later) = rest.split_at(length);
            memory.write(address, now).unwrap();
            readable.push(address, length as u64).unwrap();
            rest = later;
        }
        for &(address, length) in &writable_start {
            writable.push(address, length as u64).unwrap();
        }
        Chain {
            memory,
            readable,
            writable,
            writable_start,
        }
    }

    /// Sends the request; gives as many bytes of the reply as the server says it wrote.
    pub(crate) fn send<F: FileSystem>(&self, server: &Server<F>) -> Vec<u8> {
        self.reply(server.dispatch(
            &mut Reader::new(&self.readable),
            &mut Writer::new(&self.writable),
            OnBlock::Wait,
        ))
    }

    /// As `send`, on the high-priority queue.
    pub(crate) fn send_high_priority<F: FileSystem>(&self, server: &Server<F>) -> Vec<u8> {
        self.reply(server.dispatch_high_priority(&mut Reader::new(&self.readable), &mut Writer::new(&self.writable)))
    }

    /// Sends a request that is deferred.
    pub(crate) fn defer<F: FileSystem>(&self, server: &Server<F>) -> DeferredRead {
        let (mut reader, mut writer) = (Reader::new(&self.readable), Writer::new(&self.writable));
        match server.dispatch(&mut reader, &mut writer, OnBlock::Defer) {
            Answer::Deferred(read) => read,
            answer => panic!("it is to be left: {answer:?}"),
        }
    }

    /// Has the server finish it; gives the reply.
    pub(crate) fn finish<F: FileSystem>(&self, server: &Server<F>, read: DeferredRead) -> Vec<u8> {
        self.reply(Answer::Done(server.finish(read, &mut Writer::new(&self.writable))))
    }

    fn reply(&self, answer: Answer) -> Vec<u8> {
        let Answer::Done(used) = answer else {
            panic!("nothing here is put off or left: {answer:?}");
        };
        let mut bytes = vec![0; self.writable.total()];
        let mut rest = &mut bytes[..];
        for &(address, length) in &self.writable_start {
            let (now, later) = rest.split_at_mut(length);
            self.memory.read(address, now).unwrap();
            rest = later;
        }
        assert!(used as usize <= bytes.len(), "used {used} of {} bytes", bytes.len());
        bytes.truncate(used as usize);
        bytes
    }
}

/// Sends in one piece with plenty of room.
pub(crate) fn send<F: FileSystem>(server: &Server<F>, request: &[u8]) -> Vec<u8> {
    Chain::new(request, 8192, &[usize::MAX]).send(server)
}

/// A request about `nodeid` by uid 1000, gid 100, pid 5.
pub(crate) fn request(opcode: Opcode, nodeid: u64, arguments: &[u8]) -> Vec<u8> {
    numbered(opcode as u32, nodeid, arguments)
}

/// As `request`, of any opcode.
pub(crate) fn numbered(opcode: u32, nodeid: u64, arguments: &[u8]) -> Vec<u8> {
    let header = wire::InHeader {
        len: (size_of::<wire::InHeader>() + arguments.len()) as u32,
        opcode,
        unique: UNIQUE,
        nodeid,
        uid: 1000,
        gid: 100,
        pid: 5,
        ..Default::default()
    };
    join(&[header.as_bytes(), arguments])
}

/// Changes the header of a request.
pub(crate) fn with_header(mut request: Vec<u8>, change: impl FnOnce(&mut wire::InHeader)) -> Vec<u8> {
    let (header, _) = wire::InHeader::mut_from_prefix(&mut request).unwrap();
    change(header);
    request
}

pub(crate) fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// A name as it lies in a request.
pub(crate) fn z(name: &CStr) -> &[u8] {
    name.to_bytes_with_nul()
}

/// INIT of that version, with those flags.
pub(crate) fn init(minor: u32, flags: InitFlags) -> Vec<u8> {
    let (flags, flags2) = flags.words();
    let input = wire::InitIn {
        major: 7,
        minor,
        max_readahead: 131_072,
        flags,
        flags2,
        unused: [0; 11],
    };
    request(Opcode::Init, 0, input.as_bytes())
}

/// A reply without error and that body.
pub(crate) fn success(body: &[u8]) -> Vec<u8> {
    let header = wire::OutHeader {
        len: 16 + body.len() as u32,
        error: 0,
        unique: UNIQUE,
    };
    join(&[header.as_bytes(), body])
}

/// A reply of that error.
pub(crate) fn failure(errno: i32) -> Vec<u8> {
    wire::OutHeader {
        len: 16,
        error: -errno,
        unique: UNIQUE,
    }
    .as_bytes()
    .to_vec()
}
