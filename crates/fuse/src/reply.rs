//! Writes replies: the body first, the header last, when length and error are known.

use std::ffi::CStr;
use std::time::Duration;

use guestmem::{CursorError, Writer};
use zerocopy::{Immutable, IntoBytes};

use crate::deferred::{DeferredRead, OnBlock, Outstanding};
use crate::fs::{DirectorySink, Entry, Errno, Opened, RestOfRead, Result};
use crate::wire;

/// Why a request without room for its reply is refused.
pub(crate) const NO_ROOM: &str = "the guest left no room for the reply";

/// A reply under way: the place of its header is kept apart, and its body grows behind it.
pub(crate) struct Reply<'a, 'm> {
    header: Writer<'m>,
    body: &'a mut Writer<'m>,
    length: usize,
    of: wire::InHeader,
    on_block: OnBlock,
    deferred: Option<DeferredRead>,
}

impl<'a, 'm> Reply<'a, 'm> {
    /// Starts the reply to the request that `of` starts; `None` if there is no room for even the header.
    pub(crate) fn begin(of: wire::InHeader, body: &'a mut Writer<'m>, on_block: OnBlock) -> Option<Reply<'a, 'm>> {
        let header = body.split_at(size_of::<wire::OutHeader>()).ok()?;
        Some(Reply {
            header,
            body,
            length: 0,
            of,
            on_block,
            deferred: None,
        })
    }

    /// Bytes that a body may have: there must be space, and the header must be able to say so.
    pub(crate) fn room(&self) -> usize {
        self.body
            .remaining()
            .min(u32::MAX as usize - size_of::<wire::OutHeader>())
    }

    /// Appends one structure.
    pub(crate) fn put<T: IntoBytes + Immutable>(&mut self, object: &T) -> Result<()> {
        self.put_bytes(object.as_bytes(), Errno::EINVAL)
    }

    /// Appends bytes, or answers `too_long`.
    pub(crate) fn put_bytes(&mut self, bytes: &[u8], too_long: Errno) -> Result<()> {
        self.body.write_all(bytes).map_err(|error| match error {
            CursorError::Short { .. } => too_long.rule(NO_ROOM),
            fault @ CursorError::Fault => fault.into(),
        })?;
        self.length += bytes.len();
        Ok(())
    }

