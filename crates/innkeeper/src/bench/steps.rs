//! The messages of each workload's operation, in the order in which a guest's kernel sends them.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use driver::Slot;
use driver::fs::{field_u32, field_u64};
use rustix::fs::{Advice, fadvise};

use super::error::Error;
use super::message::{Message, Reply};
use super::random::Random;
use super::scratch::{FILE_BYTES, file_name, word_at};
use super::session::{MEBIBYTE, Manners, Nodes, Open};
use super::workload::Kind;

/// FOPEN_NOFLUSH (`fuse.h`).
const NO_FLUSH: u32 = 1 << 5;
/// What Linux 6.16 reads of a directory at a time for the C library.
const DIRECTORY_BYTES: u32 = 32 << 10;
const PAGE: u32 = 4096;
/// What Linux reads ahead by default, in the guest and on the host.
const READ_AHEAD: u32 = 128 << 10;
/// `fuse_entry_out` in front of each `fuse_dirent` of READDIRPLUS, and the parts of the latter.
const ENTRY: usize = 128;
const DIRENT: usize = 24;

/// What comes after a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The message that was written.
    Send,
    /// The operation is complete and counts so much, or 0 where another one is measured.
    Done(u64),
    /// The same, and the guest forgets this node.
    DoneAndForget(u64),
}

/// One operation after another, as a chain of messages.
pub(super) trait Steps: Send {
    /// Writes the first message of an operation.
    fn first(&mut self, slot: &mut Slot, message: &mut Message) -> Result<(), Error>;

    /// Looks at a reply and writes the message that follows it.
    fn next(&mut self, reply: &Reply, slot: &mut Slot, message: &mut Message) -> Result<Next, Error>;
}

/// What the operations of one lane have in common.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) nodes: Nodes,
    /// Bytes of the data file and of the sink.
    pub(super) data: u64,
    /// The cold file on the host, to have it dropped from the page cache.
    cold: File,
    /// Counts what takes place after place of a file.
    cursor: AtomicU64,
}

impl Common {
    pub(super) fn new(nodes: Nodes, data: u64, cold: File) -> Arc<Self> {
        Arc::new(Self {
            nodes,
            data,
            cold,
            cursor: AtomicU64::new(0),
        })
    }

    /// Has the page cache let go of the cold file, to be read from its end again.
    pub(super) fn cool(&self) -> Result<(), Error> {
        self.cursor.store(0, Relaxed);
        self.drop_cold_pages()
    }

    /// All of them: large folios go as a whole or not at all. Later reads make small ones.
    fn drop_cold_pages(&self) -> Result<(), Error> {
        fadvise(&self.cold, 0, None, Advice::DontNeed).map_err(Error::system("drop pages"))
    }
}

/// The steps of seat `seat`, whose number differs from those of all other seats of the daemon; `first`: in its lane.
pub(super) fn steps(kind: Kind, common: &Arc<Common>, seat: u64, first: bool) -> Box<dyn Steps> {
    let common = Arc::clone(common);
    let random = Random::new(seat);
    match kind {
        Kind::Getattr => Box::new(Getattr { common, random }),
        Kind::Mixed if first => Box::new(Getattr { common, random }),
        Kind::Mixed => Box::new(ColdRead { common }),
        Kind::Lookup => Box::new(Lookup::new(common, random, 0)),
        Kind::LookupMiss => Box::new(Lookup::new(common, random, libc::ENOENT)),
        Kind::OpenReadClose => Box::new(OpenReadClose {
            common,
            random,
            state: FileState::default(),
        }),
        Kind::CreateWriteUnlink => Box::new(CreateWriteUnlink {
            common,
            name: format!("c{seat:03}-{:010}", 0).into_bytes(),
            count: 0,
            state: FileState::default(),
        }),
        Kind::Readdirplus => Box::new(Readdirplus {
            common,
            handle: 0,
            offset: 0,
            entries: 0,
            phase: Phase::Opening,
            bytes: vec![0; DIRECTORY_BYTES as usize],
        }),
        Kind::Read4k => Box::new(Read::new(common, random, PAGE)),
        Kind::Read1m => Box::new(Read::new(common, random, MEBIBYTE)),
        Kind::Write4k => Box::new(Write::new(common, random, PAGE)),
        Kind::Write1m => Box::new(Write::new(common, random, MEBIBYTE)),
    }
}

