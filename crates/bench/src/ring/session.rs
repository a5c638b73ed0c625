//! A FUSE session with one daemon: the state of a guest's kernel after `mount`, without the guest.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use driver::fs::{OUT_HEADER, ROOT, Request, Requests, field_u32, field_u64, opcode, reply};
use driver::{Guest, Options, Queue, Slot};
use rustix::process::{getegid, geteuid};
use virtqueue::features::{EVENT_IDX, INDIRECT_DESC, RING_PACKED};

use crate::error::Error;
use crate::ring::message::Message;
use crate::scratch::{COLD, DATA, ENTRIES, FILES, KNOWN, KNOWN_EACH, SINK, Sizes, file_name, own_directory};

/// The largest READ and WRITE, as much as Linux sends.
pub(crate) const MEBIBYTE: u32 = 1 << 20;
/// The most requests on their way in a queue.
pub(crate) const DEPTH_MOST: u16 = 64;
/// Room for the tables of all messages that a slot may ever send.
const SHAPES: u64 = 16;
/// FORGETs on their way.
const FORGETS: u16 = 64;
const TIMEOUT: Duration = Duration::from_secs(30);

/// What Linux 6.12 asks for on virtio-fs, DAX and SELinux contexts and opens without a message apart: bits 0, 3, 5, 6, 12 to 15, 18, 20 to 23, 25, 27 to 30, 34 to 36,
/// 38 to 40 (`fuse_send_init`).
const INIT_FLAGS: u64 = 0x01dc_7bf6_f069;

/// How to connect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    /// Request queues, if the daemon has as many.
    pub(crate) queues: u16,
    /// Packed rings, if the daemon has them.
    pub(crate) packed: bool,
}

/// The nodes and handles that the workloads use.
#[derive(Clone, Debug)]
pub(crate) struct Nodes {
    pub(crate) files_directory: u64,
    pub(crate) files: Vec<u64>,
    pub(crate) entries_directory: u64,
    pub(crate) data: Open,
    pub(crate) cold: Open,
    pub(crate) own: u64,
    pub(crate) sink: Open,
    pub(crate) manners: Manners,
}

/// What the daemon does not want to be asked, as a kernel remembers it after the first ENOSYS.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manners {
    /// Files need no OPEN and RELEASE (FUSE_NO_OPEN_SUPPORT).
    pub(crate) no_open: bool,
    /// Directories need no OPENDIR and RELEASEDIR.
    pub(crate) no_opendir: bool,
    /// No FLUSH is needed when a file is closed.
    pub(crate) no_flush: bool,
}

/// A node that is open.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Open {
    pub(crate) node: u64,
    pub(crate) handle: u64,
}

/// One request queue and the places for its messages.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) queue: Queue,
    pub(crate) slots: Vec<Slot>,
    /// Number of the slot of each ticket.
    pub(crate) owners: Vec<usize>,
}

/// The queue for FORGET (VIRTIO 1.2 5.11.2), shared by all lanes.
#[derive(Debug)]
pub(crate) struct Forgets(Mutex<Urgent>);

#[derive(Debug)]
struct Urgent {
    queue: Queue,
    message: Message,
    free: Vec<Slot>,
    posted: Vec<Option<Slot>>,
}

/// Connected and mounted.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) lanes: Vec<Lane>,
    pub(crate) forgets: Forgets,
    pub(crate) nodes: Nodes,
    pub(crate) packed: bool,
    requests: Requests,
    /// Keeps the connection.
    _guest: Guest,
}