    /// Appends what `fill` writes into the next `size` bytes.
    pub(crate) fn fill(&mut self, size: u32, fill: impl FnOnce(&mut Writer<'m>) -> Result<()>) -> Result<()> {
        let mut part = self
            .body
            .split_at(size as usize)
            .map_err(|_| Errno::EINVAL.rule(NO_ROOM))?;
        fill(&mut part)?;
        self.length += part.written();
        Ok(())
    }

    /// Whether [`fill_or_defer`](Self::fill_or_defer) is for this request.
    pub(crate) fn may_defer(&self) -> bool {
        self.on_block == OnBlock::Defer
    }

    /// As `fill`, but `fill` may defer the rest of a read.
    pub(crate) fn fill_or_defer(
        &mut self,
        size: u32,
        fill: impl FnOnce(&mut Writer<'m>) -> Result<Option<(RestOfRead, Outstanding)>>,
    ) -> Result<()> {
        let mut part = self
            .body
            .split_at(size as usize)
            .map_err(|_| Errno::EINVAL.rule(NO_ROOM))?;
        let rest = fill(&mut part)?;
        let done = part.written();
        self.length += done;
        self.deferred =
            rest.map(|(rest, outstanding)| DeferredRead::new(self.of, (done, size - done as u32), rest, outstanding));
        Ok(())
    }

    /// Passes over bytes of the body that are there from before.
    pub(crate) fn pass(&mut self, length: usize) -> Result<()> {
        self.body.split_at(length).map_err(|_| Errno::EINVAL.rule(NO_ROOM))?;
        self.length += length;
        Ok(())
    }

    /// What was deferred, in which case there is nothing to end here.
    pub(crate) fn take_deferred(&mut self) -> Option<DeferredRead> {
        self.deferred.take()
    }

    /// Writes the header in front of the body, or in front of nothing in case of an error. Gives the length of it all.
    pub(crate) fn end(self, result: Result<()>) -> u32 {
        let (body, error) = match result {
            Ok(()) => (self.length, 0),
            Err(Errno(errno)) => (0, -errno),
        };
        let len = (size_of::<wire::OutHeader>() + body) as u32;
        let unique = self.of.unique;
        write_header(self.header, &wire::OutHeader { len, error, unique }, len)
    }

    /// Refuses the INIT of a guest of the other byte order, in that order, so that it can tell why it was refused.
    pub(crate) fn refuse_other_endian(self, Errno(errno): Errno) -> u32 {
        let len = size_of::<wire::OutHeader>() as u32;
        let error = (-errno).swap_bytes();
        write_header(
            self.header,
            &wire::OutHeader {
                len: len.swap_bytes(),
                error,
                unique: self.of.unique,
            },
            len,
        )
    }
}

/// Gives the bytes written in all, the body's included.
fn write_header(mut place: Writer<'_>, header: &wire::OutHeader, written: u32) -> u32 {
    // The place has the size of a header.
    if place.write_object(header).is_ok() { written } else { 0 }
}

impl From<&Entry> for wire::EntryOut {
    fn from(entry: &Entry) -> Self {
        Self {
            nodeid: entry.node.0,
            generation: entry.generation,
            entry_valid: entry.entry_timeout.as_secs(),
            attr_valid: entry.attr_timeout.as_secs(),
            entry_valid_nsec: entry.entry_timeout.subsec_nanos(),
            attr_valid_nsec: entry.attr_timeout.subsec_nanos(),
            attr: entry.attr,
        }
    }
}

impl From<(wire::Attr, Duration)> for wire::AttrOut {
    fn from((attr, timeout): (wire::Attr, Duration)) -> Self {
        Self {
            attr_valid: timeout.as_secs(),
            attr_valid_nsec: timeout.subsec_nanos(),
            dummy: 0,
            attr,
        }
    }
}

impl From<(wire::Statx, Duration)> for wire::StatxOut {
    fn from((stat, timeout): (wire::Statx, Duration)) -> Self {
        let (attr_valid, attr_valid_nsec) = (timeout.as_secs(), timeout.subsec_nanos());
        Self {
            attr_valid,
            attr_valid_nsec,
            flags: 0,
            spare: [0; 2],
            stat,
        }
    }
}

impl From<Opened> for wire::OpenOut {
    fn from(opened: Opened) -> Self {
        Self {
            fh: opened.handle.0,
            open_flags: opened.flags,
            backing_id: 0,
        }
    }
}

/// Writes the entries of READDIR or READDIRPLUS.
pub(crate) struct Directory<'a, 'm> {
    body: &'a mut Writer<'m>,
    plus: bool,
}

impl<'a, 'm> Directory<'a, 'm> {
    /// Entries go to `body`, which is as long as the guest asked for.
    pub(crate) fn new(body: &'a mut Writer<'m>, plus: bool) -> Directory<'a, 'm> {
        Directory { body, plus }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.body.written() == 0
    }

    /// Length of the record of `name`, padding included.
    fn record(&self, name: &CStr) -> usize {
        let entry = if self.plus { size_of::<wire::EntryOut>() } else { 0 };
        wire::record_length(entry + size_of::<wire::Dirent>() + name.count_bytes())
    }

    /// Writes a record that fits.
    fn put(
        &mut self,
        entry: Option<&wire::EntryOut>,
        dirent: &wire::Dirent,
        name: &CStr,
    ) -> std::result::Result<(), CursorError> {
        let before = self.body.written();
        if let Some(entry) = entry {
            self.body.write_object(entry)?;
        }
        self.body.write_object(dirent)?;
        self.body.write_all(name.to_bytes())?;
        let length = self.body.written() - before;
        self.body.write_all(&[0; 8][..wire::record_length(length) - length])
    }
}

impl DirectorySink for Directory<'_, '_> {
    fn fits(&self, name: &CStr) -> bool {
        self.record(name) <= self.body.remaining()
    }

    fn add(&mut self, name: &CStr, inode: u64, kind: u32, offset: u64) -> bool {
        self.add_plus(name, inode, kind, offset, None)
    }

    fn add_plus(&mut self, name: &CStr, inode: u64, kind: u32, offset: u64, entry: Option<&Entry>) -> bool {
        if !self.fits(name) {
            return false;
        }
        // An entry without a node tells Linux to take the name alone.
        let entry = self
            .plus
            .then(|| entry.map_or_else(wire::EntryOut::default, wire::EntryOut::from));
        let dirent = wire::Dirent {
            ino: inode,
            off: offset,
            namelen: name.count_bytes() as u32,
            kind,
        };
        self.put(entry.as_ref(), &dirent, name).is_ok()
    }
}
