//! One FUSE session over any number of queues: `dispatch` takes a request from the readable part of a chain, calls the
//! file system, and leaves a reply in the writable part.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use guestmem::{Reader, Window, WindowError, Writer};

use crate::arguments::Buffer;
use crate::dax;
use crate::deferred::{Answer, DeferredRead, DeferredReads, OnBlock};
use crate::failure::{Failures, Places, Told};
use crate::fs::{Entry, Errno, FileSystem, Negotiated, NodeId, Result, XattrReply};
use crate::limits::{MAX_PAGES, MAX_WRITE};
use crate::operation::Operation;
use crate::reply::{Directory, NO_ROOM, Reply};
use crate::request::{self, Init, Request};
use crate::wire::{self, InitFlags, Opcode};

/// How many requests Linux may have under way in the background, and when it calls that congestion. The queue is the real
/// limit; the defaults of 12 and 9 would not fill it.
const MAX_BACKGROUND: u16 = u16::MAX;
const CONGESTION_THRESHOLD: u16 = MAX_BACKGROUND / 4 * 3;

/// What the server does itself, whatever the file system wants.
const BY_SERVER: InitFlags = InitFlags::INIT_EXT
    .union(InitFlags::MAX_PAGES)
    .union(InitFlags::BIG_WRITES);

/// What requests and replies are prepared for. Left out: locks, notifications, security contexts, splicing, and `.` and `..` in
/// LOOKUP (EXPORT_SUPPORT).
const SUPPORTED: InitFlags = BY_SERVER
    .union(InitFlags::ASYNC_READ)
    .union(InitFlags::ATOMIC_O_TRUNC)
    .union(InitFlags::DONT_MASK)
    .union(InitFlags::HAS_IOCTL_DIR)
    .union(InitFlags::AUTO_INVAL_DATA)
    .union(InitFlags::DO_READDIRPLUS)
    .union(InitFlags::READDIRPLUS_AUTO)
    .union(InitFlags::ASYNC_DIO)
    .union(InitFlags::WRITEBACK_CACHE)
    .union(InitFlags::NO_OPEN_SUPPORT)
    .union(InitFlags::PARALLEL_DIROPS)
    .union(InitFlags::HANDLE_KILLPRIV)
    .union(InitFlags::POSIX_ACL)
    .union(InitFlags::CACHE_SYMLINKS)
    .union(InitFlags::NO_OPENDIR_SUPPORT)
    .union(InitFlags::EXPLICIT_INVAL_DATA)
    .union(InitFlags::SUBMOUNTS)
    .union(InitFlags::HANDLE_KILLPRIV_V2)
    .union(InitFlags::SETXATTR_EXT)
    .union(InitFlags::CREATE_SUPP_GROUP)
    .union(InitFlags::ALLOW_IDMAP)
    .union(InitFlags::DIRECT_IO_ALLOW_MMAP)
    .union(InitFlags::NO_EXPORT_SUPPORT);

/// What there is besides if the device has a window.
const WITH_WINDOW: InitFlags = InitFlags::MAP_ALIGNMENT.union(InitFlags::HAS_INODE_DAX);

/// A FUSE server. All queues of a device share one, since they share one session.
#[derive(Debug)]
pub struct Server<F> {
    fs: F,
    /// The terms of the session, if there is one. Requests hold it for reading as long as they run, so that whoever ends
    /// the session waits for them.
    session: RwLock<Option<Negotiated>>,
    /// Reads of the session that nobody holds it for, since they are deferred.
    deferred: DeferredReads,
    /// Where the guest gets files mapped.
    window: RwLock<Option<Arc<dyn Window>>>,
    /// Who is told of requests that fail.
    told: Told,
}

impl<F: FileSystem> Server<F> {
    /// A server of `fs`, waiting for INIT.
    pub fn new(fs: F) -> Server<F> {
        Server {
            fs,
            session: RwLock::new(None),
            deferred: DeferredReads::default(),
            window: RwLock::new(None),
            told: Told::default(),
        }
    }

    /// Has `failures` be told of every errno that the guest is given from now on.
    pub fn tell(mut self, failures: Arc<dyn Failures>) -> Server<F> {
        self.told = Told::new(failures);
        self
    }

    /// Serves one request of a request queue. `on_block` says whether it may be deferred.
    ///
    /// Whatever the guest sends, it is answered: with an errno in the reply, or without a reply if the request is
    /// shorter than its header or `writer` than a header. May be called from several threads at once.
    pub fn dispatch(&self, reader: &mut Reader<'_>, writer: &mut Writer<'_>, on_block: OnBlock) -> Answer {
        self.receive(reader, writer, Queue::Request, on_block)
    }