struct Getattr {
    common: Arc<Common>,
    random: Random,
}

impl Steps for Getattr {
    fn first(&mut self, _: &mut Slot, message: &mut Message) -> Result<(), Error> {
        message.getattr(*self.random.of(&self.common.nodes.files));
        Ok(())
    }

    fn next(&mut self, reply: &Reply, _: &mut Slot, _: &mut Message) -> Result<Next, Error> {
        reply.expect_success("GETATTR")?;
        Ok(Next::Done(1))
    }
}

struct Lookup {
    common: Arc<Common>,
    random: Random,
    names: Vec<String>,
    /// The errno that is expected.
    errno: i32,
}

impl Lookup {
    fn new(common: Arc<Common>, random: Random, errno: i32) -> Self {
        let count = common.nodes.files.len() as u32;
        // There are as many files as names from 0 on; the names behind them are missing.
        let first = if errno == 0 { 0 } else { count };
        Self {
            names: (first..first + count).map(file_name).collect(),
            common,
            random,
            errno,
        }
    }
}

impl Steps for Lookup {
    fn first(&mut self, _: &mut Slot, message: &mut Message) -> Result<(), Error> {
        let name = self.random.of(&self.names);
        message.lookup(self.common.nodes.files_directory, name.as_bytes());
        Ok(())
    }

    fn next(&mut self, reply: &Reply, _: &mut Slot, _: &mut Message) -> Result<Next, Error> {
        // A missing name may also be told by node 0, which the guest may remember (FUSE 7.4).
        let found = reply.error == 0 && reply.node() != 0;
        if found == (self.errno == 0) {
            return Ok(Next::Done(1));
        }
        reply.expect_success("LOOKUP")?;
        Err(Error::Contents { what: "LOOKUP" })
    }
}

/// Where an operation on a file stands.
#[derive(Clone, Copy, Debug, Default)]
struct FileState {
    phase: Phase,
    file: Open,
    flush: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Opening,
    Transferring,
    Flushing,
    Releasing,
    Unlinking,
}

impl FileState {
    /// Writes the message that follows `phase` when a file is closed. False if it is closed already.
    fn close(&mut self, manners: Manners, message: &mut Message) -> bool {
        if self.phase == Phase::Transferring && self.flush {
            self.phase = Phase::Flushing;
            message.flush(self.file.node, self.file.handle);
            return true;
        }
        if matches!(self.phase, Phase::Transferring | Phase::Flushing) && !manners.no_open {
            self.phase = Phase::Releasing;
            message.release(self.file.node, self.file.handle);
            return true;
        }
        false
    }
}

struct OpenReadClose {
    common: Arc<Common>,
    random: Random,
    state: FileState,
}

impl Steps for OpenReadClose {
    fn first(&mut self, _: &mut Slot, message: &mut Message) -> Result<(), Error> {
        let node = *self.random.of(&self.common.nodes.files);
        let manners = self.common.nodes.manners;
        self.state = FileState {
            phase: Phase::Opening,
            file: Open { node, handle: 0 },
            flush: !manners.no_flush,
        };
        if manners.no_open {
            self.state.phase = Phase::Transferring;
            message.read(node, 0, 0, FILE_BYTES);
        } else {
            message.open(node, libc::O_RDONLY.cast_unsigned());
        }
        Ok(())
    }

    fn next(&mut self, reply: &Reply, _: &mut Slot, message: &mut Message) -> Result<Next, Error> {
        reply.expect_success("OPEN, READ, FLUSH or RELEASE")?;
        let state = &mut self.state;
        match state.phase {
            Phase::Opening => {
                state.file.handle = reply.handle();
                state.flush &= reply.open_flags() & NO_FLUSH == 0;
                state.phase = Phase::Transferring;
                message.read(state.file.node, state.file.handle, 0, FILE_BYTES);
                return Ok(Next::Send);
            }
            Phase::Transferring if reply.length != FILE_BYTES => return Err(Error::Contents { what: "READ" }),
            _ => {}
        }
        let more = state.close(self.common.nodes.manners, message);
        Ok(if more { Next::Send } else { Next::Done(1) })
    }
}

