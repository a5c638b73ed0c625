//! A FUSE session with a share, whose operations are noted.

use std::mem::offset_of;

use driver::fs::{OUT_HEADER, Request, Requests, field_u64, reply};
use driver::{Error, Guest, Options};
use fuse::wire::{InitFlags, InitOut, Opcode};
use zerocopy::{FromZeros, Immutable, IntoBytes};

use crate::serve::exercise::Steps;

/// The latest version of FUSE that the server speaks.
const MINOR: u32 = fuse::wire::MINOR;
/// Queue 0 takes requests without replies.
const HIPRIO: usize = 0;

/// A guest that has mounted the share.
pub(super) struct Session<'s> {
    pub(super) steps: &'s mut Steps,
    pub(super) guest: Guest,
    pub(super) requests: Requests,
    /// Whether the share serves `trusted.*` attributes.
    pub(super) trusted: bool,
    /// What INIT negotiated.
    flags: InitFlags,
    /// Requests go to each request queue in turn.
    turn: usize,
}

/// A file that the guest has open.
#[derive(Clone, Copy)]
pub(super) struct Open {
    pub(super) node: u64,
    pub(super) handle: u64,
}

impl<'s> Session<'s> {
    /// Mounts the share as `options` have it, with all features of FUSE but `without`.
    pub(super) fn start(steps: &'s mut Steps, options: &Options, without: InitFlags) -> Result<Self, Error> {
        let guest = steps.connect(options)?;
        let mut session = Self {
            steps,
            guest,
            requests: Requests::new(0, 0),
            trusted: false,
            flags: InitFlags::empty(),
            turn: 0,
        };
        session.init(InitFlags::all() - without)?;
        Ok(session)
    }

    pub(super) fn init(&mut self, flags: InitFlags) -> Result<(), Error> {
        let request = self.requests.init(MINOR, flags.bits());
        let body = self.request("INIT", &request)?;
        let word = |at| driver::fs::field_u32(&body, at);
        let (flags, flags2) = (offset_of!(InitOut, flags), offset_of!(InitOut, flags2));
        self.flags = InitFlags::from_words(word(flags), word(flags2));
        Ok(())
    }

    /// Whether INIT negotiated it.
    pub(super) fn has(&self, flag: InitFlags) -> bool {
        self.flags.contains(flag)
    }

    /// An operation with arguments, names or data, and a reply of at most `room` bytes. Its body; empty if it was refused.
    pub(super) fn ask(
        &mut self,
        what: &str,
        opcode: Opcode,
        node: u64,
        arguments: &[&[u8]],
        room: usize,
    ) -> Result<Vec<u8>, Error> {
        let request = self.make(opcode, node, arguments, room);
        self.request(what, &request)
    }

    /// The same, where `errno` is as good an answer as none.
    pub(super) fn ask_in_vain(
        &mut self,
        what: &str,
        opcode: Opcode,
        node: u64,
        arguments: &[&[u8]],
        errno: i32,
    ) -> Result<(), Error> {
        let request = self.make(opcode, node, arguments, 256);
        match self.call(&request)? {
            Err(found) if found != errno => self.steps.refused(name(opcode.name(), what), found),
            _ => self.steps.succeeded(name(opcode.name(), what)),
        }
        Ok(())
    }

    /// An operation that has no reply.
    pub(super) fn tell(&mut self, opcode: Opcode, node: u64, arguments: &[&[u8]]) -> Result<(), Error> {
        let request = self.requests.raw(opcode as u32, node, arguments, 0);
        self.guest.queues[HIPRIO].call(&request.readable, 0)?;
        self.steps.succeeded(opcode.name());
        Ok(())
    }

    /// An operation that makes or finds a node. Its number; 0 if it was refused.
    pub(super) fn node(&mut self, what: &str, opcode: Opcode, parent: u64, arguments: &[&[u8]]) -> Result<u64, Error> {
        let body = self.ask(what, opcode, parent, arguments, size_of::<fuse::wire::EntryOut>())?;
        Ok(field_u64(&body, 0))
    }

    pub(super) fn lookup(&mut self, parent: u64, of: &str) -> Result<u64, Error> {
        self.node("", Opcode::Lookup, parent, &[of.as_bytes(), b"\0"])
    }

    /// CREATE or TMPFILE.
    pub(super) fn create(&mut self, opcode: Opcode, parent: u64, of: &str, flags: i32) -> Result<Open, Error> {
        let input = fuse::wire::CreateIn {
            flags: flags.cast_unsigned(),
            mode: libc::S_IFREG | 0o6755,
            umask: 0o022,
            open_flags: 0,
        };
        let entry = size_of::<fuse::wire::EntryOut>();
        let room = entry + size_of::<fuse::wire::OpenOut>();
        let body = self.ask("", opcode, parent, &[input.as_bytes(), of.as_bytes(), b"\0"], room)?;
        Ok(Open {
            node: field_u64(&body, 0),
            handle: field_u64(&body, entry),
        })
    }

    /// OPEN or OPENDIR.
    pub(super) fn open(&mut self, what: &str, opcode: Opcode, node: u64, flags: i32) -> Result<Open, Error> {
        let input = fuse::wire::OpenIn {
            flags: flags.cast_unsigned(),
            open_flags: fuse::wire::OPEN_KILL_SUIDGID,
        };
        let room = size_of::<fuse::wire::OpenOut>();
        let body = self.ask(what, opcode, node, &[input.as_bytes()], room)?;
        Ok(Open {
            node,
            handle: field_u64(&body, 0),
        })
    }

    /// RELEASE or RELEASEDIR.
    pub(super) fn release(&mut self, opcode: Opcode, open: Open) -> Result<(), Error> {
        let input = fuse::wire::ReleaseIn {
            fh: open.handle,
            ..zeros()
        };
        self.ask("", opcode, open.node, &[input.as_bytes()], 0).map(drop)
    }

    fn make(&mut self, opcode: Opcode, node: u64, arguments: &[&[u8]], room: usize) -> Request {
        let room = u32::try_from(OUT_HEADER + room).unwrap_or(u32::MAX);
        self.requests.raw(opcode as u32, node, arguments, room)
    }

    fn request(&mut self, what: &str, request: &Request) -> Result<Vec<u8>, Error> {
        let number = driver::fs::field_u32(&request.readable, 4);
        let opcode = Opcode::from_number(number).map_or_else(|| number.to_string(), Opcode::name);
        let operation = name(opcode, what);
        match self.call(request)? {
            Ok(body) => {
                self.steps.succeeded(operation);
                Ok(body)
            }
            Err(errno) => {
                self.steps.refused(operation, errno);
                Ok(Vec::new())
            }
        }
    }

    fn call(&mut self, request: &Request) -> Result<Result<Vec<u8>, i32>, Error> {
        let queues = self.guest.queues.len() - 1;
        self.turn = (self.turn + 1) % queues;
        let queue = &mut self.guest.queues[1 + self.turn];
        let (written, bytes) = queue.call(&request.readable, request.reply_space)?;
        // A reply that breaks the rules counts as the errno of one.
        Ok(reply(request, written, &bytes).map_or(Err(libc::EPROTO), |body| body.map(<[u8]>::to_vec)))
    }
}

fn name(opcode: String, what: &str) -> String {
    if what.is_empty() || what == opcode {
        return opcode;
    }
    format!("{opcode} ({what})")
}

/// Arguments that are all 0.
pub(super) fn zeros<T: FromZeros + IntoBytes + Immutable>() -> T {
    T::new_zeroed()
}
