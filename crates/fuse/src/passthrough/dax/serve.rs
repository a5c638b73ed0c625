//! The thread that serves the file system of views.
//!
//! Its own descriptor table holds the only descriptor of the FUSE connection. However this thread or the process
//! ends, the connection ends with it, and nothing waits for an answer that never comes. In a shared table, a thread
//! that is killed while it waits here would keep open the very connection it waits for.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::mpsc::Sender;

use rustix::io::{Errno, IoSliceMut, read, write};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tracing::{debug, warn};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::error::ViewsError;
use crate::wire::{self, InitFlags, Opcode};
use crate::{descriptors, sys};

/// The nodeid of the root, whose entries are views. A view's nodeid and inode number are its name.
pub(super) const ROOT: u64 = 1;

/// The least that the kernel reads into (FUSE_MIN_READ_BUFFER), with writes of one page.
const REQUEST_MAX: usize = 8192;
/// File systems below a view may be stacked once themselves (FILESYSTEM_MAX_STACK_DEPTH is 2).
const STACK_DEPTH: u32 = 2;
/// What is said of a view stays true.
const FOR_EVER: u64 = u32::MAX as u64;
/// The length of every view: the last multiple of 2 MiB, which Linux maps at once, that a file can have. No guest's memory lies in
/// so long a file, which is how other devices tell.
const VIEW_LENGTH: u64 = (i64::MAX as u64) & !((2 << 20) - 1);

/// Serves the connection `device` until its file system is gone; files to view come from `files`. Calls `start` before the first
/// view. Says through `ready` whether the kernel can do it. The numbers are the caller's, who keeps them open until then.
pub(super) fn run(device: RawFd, files: RawFd, start: impl FnOnce(), ready: &Sender<Result<(), ViewsError>>) {
    let answer = |result| {
        // Nobody waits if the caller has panicked, and then there is nothing to serve.
        let _ = ready.send(result);
    };
    let [device, files] = match descriptors::part_with_all_but([device, files]) {
        Ok(own) => own,
        Err(error) => return answer(Err(ViewsError::Thread(error))),
    };
    let mut server = Server {
        device,
        files,
        backing: None,
    };
    if let Err(error) = server.init() {
        return answer(Err(error));
    }
    start();
    answer(Ok(()));
    let end = loop {
        if let Err(error) = server.serve_one() {
            break error;
        }
    };
    match end.raw_os_error() {
        Some(libc::ENODEV) => debug!("the file system of views has ended"),
        _ => warn!(error = %end, "cannot map any more files: the file system of views failed"),
    }
}

struct Server {
    device: OwnedFd,
    files: OwnedFd,
    /// What the last OPEN was answered with: the kernel looks it up after the answer, so it goes with the next request for a name.
    backing: Option<u32>,
}

/// A request's header, and where the rest of it lies.
struct Request<'r> {
    header: wire::InHeader,
    body: &'r [u8],
}

type Answer = Result<Vec<u8>, Errno>;

impl Server {
    fn init(&mut self) -> Result<(), ViewsError> {
        let mut buffer = [0; REQUEST_MAX];
        let request = self.receive(&mut buffer).map_err(ViewsError::Thread)?;
        let init = wire::InitIn::read_from_prefix(request.body);
        let Some((init, _)) = init.ok().filter(|_| request.is(Opcode::Init)) else {
            return Err(ViewsError::NoPassthrough); // a kernel from before INIT_EXT
        };
        let wanted = InitFlags::INIT_EXT | InitFlags::PASSTHROUGH;
        if !InitFlags::from_words(init.flags, init.flags2).contains(wanted) {
            return Err(ViewsError::NoPassthrough);
        }
        let (flags, flags2) = wanted.words();
        let out = wire::InitOut {
            major: wire::MAJOR,
            minor: init.minor.min(wire::MINOR),
            flags,
            flags2,
            max_write: 4096,
            time_gran: 1,
            max_stack_depth: STACK_DEPTH,
            ..Default::default()
        };
        self.reply(&request.header, Ok(bytes(&out))).map_err(ViewsError::Thread)
    }

