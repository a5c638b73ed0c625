//! Sockets.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::Path;

use libc::{
    AF_INET, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM, SYS_accept4, SYS_bind, SYS_connect, SYS_getpeername, SYS_listen,
    SYS_sendmsg, SYS_sendto, SYS_setsockopt, SYS_shutdown, SYS_socket,
};
use rustix::net::{AddressFamily, SocketType};

use super::Case;
use super::call::{Call, be_a_user, descriptor, leak, number, path};

/// A new socket's descriptor.
fn socket(family: AddressFamily, kind: SocketType) -> io::Result<usize> {
    Ok(descriptor(rustix::net::socket(family, kind, None)?))
}

/// Address of an internet address in the kernel's form, and its length.
fn internet(address: Ipv4Addr, port: u16) -> [usize; 2] {
    let address = libc::sockaddr_in {
        sin_family: AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(address).to_be(),
        },
        sin_zero: [0; 8],
    };
    [leak(address), size_of::<libc::sockaddr_in>()]
}

/// Address of a UNIX address in the kernel's form, and its length.
fn unix(name: &Path) -> [usize; 2] {
    let mut bytes = [0_u8; 110];
    bytes[..2].copy_from_slice(&(libc::AF_UNIX as u16).to_ne_bytes());
    for (byte, &given) in bytes[2..].iter_mut().zip(name.as_os_str().as_encoded_bytes()) {
        *byte = given;
    }
    [leak(bytes), bytes.len()]
}

/// An empty message of one part that is `length` bytes long.
fn message(length: usize) -> usize {
    let part = libc::iovec {
        iov_base: leak([0_u8; 128 << 10]) as *mut libc::c_void,
        iov_len: length,
    };
    // struct msghdr: name, its length, parts, their number, control, its length, flags.
    leak([0, 0, leak(part), 1, 0, 0, 0_usize])
}

#[rustfmt::skip] // One case a block, no wider than its words.
pub(super) const CASES: &[&Case] = &[
    &Case { name: "bind-low-port", prepare: |_| {
        be_a_user()?;
        let [address, length] = internet(Ipv4Addr::UNSPECIFIED, 80);
        Call::new(SYS_bind, [socket(AddressFamily::INET, SocketType::STREAM)?, address, length])
    } },
    &Case { name: "bind-foreign-address", prepare: |_| {
        let [address, length] = internet(Ipv4Addr::new(203, 0, 113, 1), 8080);
        Call::new(SYS_bind, [socket(AddressFamily::INET, SocketType::STREAM)?, address, length])
    } },
    &Case { name: "bind-in-use", prepare: |_| {
        let listener = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))?;
        let [address, length] = internet(Ipv4Addr::UNSPECIFIED, listener.local_addr()?.port());
        descriptor(listener);
        Call::new(SYS_bind, [socket(AddressFamily::INET, SocketType::STREAM)?, address, length])
    } },
    &Case { name: "bind-unix-existing", prepare: |places| {
        let name = places.local.join("socket");
        std::fs::write(&name, "")?;
        let [address, length] = unix(&name);
        Call::new(SYS_bind, [socket(AddressFamily::UNIX, SocketType::STREAM)?, address, length])
    } },
    &Case { name: "connect-no-route", prepare: |_| {
        let [address, length] = internet(Ipv4Addr::new(203, 0, 113, 1), 80);
        Call::new(SYS_connect, [socket(AddressFamily::INET, SocketType::STREAM)?, address, length])
    } },
    &Case { name: "connect-refused", prepare: |_| {
        let [address, length] = internet(Ipv4Addr::LOCALHOST, 1);
        Call::new(SYS_connect, [socket(AddressFamily::INET, SocketType::STREAM)?, address, length])
    } },
    &Case { name: "connect-unix-missing", prepare: |places| {
        let [address, length] = unix(&places.local.join("missing"));
        Call::new(SYS_connect, [socket(AddressFamily::UNIX, SocketType::STREAM)?, address, length])
    } },
    &Case { name: "connect-unix-dead", prepare: |places| {
        let name = places.local.join("socket");
        drop(UnixListener::bind(&name)?);
        let [address, length] = unix(&name);
        Call::new(SYS_connect, [socket(AddressFamily::UNIX, SocketType::STREAM)?, address, length])
    } },
    &Case { name: "sendmsg-nowhere", prepare: |_| {
        Call::new(SYS_sendmsg, [socket(AddressFamily::INET, SocketType::DGRAM)?, message(8), 0])
    } },
    &Case { name: "sendmsg-too-long", prepare: |_| {
        let socket = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(socket.local_addr()?)?;
        Call::new(SYS_sendmsg, [descriptor(socket), message(100_000), 0])
    } },
    &Case { name: "sendto-unconnected", prepare: |_| {
        Call::new(SYS_sendto, [socket(AddressFamily::UNIX, SocketType::STREAM)?, leak([0_u8; 8]), 8, 0, 0, 0])
    } },
    &Case { name: "accept-not-listening", prepare: |_| {
        Call::new(SYS_accept4, [socket(AddressFamily::INET, SocketType::STREAM)?, 0, 0, 0])
    } },
    &Case { name: "listen-datagrams", prepare: |_| {
        Call::new(SYS_listen, [socket(AddressFamily::INET, SocketType::DGRAM)?, 1])
    } },
    &Case { name: "socket-unknown-family", prepare: |_| Call::new(SYS_socket, [46, number(SOCK_STREAM), 0]) },
    &Case { name: "socket-raw-as-user", prepare: |_| {
        be_a_user()?;
        Call::new(SYS_socket, [number(AF_INET), number(SOCK_RAW), number(libc::IPPROTO_ICMP)])
    } },
    &Case { name: "socket-wrong-protocol", prepare: |_| {
        Call::new(SYS_socket, [number(AF_INET), number(SOCK_DGRAM), number(libc::IPPROTO_TCP)])
    } },
    &Case { name: "setsockopt-unknown", prepare: |_| {
        let socket = socket(AddressFamily::INET, SocketType::STREAM)?;
        Call::new(SYS_setsockopt, [socket, number(libc::SOL_SOCKET), 9999, leak(1_i32), 4])
    } },
    &Case { name: "shutdown-unconnected", prepare: |_| {
        Call::new(SYS_shutdown, [socket(AddressFamily::INET, SocketType::STREAM)?, 0])
    } },
    &Case { name: "getpeername-unconnected", prepare: |_| {
        let socket = socket(AddressFamily::INET, SocketType::STREAM)?;
        Call::new(SYS_getpeername, [socket, leak([0_u8; 16]), leak(16_i32)])
    } },
    &Case { name: "shutdown-no-socket", prepare: |_| {
        Call::new(SYS_shutdown, [descriptor(std::fs::File::open(Path::new("/"))?), 0])
    } },
    &Case { name: "connect-long-name", prepare: |_| {
        let socket = socket(AddressFamily::UNIX, SocketType::STREAM)?;
        Call::new(SYS_connect, [socket, path("too long for an address"), 4096])
    } },
];