impl Session {
    /// Connects, mounts, and looks up what the workloads need. `index` is the number of the contender's own directory.
    pub(crate) fn mount(stream: UnixStream, connection: Connection, sizes: Sizes, index: usize) -> Result<Self, Error> {
        let packed = if connection.packed { RING_PACKED } else { 0 };
        let mut guest = Guest::attach(
            stream,
            &Options {
                queues: 1 + connection.queues,
                fewer_queues: true,
                // Linux wants a descriptor a page, and QEMU allows 1024.
                queue_size: 1024,
                // What Linux uses, where it is offered.
                features: INDIRECT_DESC | EVENT_IDX | packed,
                places: DEPTH_MOST + 1,
                place_size: Slot::place_size(MEBIBYTE, SHAPES),
                timeout: TIMEOUT,
                ..Options::default()
            },
        )?;
        let packed = guest.features() & RING_PACKED != 0;
        let mut queues = std::mem::take(&mut guest.queues).into_iter();
        let urgent = queues.next().ok_or(Error::NoQueue)?;
        let mut lanes = queues.map(Lane::new).collect::<Result<Vec<_>, Error>>()?;
        let first = lanes.first_mut().ok_or(Error::NoQueue)?;
        let mut requests = Requests::new(geteuid().as_raw(), getegid().as_raw());
        let nodes = Asking {
            queue: &mut first.queue,
            requests: &mut requests,
        }
        .look_up(sizes, index)?;
        Ok(Self {
            lanes,
            forgets: Forgets::new(urgent)?,
            nodes,
            packed,
            requests,
            _guest: guest,
        })
    }

    /// Looks up all files that are only to be known, one after another, and forgets none.
    pub(crate) fn look_up_known(&mut self, sizes: Sizes, stop: &AtomicBool) -> Result<(), Error> {
        let lane = self.lanes.first_mut().ok_or(Error::NoQueue)?;
        let mut asking = Asking {
            queue: &mut lane.queue,
            requests: &mut self.requests,
        };
        let known = asking.lookup(ROOT, KNOWN)?;
        let mut directory = known;
        for index in 0..sizes.known {
            if index % KNOWN_EACH == 0 {
                directory = asking.lookup(known, &file_name(index / KNOWN_EACH))?;
            }
            asking.lookup(directory, &file_name(index))?;
            if stop.load(Relaxed) {
                return Err(Error::Interrupted);
            }
        }
        Ok(())
    }
}

impl Lane {
    fn new(mut queue: Queue) -> Result<Self, Error> {
        let slots = (0..DEPTH_MOST)
            .map(|_| queue.slot(MEBIBYTE))
            .collect::<Result<_, _>>()?;
        let owners = vec![0; queue.config().size.into()];
        Ok(Self { queue, slots, owners })
    }
}

impl Forgets {
    fn new(mut queue: Queue) -> Result<Self, Error> {
        let free = (0..FORGETS).map(|_| queue.slot(0)).collect::<Result<_, _>>()?;
        let posted = (0..queue.config().size).map(|_| None).collect();
        Ok(Self(Mutex::new(Urgent {
            queue,
            message: Message::new(0),
            free,
            posted,
        })))
    }

    /// Sends a FORGET; nobody waits for it.
    pub(crate) fn send(&self, node: u64) -> Result<(), Error> {
        let mut urgent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        urgent.send(node)
    }
}

impl Urgent {
    fn send(&mut self, node: u64) -> Result<(), Error> {
        while let Some((ticket, _)) = self.queue.used()? {
            self.take_back(ticket);
        }
        while self.free.is_empty() {
            let (ticket, _) = self.queue.wait_used()?;
            self.take_back(ticket);
        }
        let Some(mut slot) = self.free.pop() else { return Ok(()) };
        self.message.forget(node, 1);
        let ticket = self
            .queue
            .post_slot(&mut slot, self.message.shape(), self.message.bytes())?;
        self.posted[usize::from(ticket.0)] = Some(slot);
        Ok(self.queue.kick_if_wanted()?)
    }

    fn take_back(&mut self, ticket: driver::Ticket) {
        self.free.extend(self.posted[usize::from(ticket.0)].take());
    }
}

/// Messages that are not measured, without regard to speed.
struct Asking<'a> {
    queue: &'a mut Queue,
    requests: &'a mut Requests,
}