struct CreateWriteUnlink {
    common: Arc<Common>,
    name: Vec<u8>,
    count: u64,
    state: FileState,
}

impl Steps for CreateWriteUnlink {
    fn first(&mut self, _: &mut Slot, message: &mut Message) -> Result<(), Error> {
        self.count += 1;
        number(&mut self.name, self.count);
        self.state = FileState::default();
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
        message.create(
            self.common.nodes.own,
            &self.name,
            flags.cast_unsigned(),
            libc::S_IFREG | 0o644,
        );
        Ok(())
    }

    fn next(&mut self, reply: &Reply, _: &mut Slot, message: &mut Message) -> Result<Next, Error> {
        reply.expect_success("CREATE, WRITE, FLUSH, RELEASE or UNLINK")?;
        let (nodes, state) = (&self.common.nodes, &mut self.state);
        match state.phase {
            Phase::Opening => {
                *state = FileState {
                    phase: Phase::Transferring,
                    file: Open {
                        node: reply.node(),
                        handle: reply.created_handle(),
                    },
                    flush: !nodes.manners.no_flush && reply.created_flags() & NO_FLUSH == 0,
                };
                message.write(state.file.node, state.file.handle, 0, PAGE);
                return Ok(Next::Send);
            }
            Phase::Transferring if reply.wrote() != PAGE => return Err(Error::Contents { what: "WRITE" }),
            Phase::Unlinking => return Ok(Next::DoneAndForget(state.file.node)),
            _ => {}
        }
        if !state.close(nodes.manners, message) {
            state.phase = Phase::Unlinking;
            message.unlink(nodes.own, &self.name);
        }
        Ok(Next::Send)
    }
}

