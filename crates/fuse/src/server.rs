//! One FUSE session over any number of queues: `dispatch` takes a request from the readable part of a chain, calls
//! the file system, and writes a reply to the writable part.

mod negotiation;
mod operations;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use guestmem::{Reader, Window, WindowError, Writer};

use crate::dax;
use crate::deferred::{Answer, DeferredRead, DeferredReads, OnBlock};
use crate::failure::{Failures, Places, Told};
use crate::fs::{Errno, FileSystem, Negotiated, NodeId, Result};
use crate::reply::{NO_ROOM, Reply};
use crate::request::{self, Init};
use crate::wire::{self, Opcode};

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
            return reply.put(&negotiation::our_version());
        }
        if init.major < wire::MAJOR || init.minor < wire::MINOR_OLDEST {
            return Err(Errno::EPROTO.rule("the guest's version of FUSE is too old"));
        }
        let terms = negotiation::terms(&init, self.window().is_some(), |offered| self.fs.wants(offered));
        self.fs.init(terms)?;
        *session = Some(terms);
        reply.put(&negotiation::answer(&init, terms))
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

fn no_session() -> Errno {
    Errno::ENOTCONN.rule("there is no session: the guest has not sent INIT, or has sent DESTROY")
}

/// Where a request came from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Queue {
    HighPriority,
    Request,
}
