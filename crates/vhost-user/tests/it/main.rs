//! Both ends of the protocol, against each other, against the `vhost` crate, and against hostile peers.

mod backend_by_vhost;
mod frontend_by_vhost;
mod hostile;
mod ours;
mod recorder;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use vhost_user::backend::{Served, Session};

use recorder::Recorder;

/// Serves `stream` until the peer goes away, then returns what was recorded.
fn serve(stream: UnixStream, mut recorder: Recorder) -> Recorder {
    let mut session = Session::new(stream);
    loop {
        poll(&mut [PollFd::new(&session, PollFlags::IN)], None).unwrap();
        match session.serve(&mut recorder).unwrap() {
            Served::Closed => return recorder,
            Served::Pending | Served::Granted(_) | Served::Refused(..) | Served::Malformed(_) => {}
        }
    }
}

fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

/// Whether two descriptors are one eventfd: what goes into the first comes out of the second.
fn same_event(one: impl AsFd, other: impl AsFd) -> bool {
    rustix::io::write(one, &1_u64.to_ne_bytes()).unwrap();
    rustix::io::read(other, &mut [0; 8]).is_ok()
}