    /// As [`dispatch`](Self::dispatch), for the high-priority queue, which carries FORGET, BATCH_FORGET and INTERRUPT only
    /// (VIRTIO 1.2 5.11.6.2). Never waits for a request of another queue.
    pub fn dispatch_high_priority(&self, reader: &mut Reader<'_>, writer: &mut Writer<'_>) -> Answer {
        self.receive(reader, writer, Queue::HighPriority, OnBlock::Wait)
    }

    /// Waits for the data of a read that [`dispatch`](Self::dispatch) deferred, and answers it. `writer` is all of the request's space for
    /// the reply, with what was written there before. Gives the bytes written, for the used ring.
    pub fn finish(&self, read: DeferredRead, writer: &mut Writer<'_>) -> u32 {
        let DeferredRead {
            of,
            done,
            wanted,
            rest,
            outstanding: _until_the_end,
        } = read;
        let Some(mut reply) = Reply::begin(of, writer, OnBlock::Wait) else {
            return 0;
        };
        let _watch = self.told.watch();
        let result = reply.pass(done).and_then(|()| reply.fill(wanted, rest));
        if let Err(errno) = result {
            self.told.report(&of, errno, || Places::of_node(&self.fs, &of));
        }
        reply.end(result)
    }

    /// Ends the session, as a device reset or a disconnect does: waits for the requests that run, and lets the file system
    /// drop all nodes and handles. The next request must be INIT.
    pub fn reset(&self) {
        let mut session = self.session_for_change();
        // The window counts as empty even if it could not be emptied now.
        let _of_a_guest_that_is_gone = self.clear_window(&session);
        self.end_session(&mut session);
    }

    /// The window into which the guest gets files mapped from now on, or that there is none (any more). A guest learns of it at
    /// its next INIT.
    pub fn set_window(&self, window: Option<Arc<dyn Window>>) {
        *self.window.write().unwrap_or_else(PoisonError::into_inner) = window;
    }

