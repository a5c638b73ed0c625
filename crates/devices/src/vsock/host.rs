//! The host's side: Unix sockets in the place of ports.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, connect, recv, send,
    socket_with,
};

use super::wire::Kind;

/// Bytes of the longest line that a host program sends first: `CONNECT 4294967295` with its newline.
const LINE_MOST: usize = 19;

/// Where host programs are found, and where they find the guest.
#[derive(Debug)]
pub(super) struct Host {
    path: PathBuf,
    listener: UnixListener,
}

impl Host {
    /// The listener does not block from now on.
    pub(super) fn new(path: &Path, listener: UnixListener) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            path: path.into(),
            listener,
        })
    }

    pub(super) fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// Connects to the program that listens for `port`: the Unix socket of that number.
    pub(super) fn dial(&self, kind: Kind, port: u32) -> Result<OwnedFd, Errno> {
        let kind = match kind {
            Kind::Stream => SocketType::STREAM,
            Kind::Record => SocketType::SEQPACKET,
        };
        let mut path = self.path.clone().into_os_string();
        path.push(format!("_{port}"));
        let address = SocketAddrUnix::new(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, kind, flags, None)?;
        connect(&socket, &address)?;
        Ok(socket)
    }

    /// The next host program that wants to reach the guest.
    pub(super) fn accept(&self) -> Result<OwnedFd, Errno> {
        accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
    }
}

/// The first line of a host program, as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Greeting(Vec<u8>);

/// What a host program's first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Greeted {
    /// The line is not complete.
    NotYet,
    /// It names a port of the guest.
    Port(u32),
    /// It is no such line, or the program is gone.
    Nonsense,
}

impl Greeting {
    /// Reads on, but nothing behind the line: that is for the guest.
    pub(super) fn read(&mut self, socket: impl AsFd) -> Greeted {
        let mut space = [0; LINE_MOST];
        let left = &mut space[..LINE_MOST - self.0.len()];
        let seen = match recv(&socket, &mut *left, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Greeted::Nonsense,
            Ok((_, seen)) => seen.min(left.len()),
            Err(Errno::AGAIN | Errno::INTR) => return Greeted::NotYet,
            Err(_) => return Greeted::Nonsense,
        };
        let newline = left[..seen].iter().position(|&byte| byte == b'\n');
        let taken = newline.map_or(seen, |position| position + 1);
        match recv(&socket, &mut left[..taken], RecvFlags::DONTWAIT) {
            Ok((_, read)) if read == taken => self.0.extend_from_slice(&left[..taken]),
            _ => return Greeted::Nonsense,
        }
        match port_of(&self.0) {
            Some(port) => Greeted::Port(port),
            None if newline.is_some() || self.0.len() == LINE_MOST => Greeted::Nonsense,
            None => Greeted::NotYet,
        }
    }
}

/// The port in a complete line.
fn port_of(line: &[u8]) -> Option<u32> {
    let digits = line.strip_prefix(b"CONNECT ")?.strip_suffix(b"\n")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Tells a host program that its connection stands. `port` is its own, as the guest sees it.
pub(super) fn say_ok(socket: impl AsFd, port: u32) -> Result<(), Errno> {
    let line = format!("OK {port}\n");
    match send(socket, line.as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL)? {
        sent if sent == line.len() => Ok(()),
        _ => Err(Errno::PIPE),
    }
}

/// Whether the other end is closed (HUP), or will at least send no more (RDHUP).
pub(super) fn has_state(socket: impl AsFd, state: PollFlags) -> bool {
    let mut polled = [PollFd::new(&socket, state)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).is_ok() && polled[0].revents().intersects(state)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn greet(parts: &[&str]) -> (Greeted, String) {
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        let mut greeting = Greeting::default();
        let mut greeted = Greeted::NotYet;
        for part in parts {
            theirs.write_all(part.as_bytes()).unwrap();
            greeted = greeting.read(&ours);
        }
        drop(theirs);
        let mut rest = String::new();
        (&ours).read_to_string(&mut rest).unwrap();
        (greeted, rest)
    }

    #[test]
    fn a_line_names_a_port_and_what_follows_is_left() {
        assert_eq!(
            greet(&["CONNECT 22\nSSH-2.0\n"]),
            (Greeted::Port(22), "SSH-2.0\n".into())
        );
        assert_eq!(
            greet(&["CONN", "ECT 42949672", "95\nx"]),
            (Greeted::Port(u32::MAX), "x".into())
        );
        assert_eq!(greet(&["CONNECT 2"]), (Greeted::NotYet, String::new()));
    }

    #[test]
    fn other_lines_name_none() {
        for line in [
            "\n",
            "CONNECT \n",
            "CONNECT +1\n",
            "CONNECT 4294967296\n",
            "connect 1\n",
            "GET / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(greet(&[line]).0, Greeted::Nonsense, "{line:?}");
        }
        let (theirs, ours) = UnixStream::pair().unwrap();
        drop(theirs);
        assert_eq!(Greeting::default().read(&ours), Greeted::Nonsense);
    }
}
