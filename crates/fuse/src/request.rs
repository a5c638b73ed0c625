//! Parses a request once. From here on, only the payload of WRITE is read from guest memory again.
//!
//! The server trusts lengths and names because of these checks alone. Violations are answered with EINVAL.

use guestmem::Reader;
use zerocopy::{FromBytes, IntoBytes};

use crate::arguments::{Arguments, Buffer, malformed};
use crate::fs::{Caller, Errno, Negotiated, NodeId, Result};
use crate::limits::MAX_FORGETS;
use crate::operation::Operation;
use crate::wire::{self, InitFlags, Opcode};

/// A request that passed all checks.
pub(crate) struct Request<'a> {
    pub(crate) node: NodeId,
    pub(crate) caller: Caller,
    pub(crate) operation: Operation<'a>,
}

impl<'a> Request<'a> {
    /// Reads the arguments behind `header` from `reader` into `buffer` and checks them. The payload of WRITE stays in
    /// `reader`.
    pub(crate) fn parse(
        opcode: Opcode,
        header: &wire::InHeader,
        reader: &mut Reader<'_>,
        buffer: &'a mut Buffer,
        terms: &Negotiated,
    ) -> Result<Request<'a>> {
        let length = match opcode {
            Opcode::Write => reader.remaining().min(size_of::<wire::WriteIn>()),
            _ => reader.remaining(),
        };
        let (arguments, extensions) = split_extensions(buffer.fill(reader, length)?, header, terms)?;
        let mut arguments = Arguments::new(arguments);
        let node = NodeId(header.nodeid);
        let operation = Operation::parse(opcode, node, &mut arguments, terms)?;
        arguments.end()?;
        if let Operation::Write { to } = &operation
            && to.len as usize != reader.remaining()
        {
            return Err(Errno::EINVAL.rule("the length of the data is not the one it claims"));
        }
        // setresuid(2) and its like take -1 as "leave as it is"; a caller of that id would get ours. With FUSE_ALLOW_IDMAP all
        // requests have it but those that create (FUSE 7.41).
        let unnamed = header.uid == Caller::UNNAMED || header.gid == Caller::UNNAMED;
        if unnamed && !terms.flags.contains(InitFlags::ALLOW_IDMAP) {
            return Err(Errno::EINVAL.rule("the caller has no user or group id"));
        }
        let group = supplementary_group(extensions)?;
        let caller = Caller {
            uid: header.uid,
            gid: header.gid,
            pid: header.pid,
            supplementary_group: group.filter(|_| terms.flags.contains(InitFlags::CREATE_SUPP_GROUP)),
        };
        Ok(Request {
            node,
            caller,
            operation,
        })
    }
}

/// What INIT asks for.
#[derive(Debug)]
pub(crate) struct Init {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) max_readahead: u32,
    pub(crate) offered: InitFlags,
}

impl Init {
    /// Reads an INIT of any size that has a version: of another major version nothing more is known.
    pub(crate) fn parse(reader: &mut Reader<'_>) -> Result<Init> {
        let mut input = wire::InitIn::default();
        let length = reader.remaining().min(size_of::<wire::InitIn>());
        reader.read_exact(&mut input.as_mut_bytes()[..length])?;
        let known = if input.major == wire::MAJOR {
            size_of::<wire::InitShortIn>()
        } else {
            8
        };
        if length < known {
            return Err(malformed());
        }
        // Before FUSE 7.36 `flags2` is not there, and behind it there may be more in FUSE to come.
        let extended = InitFlags::from_words(input.flags, 0).contains(InitFlags::INIT_EXT);
        Ok(Init {
            major: input.major,
            minor: input.minor,
            max_readahead: input.max_readahead,
            offered: InitFlags::from_words(input.flags, if extended { input.flags2 } else { 0 }),
        })
    }
}

/// Hands each node of a FORGET or BATCH_FORGET to `each`, with the number of lookups to take back.
pub(crate) fn forgets(
    opcode: Opcode,
    node: NodeId,
    reader: &mut Reader<'_>,
    mut each: impl FnMut(NodeId, u64),
) -> Result<()> {
    if opcode == Opcode::Forget {
        let wire::ForgetIn { nlookup } = whole(reader)?;
        each(node, nlookup);
        return Ok(());
    }
    let wire::BatchForgetIn { count, .. } = reader.read_object()?;
    let length = u64::from(count) * size_of::<wire::ForgetOne>() as u64;
    if length != reader.remaining() as u64 || count > MAX_FORGETS {
        return Err(malformed());
    }
    for _ in 0..count {
        let wire::ForgetOne { nodeid, nlookup } = reader.read_object()?;
        each(NodeId(nodeid), nlookup);
    }
    Ok(())
}

/// Reads the structure that is all of the arguments.
fn whole<T: FromBytes + IntoBytes>(reader: &mut Reader<'_>) -> Result<T> {
    if reader.remaining() != size_of::<T>() {
        return Err(malformed());
    }
    Ok(reader.read_object()?)
}

/// Cuts the extensions (FUSE 7.38) off the end of the arguments.
fn split_extensions<'a>(bytes: &'a [u8], header: &wire::InHeader, terms: &Negotiated) -> Result<(&'a [u8], &'a [u8])> {
    let length = if terms.minor >= 38 {
        usize::from(header.total_extlen) * 8
    } else {
        0
    };
    let at = bytes.len().checked_sub(length).ok_or_else(malformed)?;
    Ok(bytes.split_at(at))
}

/// The group among the extensions of a request; extensions of other kinds are passed over.
fn supplementary_group(extensions: &[u8]) -> Result<Option<u32>> {
    let mut rest = Arguments::new(extensions);
    let mut group = None;
    while !rest.is_empty() {
        let header: wire::ExtHeader = rest.take()?;
        let header_length = size_of::<wire::ExtHeader>() as u32;
        let mut body = Arguments::new(rest.bytes(header.size.checked_sub(header_length).ok_or_else(malformed)?)?);
        // Records are padded to 8 bytes; whether `size` counts the padding is left open.
        rest.bytes(header.size.wrapping_neg() % 8)?;
        if header.kind == wire::EXT_GROUPS {
            match body.take::<u32>()? {
                0 => {}
                1 => group = Some(body.take()?),
                _ => return Err(malformed()), // FUSE_CREATE_SUPP_GROUP sends the one that matches the parent
            }
        }
    }
    Ok(group)
}
