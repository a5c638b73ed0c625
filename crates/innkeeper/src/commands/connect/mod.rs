//! `innkeeper connect`: standard input and output on a port of a guest, by the socket of `innkeeper vsock`.

pub(crate) mod args;
mod error;

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;

use args::Connect;
use error::Error;

/// Bytes passed on at a time.
const STEP: usize = 64 << 10;
/// Bytes of the longest answer: `OK 4294967295` with its newline.
const ANSWER_MOST: usize = 14;

/// Passes bytes on until the guest sends no more. Answers the exit status.
pub(crate) fn run(connect: &Connect) -> Result<u8, Error> {
    let socket = dial(connect)?;
    let to_guest = socket.try_clone().map_err(Error::Share)?;
    // It may wait for input when the guest has ended: then it ends with the process.
    thread::spawn(move || {
        let passed = pass(&mut io::stdin().lock(), &mut &to_guest);
        // Without more to send, the guest learns that, and may still answer.
        let _guest_is_gone = to_guest.shutdown(Shutdown::Write);
        if let Err(Failure::Read(error)) = passed {
            process::say::say(Error::Input(error));
        }
    });
    match pass(&mut &socket, &mut io::stdout().lock()) {
        Ok(()) => Ok(0),
        Err(Failure::Read(source)) => Err(Error::Lost {
            port: connect.port,
            source,
        }),
        Err(Failure::Write(source)) => Err(Error::Output(source)),
    }
}

/// Connects to the guest's port.
fn dial(connect: &Connect) -> Result<UnixStream, Error> {
    let Connect { path, port, .. } = connect;
    let mut socket = UnixStream::connect(path).map_err(|source| Error::of_socket(path, source))?;
    let refused = || Error::Refused {
        path: path.clone(),
        port: *port,
    };
    socket
        .write_all(format!("CONNECT {port}\n").as_bytes())
        .map_err(|_| refused())?;
    // One by one: what follows the line is the guest's.
    let mut answer = Vec::new();
    while answer.last() != Some(&b'\n') {
        let mut byte = [0];
        match socket.read(&mut byte) {
            Ok(1) if answer.len() < ANSWER_MOST => answer.extend(byte),
            Ok(0) => return Err(refused()),
            Ok(_) => return Err(Error::Foreign { path: path.clone() }),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Err(refused()),
        }
    }
    if !answer.starts_with(b"OK ") {
        return Err(Error::Foreign { path: path.clone() });
    }
    Ok(socket)
}

/// Which side failed.
enum Failure {
    Read(io::Error),
    Write(io::Error),
}

/// Passes bytes on, each as soon as it comes.
fn pass(from: &mut impl Read, to: &mut impl Write) -> Result<(), Failure> {
    let mut space = vec![0; STEP];
    loop {
        let length = match from.read(&mut space) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::Read(error)),
        };
        to.write_all(&space[..length])
            .and_then(|()| to.flush())
            .map_err(Failure::Write)?;
    }
}