/// Writes the last ten digits anew.
fn number(name: &mut [u8], mut number: u64) {
    for digit in name.iter_mut().rev().take(10) {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

struct Readdirplus {
    common: Arc<Common>,
    handle: u64,
    offset: u64,
    entries: u64,
    phase: Phase,
    bytes: Vec<u8>,
}

impl Readdirplus {
    fn read(&mut self, message: &mut Message) {
        self.phase = Phase::Transferring;
        message.readdirplus(
            self.common.nodes.entries_directory,
            self.handle,
            self.offset,
            DIRECTORY_BYTES,
        );
    }

    /// Counts the entries and finds where the next message goes on, as the kernel does.
    fn walk(&mut self, length: usize) -> Result<(), Error> {
        let wrong = Error::Contents { what: "READDIRPLUS" };
        let mut rest = self.bytes.get(..length).ok_or(wrong)?;
        while rest.len() >= ENTRY + DIRENT {
            self.offset = field_u64(rest, ENTRY + 8);
            let name = field_u32(rest, ENTRY + 16) as usize;
            self.entries += 1;
            rest = rest
                .get((ENTRY + DIRENT + name).next_multiple_of(8)..)
                .unwrap_or_default();
        }
        Ok(())
    }
}

impl Steps for Readdirplus {
    fn first(&mut self, _: &mut Slot, message: &mut Message) -> Result<(), Error> {
        (self.handle, self.offset, self.entries) = (0, 0, 0);
        if self.common.nodes.manners.no_opendir {
            self.read(message);
        } else {
            self.phase = Phase::Opening;
            message.opendir(self.common.nodes.entries_directory);
        }
        Ok(())
    }

    fn next(&mut self, reply: &Reply, slot: &mut Slot, message: &mut Message) -> Result<Next, Error> {
        reply.expect_success("OPENDIR, READDIRPLUS or RELEASEDIR")?;
        match self.phase {
            Phase::Opening => {
                self.handle = reply.handle();
                self.read(message);
                Ok(Next::Send)
            }
            Phase::Transferring if reply.length > 0 => {
                let length = (reply.length as usize).min(self.bytes.len());
                slot.read_data(&mut self.bytes[..length])?;
                self.walk(length)?;
                self.read(message);
                Ok(Next::Send)
            }
            Phase::Transferring if !self.common.nodes.manners.no_opendir => {
                self.phase = Phase::Releasing;
                message.releasedir(self.common.nodes.entries_directory, self.handle);
                Ok(Next::Send)
            }
            _ => Ok(Next::Done(self.entries)),
        }
    }
}

/// A page at random places, or larger pieces one after another.
struct Read {
    common: Arc<Common>,
    random: Random,
    size: u32,
    offset: u64,
}

impl Read {
    fn new(common: Arc<Common>, random: Random, size: u32) -> Self {
        Self {
            common,
            random,
            size,
            offset: 0,
        }
    }
}

impl Steps for Read {
    fn first(&mut self, _: &mut Slot, message: &mut Message) -> Result<(), Error> {
        self.offset = place(&self.common, &mut self.random, self.size);
        let Open { node, handle } = self.common.nodes.data;
        message.read(node, handle, self.offset, self.size);
        Ok(())
    }

    fn next(&mut self, reply: &Reply, slot: &mut Slot, _: &mut Message) -> Result<Next, Error> {
        reply.expect_success("READ")?;
        let mut word = [0; 8];
        slot.read_data(&mut word)?;
        if reply.length != self.size || u64::from_le_bytes(word) != word_at(self.offset) {
            return Err(Error::Contents { what: "READ" });
        }
        Ok(Next::Done(counted(self.size)))
    }
}

/// As much as a guest reads ahead, at a place that is not in the page cache.
///
/// From the end of the file to its start, with gaps: so that the host reads nothing ahead. The page cache lets go of all of it once a
/// pass; to have it let go of each place by itself would take the driving thread as long as the daemon is to take for a GETATTR.
struct ColdRead {
    common: Arc<Common>,
}

impl Steps for ColdRead {
    fn first(&mut self, _: &mut Slot, message: &mut Message) -> Result<(), Error> {
        let apart = 2 * u64::from(READ_AHEAD);
        let places = self.common.data / apart;
        let place = self.common.cursor.fetch_add(1, Relaxed) % places;
        if place == 0 {
            self.common.drop_cold_pages()?;
        }
        let Open { node, handle } = self.common.nodes.cold;
        message.read(node, handle, (places - 1 - place) * apart, READ_AHEAD);
        Ok(())
    }

    fn next(&mut self, reply: &Reply, _: &mut Slot, _: &mut Message) -> Result<Next, Error> {
        reply.expect_success("READ")?;
        Ok(Next::Done(0))
    }
}

struct Write {
    common: Arc<Common>,
    random: Random,
    size: u32,
}

impl Write {
    fn new(common: Arc<Common>, random: Random, size: u32) -> Self {
        Self { common, random, size }
    }
}

impl Steps for Write {
    fn first(&mut self, _: &mut Slot, message: &mut Message) -> Result<(), Error> {
        let offset = place(&self.common, &mut self.random, self.size);
        let Open { node, handle } = self.common.nodes.sink;
        message.write(node, handle, offset, self.size);
        Ok(())
    }

    fn next(&mut self, reply: &Reply, _: &mut Slot, _: &mut Message) -> Result<Next, Error> {
        reply.expect_success("WRITE")?;
        if reply.wrote() != self.size {
            return Err(Error::Contents { what: "WRITE" });
        }
        Ok(Next::Done(counted(self.size)))
    }
}

/// Where the next access goes.
fn place(common: &Common, random: &mut Random, size: u32) -> u64 {
    let pieces = common.data / u64::from(size);
    let piece = if size == PAGE {
        random.below(pieces)
    } else {
        common.cursor.fetch_add(1, Relaxed) % pieces
    };
    piece * u64::from(size)
}

/// Pages are counted by operations, larger pieces by bytes.
fn counted(size: u32) -> u64 {
    if size == PAGE { 1 } else { size.into() }
}
