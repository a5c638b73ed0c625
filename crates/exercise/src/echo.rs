//! Streams and messages over sockets that come back unchanged, to and from guests (AF_VSOCK) and within a machine.
#![expect(unsafe_code, reason = "no safe interface has addresses of AF_VSOCK")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::thread;

use rustix::io::{read, write};
use rustix::net::{Shutdown, accept, listen, shutdown};

use crate::arguments::{Echo, Reflect};
use crate::error::Error;
use crate::generator::Generator;
use crate::{difference, say};

/// Bytes of the longest message, and of a step through a stream.
const STEP: usize = 60 << 10;

/// An address as the kernel takes it.
enum Address {
    Unix(libc::sockaddr_un),
    Vsock(libc::sockaddr_vm),
}

/// Sends and compares.
pub(crate) fn run(arguments: &Echo) -> Result<(), Error> {
    let Reflect { address, messages } = &arguments.peer;
    let (socket, of_kernel) = open(address, *messages)?;
    called(address, "connect to", of_kernel.with(&socket, libc::connect))?;
    let seed = arguments.seed;
    let compared = if *messages {
        compare_messages(&socket, arguments)
    } else {
        compare_stream(&socket, arguments)
    };
    match compared? {
        None => say(&format!("echo: {} bytes equal", arguments.length)),
        Some(difference) => Err(Error::Different {
            number: 1,
            operation: format!("echo by {address}"),
            seed,
            difference,
            history: String::new(),
        }),
    }
}

/// Sends back what one connection brings, to its end.
pub(crate) fn reflect(arguments: &Reflect) -> Result<(), Error> {
    let Reflect { address, messages } = arguments;
    let (listener, of_kernel) = open(address, *messages)?;
    called(address, "listen on", of_kernel.with(&listener, libc::bind))?;
    listen(&listener, 8).map_err(io::Error::from)?;
    say("reflect: listening")?;
    let socket = accept(&listener).map_err(io::Error::from)?;
    let mut space = vec![0; STEP];
    let mut total = 0;
    loop {
        match receive(&socket, &mut space)? {
            0 => break,
            length => {
                write_all(&socket, &space[..length])?;
                total += length;
            }
        }
    }
    say(&format!("reflect: {total} bytes"))
}

/// The sender ends its direction, and the rest still comes back.
fn compare_stream(socket: &OwnedFd, arguments: &Echo) -> Result<Option<String>, Error> {
    let (length, seed) = (arguments.length as usize, arguments.seed);
    let mut expected = vec![0; length];
    Generator::new(seed).fill(&mut expected);
    let mut seen = Vec::new();
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            expected.chunks(STEP).try_for_each(|chunk| write_all(socket, chunk))?;
            Ok::<_, io::Error>(shutdown(socket, Shutdown::Write)?)
        });
        let mut space = vec![0; STEP];
        loop {
            match receive(socket, &mut space)? {
                0 => break,
                length => seen.extend_from_slice(&space[..length]),
            }
        }
        sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    if seen.len() != length {
        return Ok(Some(format!("{} bytes came back", seen.len())));
    }
    Ok(difference::between(&expected, &seen, 0))
}

/// One message after another, each with its length.
fn compare_messages(socket: &OwnedFd, arguments: &Echo) -> Result<Option<String>, Error> {
    let mut random = Generator::new(arguments.seed);
    let (mut left, mut space) = (arguments.length, vec![0; STEP + 1]);
    while left > 0 {
        let mut message = vec![0; (random.length(16) as usize).min(STEP).min(left as usize)];
        random.fill(&mut message);
        write_all(socket, &message)?;
        let length = receive(socket, &mut space)?;
        if length != message.len() {
            return Ok(Some(format!(
                "{length} bytes came back of a message of {}",
                message.len()
            )));
        }
        if let Some(difference) = difference::between(&message, &space[..length], 0) {
            return Ok(Some(difference));
        }
        left -= length as u64;
    }
    Ok(None)
}

fn receive(socket: impl AsFd, space: &mut [u8]) -> io::Result<usize> {
    Ok(read(socket, space)?)
}

fn write_all(socket: impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = write(&socket, bytes)?;
        bytes = &bytes[written..];
    }
    Ok(())
}

/// A socket for an address.
fn open(address: &str, messages: bool) -> Result<(OwnedFd, Address), Error> {
    let of_kernel = Address::parse(address)
        .ok_or_else(|| Error::Usage(format!("{address} is no address: give a short path, or vsock:CID:PORT")))?;
    let family = match &of_kernel {
        Address::Unix(_) => libc::AF_UNIX,
        Address::Vsock(_) => libc::AF_VSOCK,
    };
    let kind = if messages {
        libc::SOCK_SEQPACKET
    } else {
        libc::SOCK_STREAM
    };
    // SAFETY: a call without memory.
    let socket = match unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: a new descriptor, which is nobody else's.
        number => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
    };
    Ok((called(address, "make a socket for", socket)?, of_kernel))
}

fn called<T>(address: &str, act: &'static str, result: io::Result<T>) -> Result<T, Error> {
    result.map_err(|source| Error::File {
        act,
        path: address.into(),
        source,
    })
}

impl Address {
    fn parse(text: &str) -> Option<Self> {
        // SAFETY: all zeros are addresses.
        let (mut unix, mut vsock): (libc::sockaddr_un, libc::sockaddr_vm) = unsafe { std::mem::zeroed() };
        if let Some((cid, port)) = text.strip_prefix("vsock:").and_then(|rest| rest.split_once(':')) {
            vsock.svm_family = libc::AF_VSOCK as u16;
            (vsock.svm_cid, vsock.svm_port) = (cid.parse().ok()?, port.parse().ok()?);
            return Some(Self::Vsock(vsock));
        }
        unix.sun_family = libc::AF_UNIX as u16;
        // One byte stays zero.
        let room = unix.sun_path.len() - 1;
        let place = unix
            .sun_path
            .get_mut(..text.len())
            .filter(|place| place.len() <= room)?;
        for (byte, given) in place.iter_mut().zip(text.bytes()) {
            *byte = given as libc::c_char;
        }
        Some(Self::Unix(unix))
    }

    /// Makes a call that takes a socket and an address.
    fn with(
        &self,
        socket: &OwnedFd,
        call: unsafe extern "C" fn(libc::c_int, *const libc::sockaddr, libc::socklen_t) -> libc::c_int,
    ) -> io::Result<()> {
        let (pointer, length): (*const libc::sockaddr, usize) = match self {
            Self::Unix(address) => ((&raw const *address).cast(), size_of_val(address)),
            Self::Vsock(address) => ((&raw const *address).cast(), size_of_val(address)),
        };
        // SAFETY: connect(2) and bind(2), the only ones given, read as many bytes of the address.
        match unsafe { call(socket.as_raw_fd(), pointer, length as libc::socklen_t) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