    fn window(&self) -> Option<Arc<dyn Window>> {
        self.window.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn receive(&self, reader: &mut Reader<'_>, writer: &mut Writer<'_>, queue: Queue, on_block: OnBlock) -> Answer {
        let length = reader.remaining();
        let Ok(header) = reader.read_object::<wire::InHeader>() else {
            tracing::debug!(length, "request shorter than its header");
            return Answer::Done(0);
        };
        let opcode = Opcode::from_number(header.opcode);
        let complete = header.len as usize == length;
        match opcode {
            // No request here waits long enough for an interrupt to pay; Linux sends none over virtio-fs.
            Some(Opcode::Interrupt) => return Answer::Done(0),
            Some(opcode @ (Opcode::Forget | Opcode::BatchForget)) => {
                if !complete || self.forget(opcode, &header, reader).is_err() {
                    tracing::debug!(?opcode, nodeid = header.nodeid, "malformed request");
                }
                return Answer::Done(0);
            }
            _ => {}
        }
        let Some(mut reply) = Reply::begin(header, writer, on_block) else {
            tracing::debug!(number = header.opcode, nodeid = header.nodeid, "no room for a reply");
            return Answer::Done(0);
        };
        let _watch = self.told.watch();
        let mut places = None;
        let result = match opcode {
            None if header.opcode == wire::INIT_OTHER_ENDIAN => {
                let refused = Errno::EPROTO.rule("the guest has the other byte order");
                self.told
                    .report(&wire::in_other_order(&header), refused, Places::default);
                return Answer::Done(reply.refuse_other_endian(refused));
            }
            _ if !complete => Err(Errno::EINVAL.rule("it is not as long as it says")),
            _ if queue == Queue::HighPriority => Err(Errno::EINVAL.rule("the high-priority queue is not for it")),
            None => Err(Errno::ENOSYS.rule("FUSE has no operation of that number")),
            Some(Opcode::Init) => self.init(reader, &mut reply),
            Some(Opcode::Destroy) => self.destroy(),
            Some(opcode) => self.serve(opcode, &header, reader, &mut reply, &mut places),
        };
        if result == Err(dax::PUT_OFF) {
            return Answer::PutOff;
        }
        if let Some(read) = reply.take_deferred() {
            return Answer::Deferred(read);
        }
        if let Err(errno) = result {
            self.told.report(&header, errno, || places.unwrap_or_default());
        }
        let result = match (opcode, result) {
            (Some(Opcode::Lookup), Err(Errno::ENOENT)) => self.absent(&mut reply),
            (_, result) => result,
        };
        Answer::Done(reply.end(result))
    }

    /// That there is no such name, for the guest to remember where it may.
    fn absent(&self, reply: &mut Reply<'_, '_>) -> Result<()> {
        let timeout = self.fs.absence_timeout();
        if timeout.is_zero() {
            return Err(Errno::ENOENT);
        }
        // fuse_lookup_name: node id 0 is ENOENT with a timeout.
        reply.put(&wire::EntryOut {
            entry_valid: timeout.as_secs(),
            entry_valid_nsec: timeout.subsec_nanos(),
            ..Default::default()
        })
    }

    /// Starts a session, in place of the one there may be.
    fn init(&self, reader: &mut Reader<'_>, reply: &mut Reply<'_, '_>) -> Result<()> {
        if reply.room() < size_of::<wire::InitOut>() {
            return Err(Errno::EINVAL.rule(NO_ROOM));
        }
        let init = Init::parse(reader)?;
        let mut session = self.session_for_change();
        self.clear_window(&session)?;
        self.end_session(&mut session);
        if init.major > wire::MAJOR {
            // The guest comes back with an INIT of our version.
            let version = wire::InitOut {
                major: wire::MAJOR,
                minor: wire::MINOR,
                ..Default::default()
            };
            return reply.put(&version);
        }
        if init.major < wire::MAJOR || init.minor < wire::MINOR_OLDEST {
            return Err(Errno::EPROTO.rule("the guest's version of FUSE is too old"));
        }
        let mut supported = SUPPORTED;
        supported.set(WITH_WINDOW, self.window().is_some());
        let offered = init.offered & supported;
        let flags = (self.fs.wants(offered) | BY_SERVER | InitFlags::MAP_ALIGNMENT) & offered;
        let terms = Negotiated {
            minor: init.minor.min(wire::MINOR),
            flags,
        };
        self.fs.init(terms)?;
        *session = Some(terms);
        let (flags, flags2) = flags.words();
        let answer = wire::InitOut {
            major: wire::MAJOR,
            minor: terms.minor,
            max_readahead: init.max_readahead,
            flags,
            flags2,
            max_background: MAX_BACKGROUND,
            congestion_threshold: CONGESTION_THRESHOLD,
            max_write: MAX_WRITE,
            time_gran: 1,
            max_pages: if terms.flags.contains(InitFlags::MAX_PAGES) {
                MAX_PAGES
            } else {
                0
            },
            map_alignment: if terms.flags.contains(InitFlags::MAP_ALIGNMENT) {
                dax::alignment().ilog2() as u16
            } else {
                0
            },
            ..Default::default()
        };
        reply.put(&answer)
    }

    fn destroy(&self) -> Result<()> {
        let mut session = self.session_for_change();
        if session.is_none() {
            return Err(no_session());
        }
        self.clear_window(&session)?;
        self.end_session(&mut session);
        Ok(())
    }

    /// Nothing of a session may show in the next. `PUT_OFF`: the session goes on.
    fn clear_window(&self, session: &Option<Negotiated>) -> Result<()> {
        match self.window().filter(|_| session.is_some()).map(|window| window.clear()) {
            Some(Err(error @ WindowError::CalledOff)) => Err(dax::errno(error)),
            // A front end that does not answer has lost its window.
            _ => Ok(()),
        }
    }

    fn end_session(&self, session: &mut Option<Negotiated>) {
        if session.take().is_some() {
            self.fs.destroy();
        }
    }

    /// Takes nodes off the guest's hands. Outside a session, or while one ends, there are none.
    fn forget(&self, opcode: Opcode, header: &wire::InHeader, reader: &mut Reader<'_>) -> Result<()> {
        let session = match self.session.try_read() {
            Ok(session) => session,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        if session.is_none() {
            return Ok(());
        }
        request::forgets(opcode, NodeId(header.nodeid), reader, |node, count| {
            if self.fs.forget(node, count)
                && let Some(window) = self.window()
            {
                window.release(node.0);
            }
        })
    }

    /// Serves a request within a session.
    fn serve(
        &self,
        opcode: Opcode,
        header: &wire::InHeader,
        reader: &mut Reader<'_>,
        reply: &mut Reply<'_, '_>,
        places: &mut Option<Places>,
    ) -> Result<()> {
        let session = self.session();
        let terms = session.as_ref().ok_or_else(no_session)?;
        // To a guest that asks all the same, the operations do not exist.
        if matches!(opcode, Opcode::Setupmapping | Opcode::Removemapping) && self.window().is_none() {
            return Err(no_window());
        }
        let mut buffer = Buffer::new();
        let request = match Request::parse(opcode, header, reader, &mut buffer, terms) {
            Ok(request) => request,
            Err(errno) => {
                *places = self.told.listens().then(|| Places::of_node(&self.fs, header));
                return Err(errno);
            }
        };
        let result = check_room(&request.operation, reply).and_then(|()| self.call(&request, reader, reply));
        // Within the session, which knows the nodes.
        if result.is_err() && self.told.listens() {
            *places = Some(Places::of_request(&self.fs, &request));
        }
        result
    }

    /// Calls the file system and writes what it answers.
    fn call(&self, request: &Request<'_>, data: &mut Reader<'_>, reply: &mut Reply<'_, '_>) -> Result<()> {
        let fs = &self.fs;
        let Request {
            node,
            ref caller,
            ref operation,
        } = *request;
        match *operation {
            Operation::Lookup { name } => put_entry(reply, &fs.lookup(caller, node, name)?),
            Operation::Getattr { handle } => reply.put(&wire::AttrOut::from(fs.getattr(caller, node, handle)?)),
            Operation::Statx { handle, flags, mask } => {
                reply.put(&wire::StatxOut::from(fs.statx(caller, node, handle, flags, mask)?))
            }
            Operation::Setattr { ref change } => reply.put(&wire::AttrOut::from(fs.setattr(caller, node, change)?)),
            Operation::Readlink => {
                let target = fs.readlink(caller, node)?;
                reply.put_bytes(&target, Errno::ENAMETOOLONG)
            }
            Operation::Symlink { name, target } => put_entry(reply, &fs.symlink(caller, node, name, target)?),
            Operation::Mknod { name, ref create } => put_entry(reply, &fs.mknod(caller, node, name, create)?),
            Operation::Mkdir { name, ref create } => put_entry(reply, &fs.mkdir(caller, node, name, create)?),
            Operation::Unlink { name } => fs.unlink(caller, node, name),
            Operation::Rmdir { name } => fs.rmdir(caller, node, name),
            Operation::Rename { name, to, flags } => fs.rename(caller, (node, name), to, flags),
            Operation::Link { node: old, name } => put_entry(reply, &fs.link(caller, old, node, name)?),
            Operation::Open { flags, kill_suid_gid } => {
                reply.put(&wire::OpenOut::from(fs.open(caller, node, flags, kill_suid_gid)?))
            }
            Operation::Create {
                name,
                ref create,
                kill_suid_gid,
            } => {
                let (entry, opened) = fs.create(caller, node, name, create, kill_suid_gid)?;
                put_entry(reply, &entry)?;
                reply.put(&wire::OpenOut::from(opened))
            }
            Operation::Tmpfile { ref create } => {
                let (entry, opened) = fs.tmpfile(caller, node, create)?;
                put_entry(reply, &entry)?;
                reply.put(&wire::OpenOut::from(opened))
            }
            Operation::Read { handle, offset, size } if reply.may_defer() => reply.fill_or_defer(size, |out| {
                let rest = fs.read_at_once(node, handle, offset, size, out)?;
                Ok(rest.map(|rest| (rest, self.deferred.add())))
            }),
            Operation::Read { handle, offset, size } => {
                reply.fill(size, |out| fs.read(node, handle, offset, size, out))
            }
            Operation::Write { ref to } => {
                let size = fs.write(caller, node, to, data)?;
                reply.put(&wire::WriteOut { size, padding: 0 })
            }
            Operation::Flush { handle } => fs.flush(node, handle),
            Operation::Release { handle } => fs.release(node, handle),
            Operation::Fsync { handle, data_only } => fs.fsync(node, handle, data_only),
            Operation::Syncfs => fs.syncfs(node),
            Operation::Opendir { flags } => reply.put(&wire::OpenOut::from(fs.opendir(caller, node, flags)?)),
            Operation::Readdir {
                handle,
                offset,
                size,
                plus,
            } => reply.fill(size, |out| {
                let mut sink = Directory::new(out, plus);
                match fs.readdir(caller, node, handle, offset, plus, &mut sink) {
                    // The guest holds lookup counts of the entries that are there already; it meets the error when it
                    // reads on behind them.
                    Err(_) if !sink.is_empty() => Ok(()),
                    result => result,
                }
            }),
            Operation::Releasedir { handle } => fs.releasedir(node, handle),
            Operation::Fsyncdir { handle, data_only } => fs.fsyncdir(node, handle, data_only),
            Operation::Statfs => reply.put(&fs.statfs(node)?),
            Operation::Access { mask } => fs.access(caller, node, mask),
            Operation::Setxattr {
                name,
                value,
                flags,
                kill_sgid,
            } => fs.setxattr(caller, node, name, value, flags, kill_sgid),
            Operation::Getxattr { name, size } => put_xattr(reply, size, fs.getxattr(caller, node, name, size)?),
            Operation::Listxattr { size } => put_xattr(reply, size, fs.listxattr(caller, node, size)?),
            Operation::Removexattr { name } => fs.removexattr(caller, node, name),
            Operation::Fallocate {
                handle,
                mode,
                offset,
                len,
            } => fs.fallocate(caller, node, handle, mode, offset, len),
            Operation::Lseek { handle, offset, whence } => {
                let offset = fs.lseek(node, handle, offset, whence)?;
                reply.put(&wire::LseekOut { offset })
            }
            Operation::CopyFileRange { ref range, wide: true } => {
                let bytes_copied = fs.copy_file_range(caller, range)?;
                reply.put(&wire::CopyFileRangeOut { bytes_copied })
            }
            Operation::CopyFileRange { ref range, wide: false } => {
                let size =
                    u32::try_from(fs.copy_file_range(caller, range)?).map_err(|_| Errno::EIO.rule(FALSE_COUNT))?;
                reply.put(&wire::WriteOut { size, padding: 0 })
            }
            Operation::Ioctl {
                handle,
                command,
                input,
                out_size,
            } => {
                let output = fs.ioctl(caller, node, handle, command, input, out_size)?;
                if output.len() > out_size as usize {
                    return Err(Errno::EIO.rule(FALSE_COUNT));
                }
                reply.put(&wire::IoctlOut::default())?;
                reply.put_bytes(&output, Errno::EINVAL)
            }
            Operation::Setupmapping { ref setup } => {
                let window = self.window().ok_or_else(no_window)?;
                dax::set_up(&*window, node, setup, |write| fs.open_for_mapping(node, write))
            }
            Operation::Removemapping { ranges } => dax::remove(&*self.window().ok_or_else(no_window)?, ranges),
        }
    }

    fn session(&self) -> RwLockReadGuard<'_, Option<Negotiated>> {
        self.session.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for every request that runs or is deferred, and keeps others out. A file system that panicked in INIT or DESTROY left no
    /// session behind, so the value is sound all the same.
    fn session_for_change(&self) -> RwLockWriteGuard<'_, Option<Negotiated>> {
        let session = self.session.write().unwrap_or_else(PoisonError::into_inner);
        self.deferred.wait();
        session
    }
}

/// A rule.
const FALSE_COUNT: &str = "the file system gave more than it was asked for";

fn no_session() -> Errno {
    Errno::ENOTCONN.rule("there is no session: the guest has not sent INIT, or has sent DESTROY")
}

fn no_window() -> Errno {
    Errno::ENOSYS.rule("the device has no window (--dax)")
}

/// Where a request came from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Queue {
    HighPriority,
    Request,
}

