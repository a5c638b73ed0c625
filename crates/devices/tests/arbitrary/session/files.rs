//! Files that a front end may send, valid and invalid ones.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, Mode, OFlags, ftruncate, memfd_create, open};
use rustix::pipe::{PipeFlags, pipe_with};

/// Guest memory.
pub(super) const RAM_SIZE: u64 = 0x1_0000;

/// The choices for [`Files::get`] that are right somewhere; what follows is wrong nearly everywhere.
pub(super) const RAM: u8 = 0;
pub(super) const OTHER_RAM: u8 = 1;
pub(super) const KICKS: u8 = 2;
pub(super) const CALLS: u8 = 4;
pub(super) const CHOICES: u8 = 14;

pub(super) struct Files(Vec<OwnedFd>);

impl Files {
    pub(super) fn new() -> Self {
        let memory = |size| {
            let file = memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("a memfd");
            ftruncate(&file, size).expect("a length");
            file
        };
        let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an event");
        let (reading, writing) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).expect("a pipe");
        let (unread, full) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
            .map(fill)
            .expect("a pipe");
        let (socket, other_end) = UnixStream::pair().expect("a pair of sockets");
        let null = |flags| open("/dev/null", flags | OFlags::CLOEXEC, Mode::empty()).expect("/dev/null");
        Self(vec![
            memory(RAM_SIZE),
            memory(RAM_SIZE / 4),
            event(),
            event(),
            event(),
            event(),
            reading,
            writing,
            full,
            unread,
            null(OFlags::RDWR),
            null(OFlags::PATH),
            socket.into(),
            other_end.into(),
        ])
    }

    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    pub(super) fn get(&self, choice: u8) -> BorrowedFd<'_> {
        self.0[usize::from(choice) % self.0.len()].as_fd()
    }
}

/// The ends of a pipe that takes no byte more.
fn fill((reading, writing): (OwnedFd, OwnedFd)) -> (OwnedFd, OwnedFd) {
    while rustix::io::write(&writing, &[0; 4096]).is_ok() {}
    (reading, writing)
}