impl Asking<'_> {
    fn look_up(&mut self, sizes: Sizes, index: usize) -> Result<Nodes, Error> {
        let init = self.requests.init(40, INIT_FLAGS);
        let answer = self.ask("INIT", &init)?;
        // `max_write` of fuse_init_out. All daemons that are compared must be able to do the same.
        let max_write = field_u32(&answer, 20);
        if max_write < MEBIBYTE {
            return Err(Error::SmallWrites { max_write });
        }
        let files_directory = self.lookup(ROOT, FILES)?;
        let files = (0..sizes.files)
            .map(|file| self.lookup(files_directory, &file_name(file)))
            .collect::<Result<_, _>>()?;
        let entries_directory = self.lookup(ROOT, ENTRIES)?;
        let (data, no_open) = self.open(ROOT, DATA, libc::O_RDONLY)?;
        let (cold, _) = self.open(ROOT, COLD, libc::O_RDONLY)?;
        let own = self.lookup(ROOT, &own_directory(index))?;
        let (sink, _) = self.open(own, SINK, libc::O_RDWR)?;
        Ok(Nodes {
            files_directory,
            files,
            entries_directory,
            data,
            cold,
            own,
            sink,
            manners: Manners {
                no_open,
                no_opendir: self.without_opendir(entries_directory)?,
                no_flush: self.without_flush(sink)?,
            },
        })
    }

    fn lookup(&mut self, parent: u64, name: &str) -> Result<u64, Error> {
        let request = self.requests.lookup(parent, name.as_bytes());
        self.ask("LOOKUP", &request).map(|entry| field_u64(&entry, 0))
    }

    /// The file, open, and whether it is open without having been opened.
    fn open(&mut self, parent: u64, name: &str, flags: i32) -> Result<(Open, bool), Error> {
        let node = self.lookup(parent, name)?;
        let request = self.requests.open(node, flags.cast_unsigned());
        let answer = self.ask_or_learn("OPEN", &request)?;
        let handle = answer.as_ref().map_or(0, |answer| field_u64(answer, 0));
        Ok((Open { node, handle }, answer.is_none()))
    }

    fn without_opendir(&mut self, node: u64) -> Result<bool, Error> {
        let request = self.requests.opendir(node);
        let Some(answer) = self.ask_or_learn("OPENDIR", &request)? else {
            return Ok(true);
        };
        let release = handle_in(field_u64(&answer, 0));
        let request = self
            .requests
            .raw(opcode::RELEASEDIR, node, &[&release], OUT_HEADER as u32);
        self.ask("RELEASEDIR", &request).map(|_| false)
    }

    fn without_flush(&mut self, file: Open) -> Result<bool, Error> {
        let body = handle_in(file.handle);
        let request = self.requests.raw(opcode::FLUSH, file.node, &[&body], OUT_HEADER as u32);
        Ok(self.ask_or_learn("FLUSH", &request)?.is_none())
    }

    fn ask(&mut self, what: &'static str, request: &Request) -> Result<Vec<u8>, Error> {
        self.ask_or_learn(what, request)?.ok_or(Error::Refused {
            what,
            source: std::io::Error::from_raw_os_error(libc::ENOSYS),
        })
    }

    /// The body of the reply; `None` for ENOSYS.
    fn ask_or_learn(&mut self, what: &'static str, request: &Request) -> Result<Option<Vec<u8>>, Error> {
        let (written, bytes) = self.queue.call(&request.readable, request.reply_space)?;
        match reply(request, written, &bytes) {
            Ok(Ok(body)) => Ok(Some(body.to_vec())),
            Ok(Err(libc::ENOSYS)) => Ok(None),
            Ok(Err(errno)) => Err(Error::Refused {
                what,
                source: std::io::Error::from_raw_os_error(errno),
            }),
            Err(_) => Err(Error::BadReply {
                unique: request.unique,
                written,
            }),
        }
    }
}

/// `fuse_release_in` and `fuse_flush_in` of a handle, all else 0.
fn handle_in(handle: u64) -> [u8; 24] {
    let mut body = [0; 24];
    body[..8].copy_from_slice(&handle.to_le_bytes());
    body
}
