//! Arbitrary bytes as a sequence of FUSE requests to a shared directory. Replies are well-formed, nothing outside the
//! share changes, no device is opened, and every thread keeps its identity. The fuzz target `requests` runs the same
//! body.

mod bytes;
mod decode;
pub(crate) mod oracle;
mod scratch;

use std::collections::VecDeque;
use std::ops::AddAssign;
use std::sync::{Mutex, PoisonError};

use fuse::deferred::{Answer, OnBlock};
use fuse::passthrough::{CacheMode, InodeHandles, Options, Passthrough};
use fuse::server::Server;
use fuse::wire::{self, Opcode};
use guestmem::{Memory, Pieces, Reader, Writer};
use zerocopy::{FromBytes, IntoBytes};

use self::bytes::Bytes;
use self::decode::Sent;
use self::scratch::Scratch;

/// Guest memory: requests lie in its first half, replies in the second.
const MEMORY: u64 = 0x10_0000;
const REPLIES: u64 = MEMORY / 2;
/// Between pieces of a request or reply, so that they start unaligned.
const GAP: u64 = 13;
/// More requests take no input to new places, only longer.
const MOST_REQUESTS: u32 = 400;

/// What a sequence came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) requests: u32,
    pub(crate) granted: u32,
    pub(crate) nodes: u32,
    pub(crate) handles: u32,
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Outcome) {
        self.requests += other.requests;
        self.granted += other.granted;
        self.nodes += other.nodes;
        self.handles += other.handles;
    }
}

/// What the guest knows, of both threads.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) nodes: VecDeque<u64>,
    /// Node, handle.
    pub(crate) handles: VecDeque<(u64, u64)>,
}

/// Runs the sequence that the bytes describe. Requests run on threads of their own, since a thread that serves a share gets
/// another working directory and umask.
pub(crate) fn run(bytes: &[u8]) -> Outcome {
    let mut bytes = Bytes(bytes);
    let two_threads = bytes.u8() % 16 == 0;
    let options = options(&mut bytes);
    let scratch = Scratch::new();
    let descriptors = oracle::descriptors();
    let server = std::thread::scope(|scope| {
        let server = scope.spawn(|| Server::new(Passthrough::new(&scratch.share(), options).expect("a share")));
        server.join().expect("no panic")
    });
    let without_session = oracle::descriptors();
    let known = Mutex::new(Known::default());
    let (first, second) = match two_threads {
        true => bytes.0.split_at(bytes.0.len() / 2),
        false => (bytes.0, &[][..]),
    };
    let sequence = |bytes, begins| Guest::new(&server, &known, &scratch).run(Bytes(bytes), begins);
    let mut outcome = std::thread::scope(|scope| {
        let threads = [
            scope.spawn(|| sequence(first, true)),
            // It finds a session that the first begins at some time.
            scope.spawn(|| {
                if two_threads {
                    sequence(second, false)
                } else {
                    Outcome::default()
                }
            }),
        ];
        let mut outcome = Outcome::default();
        for thread in threads {
            outcome += thread.join().expect("no panic");
        }
        outcome
    });
    std::thread::scope(|scope| {
        let last = scope.spawn(|| Guest::new(&server, &known, &scratch).end());
        outcome += last.join().expect("no panic");
    });
    assert_eq!(
        oracle::descriptors(),
        without_session,
        "DESTROY leaves descriptors open"
    );
    drop(server);
    assert_eq!(oracle::descriptors(), descriptors, "descriptors are left over");
    scratch.check();
    outcome
}

fn options(bytes: &mut Bytes<'_>) -> Options {
    let flags = bytes.u8();
    Options {
        inode_file_handles: bytes.one(&[InodeHandles::Prefer, InodeHandles::Never]),
        cache: bytes.one(&[
            CacheMode::Auto,
            CacheMode::Always,
            CacheMode::Never,
            CacheMode::Metadata,
        ]),
        readonly: flags & 0xf0 == 0xf0,
        xattr: flags & 0x07 != 0x07,
        posix_acl: flags & 0x08 != 0,
        writeback: flags & 0x10 != 0,
        allow_direct_io: flags & 0x20 != 0,
        ..Options::default()
    }
}

/// One thread of the guest.
struct Guest<'a> {
    server: &'a Server<Passthrough>,
    known: &'a Mutex<Known>,
    /// The share's file system.
    device: u64,
    memory: Memory,
    identity: oracle::Identity,
    unique: u64,
    outcome: Outcome,
}

impl<'a> Guest<'a> {
    fn new(server: &'a Server<Passthrough>, known: &'a Mutex<Known>, scratch: &'a Scratch) -> Self {
        let (memory, _file) = Memory::memfd("fuzz", MEMORY, 0).expect("a memfd");
        Self {
            server,
            known,
            device: scratch.device(),
            memory,
            identity: oracle::Identity::of_thread(),
            unique: 0,
            outcome: Outcome::default(),
        }
    }

    fn run(mut self, mut bytes: Bytes<'_>, begins: bool) -> Outcome {
        if begins {
            self.send(&Sent::init(u64::MAX));
        }
        while !bytes.is_empty() && self.outcome.requests < MOST_REQUESTS {
            let sent = decode::request(&mut bytes, &self.known());
            self.send(&sent);
        }
        self.outcome
    }

