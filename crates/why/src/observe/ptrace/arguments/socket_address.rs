//! Socket addresses in readable form.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

/// The largest address there is (`struct sockaddr_storage`).
pub(super) const LARGEST: usize = 128;

/// What a `struct sockaddr` says; nothing if it is too short or of a family that is not known here.
pub(super) fn show(bytes: &[u8]) -> Option<String> {
    let family = u16::from_ne_bytes(*bytes.first_chunk()?);
    let big = |at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let word = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    match i32::from(family) {
        libc::AF_UNIX => Some(unix(&bytes[2..])),
        libc::AF_INET => {
            let host = Ipv4Addr::from(*bytes.get(4..)?.first_chunk::<4>()?);
            Some(SocketAddrV4::new(host, big(2)?).to_string())
        }
        libc::AF_INET6 => {
            let host = Ipv6Addr::from(*bytes.get(8..)?.first_chunk::<16>()?);
            Some(SocketAddrV6::new(host, big(2)?, 0, word(24).unwrap_or(0)).to_string())
        }
        libc::AF_NETLINK => Some(format!("netlink port {}, groups {:#x}", word(4)?, word(8)?)),
        libc::AF_VSOCK => Some(format!("vsock {}:{}", word(8)?, word(4)?)),
        libc::AF_UNSPEC => Some("AF_UNSPEC".to_owned()),
        _ => None,
    }
}

/// A path, a name without a file (it begins with NUL, and `@` is written for that), or none at all.
fn unix(name: &[u8]) -> String {
    match name {
        [] => "unix \"\"".to_owned(),
        [0, rest @ ..] => format!("unix {:?}", format!("@{}", String::from_utf8_lossy(rest))),
        path => {
            let end = path.iter().position(|&byte| byte == 0).unwrap_or(path.len());
            format!("unix {:?}", String::from_utf8_lossy(&path[..end]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(family: libc::c_int, rest: &[u8]) -> Vec<u8> {
        let family = u16::try_from(family).unwrap().to_ne_bytes();
        [&family, rest].concat()
    }

    #[test]
    fn addresses_are_written_as_people_write_them() {
        let inet = address(libc::AF_INET, &[0, 80, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(show(&inet).unwrap(), "127.0.0.1:80");
        let mut six = vec![0x1f, 0x90, 0, 0, 0, 0];
        six.extend(Ipv6Addr::LOCALHOST.octets());
        six.extend([0; 4]);
        assert_eq!(show(&address(libc::AF_INET6, &six)).unwrap(), "[::1]:8080");
        assert_eq!(
            show(&address(libc::AF_UNIX, b"/run/x\0junk")).unwrap(),
            "unix \"/run/x\""
        );
        assert_eq!(show(&address(libc::AF_UNIX, b"\0bus")).unwrap(), "unix \"@bus\"");
    }

    #[test]
    fn half_an_address_and_a_strange_one_are_none() {
        assert_eq!(show(&[]), None);
        assert_eq!(show(&address(libc::AF_INET, &[0, 80])), None);
        assert_eq!(show(&address(99, &[0; 14])), None);
    }
}