    fn serve_one(&mut self) -> io::Result<()> {
        let mut buffer = [0; REQUEST_MAX];
        let request = self.receive(&mut buffer)?;
        let node = request.header.nodeid;
        let answer = match Opcode::from_number(request.header.opcode) {
            // These have no answer. Nothing is kept of a view that could be forgotten.
            Some(Opcode::Forget | Opcode::BatchForget | Opcode::Interrupt) => return Ok(()),
            Some(Opcode::Lookup) => {
                self.close_backing();
                look_up(request.body)
            }
            Some(Opcode::Open) => self.open(node),
            Some(Opcode::Unlink) => {
                self.close_backing();
                Ok(Vec::new())
            }
            Some(Opcode::Getattr) => Ok(bytes(&wire::AttrOut {
                attr_valid: FOR_EVER,
                attr: attributes(node),
                ..Default::default()
            })),
            Some(Opcode::Statfs) => Ok(bytes(&wire::Statfs {
                bsize: rustix::param::page_size() as u32,
                frsize: rustix::param::page_size() as u32,
                namelen: 255,
                ..Default::default()
            })),
            Some(Opcode::Release) => Ok(Vec::new()),
            // ENOSYS would let some changes pass for done.
            Some(Opcode::Setattr | Opcode::Fallocate) => Err(Errno::PERM),
            _ => Err(Errno::NOSYS),
        };
        self.reply(&request.header, answer)
    }

    /// Has the kernel hand on all that is done with the view to its file. Once: whoever opens a view anew, by way of /proc, is refused.
    fn open(&mut self, node: u64) -> Answer {
        self.close_backing();
        let file = self.take_file(node)?;
        let backing = sys::fuse_backing_open(self.device.as_fd(), file.as_fd())
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        self.backing = Some(backing);
        Ok(bytes(&wire::OpenOut {
            fh: node,
            open_flags: wire::FOPEN_PASSTHROUGH | wire::FOPEN_NOFLUSH,
            backing_id: backing as i32,
        }))
    }

    /// The file that was sent for view `node`. Files before it are of views whose open(2) was given up.
    fn take_file(&self, node: u64) -> Result<OwnedFd, Errno> {
        loop {
            let mut number = [0; 8];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let received = recvmsg(&self.files, &mut [IoSliceMut::new(&mut number)], &mut ancillary, flags);
            if received.map_err(|_| Errno::ACCESS)?.bytes == 0 {
                return Err(Errno::ACCESS);
            }
            let file = ancillary.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut files) => files.next(),
                _ => None,
            });
            if u64::from_ne_bytes(number) == node {
                return file.ok_or(Errno::MFILE); // the kernel drops what finds no place
            }
        }
    }

    fn close_backing(&mut self) {
        if let Some(backing) = self.backing.take()
            && let Err(error) = sys::fuse_backing_close(self.device.as_fd(), backing)
        {
            warn!(%error, "cannot release a viewed file");
        }
    }

    fn receive<'b>(&self, buffer: &'b mut [u8; REQUEST_MAX]) -> io::Result<Request<'b>> {
        let length = loop {
            match read(&self.device, &mut buffer[..]) {
                Ok(length) => break length,
                // ENOENT: the request was given up before it was read.
                Err(Errno::INTR | Errno::NOENT | Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        };
        let (header, body) =
            wire::InHeader::read_from_prefix(&buffer[..length]).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        Ok(Request { header, body })
    }

    fn reply(&self, to: &wire::InHeader, answer: Answer) -> io::Result<()> {
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(error) => (-error.raw_os_error(), Vec::new()),
        };
        let mut reply = bytes(&wire::OutHeader {
            len: (size_of::<wire::OutHeader>() + body.len()) as u32,
            error,
            unique: to.unique,
        });
        reply.extend(body);
        match write(&self.device, &reply) {
            // ENOENT: nobody waits for it any more.
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Request<'_> {
    fn is(&self, opcode: Opcode) -> bool {
        self.header.opcode == opcode as u32
    }
}

fn look_up(body: &[u8]) -> Answer {
    let name = body.strip_suffix(b"\0").and_then(|name| std::str::from_utf8(name).ok());
    let number = name.and_then(|name| name.parse().ok()).filter(|&number| number > ROOT);
    let number = number.ok_or(Errno::NOENT)?;
    Ok(bytes(&wire::EntryOut {
        nodeid: number,
        entry_valid: FOR_EVER,
        attr_valid: FOR_EVER,
        attr: attributes(number),
        ..Default::default()
    }))
}

fn attributes(node: u64) -> wire::Attr {
    let (kind, size) = match node {
        ROOT => (libc::S_IFDIR | 0o700, 0),
        _ => (libc::S_IFREG | 0o600, VIEW_LENGTH),
    };
    wire::Attr {
        ino: node,
        size,
        mode: kind,
        nlink: 1,
        blksize: rustix::param::page_size() as u32,
        ..Default::default()
    }
}

fn bytes(structure: &(impl IntoBytes + Immutable)) -> Vec<u8> {
    structure.as_bytes().to_vec()
}