/// Refuses, before anything is done, what could not be answered.
fn check_room(operation: &Operation<'_>, reply: &Reply<'_, '_>) -> Result<()> {
    match operation {
        _ if operation.reply_length() <= reply.room() => Ok(()),
        Operation::Getxattr { .. } | Operation::Listxattr { .. } => Err(Errno::ERANGE.rule(NO_ROOM)),
        _ => Err(Errno::EINVAL.rule(NO_ROOM)),
    }
}

fn put_entry(reply: &mut Reply<'_, '_>, entry: &Entry) -> Result<()> {
    reply.put(&wire::EntryOut::from(entry))
}

/// Answers GETXATTR and LISTXATTR: with the length alone if the guest asked with `size` 0.
fn put_xattr(reply: &mut Reply<'_, '_>, size: u32, answer: XattrReply) -> Result<()> {
    let length = match &answer {
        XattrReply::Value(value) => u32::try_from(value.len()).map_err(|_| Errno::E2BIG.rule(FALSE_COUNT))?,
        XattrReply::Size(length) => *length,
    };
    match answer {
        _ if size == 0 => reply.put(&wire::GetxattrOut {
            size: length,
            padding: 0,
        }),
        XattrReply::Value(value) if length <= size => reply.put_bytes(&value, Errno::ERANGE),
        _ => Err(Errno::ERANGE.rule("the value is longer than the guest asked for")),
    }
}