    /// Ends the session.
    fn end(mut self) -> Outcome {
        self.send(&Sent::destroy());
        self.outcome
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&mut self, sent: &Sent) {
        self.unique += 2;
        self.outcome.requests += 1;
        let mut request = sent.bytes.clone();
        if let Some(unique) = request.get_mut(8..16) {
            unique.copy_from_slice(&self.unique.to_le_bytes());
        }
        let (readable, places) = self.pieces(0, request.len(), sent.cut);
        let mut rest = &request[..];
        for (address, length) in places {
            let (now, later) = rest.split_at(length);
            self.memory.write(address, now).expect("it fits");
            rest = later;
        }
        let (writable, places) = self.pieces(REPLIES, sent.room, sent.cut);
        let (mut reader, mut writer) = (Reader::new(&readable), Writer::new(&writable));
        let answer = match sent.high_priority {
            true => self.server.dispatch_high_priority(&mut reader, &mut writer),
            false => self.server.dispatch(&mut reader, &mut writer, sent.on_block),
        };
        let used = match answer {
            Answer::Done(used) => used,
            Answer::Deferred(read) => {
                assert_eq!(sent.on_block, OnBlock::Defer);
                self.server.finish(read, &mut Writer::new(&writable))
            }
            Answer::PutOff => panic!("there is no window to wait for"),
        };
        assert!(used as usize <= sent.room, "{used} bytes in {}", sent.room);
        // No more than that: most replies are far shorter than their room.
        let mut reply = vec![0; used as usize];
        let mut rest = &mut reply[..];
        for (address, length) in places {
            let (now, later) = rest.split_at_mut(length.min(rest.len()));
            self.memory.read(address, now).expect("it fits");
            rest = later;
        }
        self.take(&request, sent, &reply);
        self.identity.check();
        oracle::no_special_file_is_open(self.device);
    }

    /// A buffer cut into pieces, and where they are.
    fn pieces(&self, mut at: u64, mut length: usize, cut: usize) -> (Pieces, Vec<(u64, usize)>) {
        let mut pieces = Pieces::new(&self.memory);
        let mut places = Vec::new();
        while length > 0 {
            let piece = length.min(cut);
            pieces.push(at, piece as u64).expect("it is in memory");
            places.push((at, piece));
            at += piece as u64 + GAP;
            length -= piece;
        }
        (pieces, places)
    }

    /// Checks the reply and remembers what the guest learns from it.
    fn take(&mut self, request: &[u8], sent: &Sent, reply: &[u8]) {
        let Ok((header, _)) = wire::InHeader::read_from_prefix(request) else {
            assert!(reply.is_empty(), "nobody has sent that");
            return;
        };
        let opcode = Opcode::from_number(header.opcode);
        let silent = matches!(opcode, Some(Opcode::Forget | Opcode::BatchForget | Opcode::Interrupt));
        if silent || sent.room < size_of::<wire::OutHeader>() {
            assert!(reply.is_empty(), "{opcode:?} gets no reply");
            return;
        }
        let (out, body) = wire::OutHeader::read_from_prefix(reply).expect("a header");
        if header.opcode == wire::INIT_OTHER_ENDIAN {
            assert_eq!(reply.len(), size_of::<wire::OutHeader>());
            return;
        }
        assert_eq!(out.len as usize, reply.len(), "the length of a reply to {opcode:?}");
        assert_eq!(out.unique, self.unique, "a reply to another request than {opcode:?}");
        assert!((-4095..=0).contains(&out.error), "{opcode:?} got {}", out.error);
        if out.error != 0 {
            assert!(body.is_empty(), "{opcode:?} failed with {} and a body", out.error);
            return;
        }
        self.outcome.granted += 1;
        let opcode = opcode.expect("FUSE has no such operation, and it was granted");
        let length = oracle::body_length(opcode);
        assert!(
            length.is_none_or(|length| length == body.len()),
            "{opcode:?} got {} bytes",
            body.len()
        );
        match opcode {
            Opcode::Lookup | Opcode::Symlink | Opcode::Mknod | Opcode::Mkdir | Opcode::Link => self.learn(body),
            Opcode::Create | Opcode::Tmpfile => {
                let (node, opened) = (self.learn(body), &body[size_of::<wire::EntryOut>()..]);
                self.opened(node, opened);
                node
            }
            Opcode::Open | Opcode::Opendir => {
                self.opened(header.nodeid, body);
                0
            }
            Opcode::Readdir | Opcode::Readdirplus => {
                let entries = oracle::directory(body, opcode == Opcode::Readdirplus);
                entries.into_iter().for_each(|node| self.meet(node));
                0
            }
            Opcode::Init | Opcode::Destroy => {
                *self.known() = Known::default();
                0
            }
            _ => 0,
        };
    }

    /// The node of an entry.
    fn learn(&mut self, body: &[u8]) -> u64 {
        let (entry, _) = wire::EntryOut::read_from_prefix(body).expect("an entry");
        self.meet(entry.nodeid);
        entry.nodeid
    }

    fn meet(&mut self, node: u64) {
        if node == 0 {
            return;
        }
        self.outcome.nodes += 1;
        let mut known = self.known();
        known.nodes.push_back(node);
        if known.nodes.len() > 24 {
            known.nodes.pop_front();
        }
    }

    fn opened(&mut self, node: u64, body: &[u8]) {
        let mut opened = wire::OpenOut::default();
        opened.as_mut_bytes().copy_from_slice(body);
        self.outcome.handles += 1;
        let mut known = self.known();
        known.handles.push_back((node, opened.fh));
        if known.handles.len() > 12 {
            known.handles.pop_front();
        }
    }
}
