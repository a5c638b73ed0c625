//! A process of its own that removes a daemon's socket files when the daemon ends, however it ends.
//!
//! To remove a file takes a directory with all that lies in it, which a confined daemon is not to reach. And a daemon that is killed
//! removes nothing.
#![expect(unsafe_code, reason = "fork(2), _exit(2) and close_range(2) have no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::io::{read, write};

use crate::Error;
use crate::say::say;
use crate::socket::SocketFile;

/// The daemon's end of the line to it.
#[derive(Debug)]
pub struct Remover(Option<UnixStream>);

impl Remover {
    /// Starts the process, where there are files. To be called by a process of one thread, which blocks the signals that end it: the new
    /// one inherits that, and ends with the daemon alone. `confine` leaves the new process with less.
    ///
    /// # Errors
    ///
    /// The system has no room for another process.
    pub fn start(files: Vec<SocketFile>, confine: impl FnOnce() -> Result<(), String>) -> Result<Remover, Error> {
        if files.is_empty() {
            return Ok(Remover(None));
        }
        let cannot = Error::system("start a process that removes the socket");
        let (ours, its) = match UnixStream::pair() {
            Ok(pair) => pair,
            Err(error) => return Err(cannot(error)),
        };
        // SAFETY: a process of one thread leaves its child no lock that another thread holds.
        match unsafe { libc::fork() } {
            -1 => Err(cannot(io::Error::last_os_error())),
            0 => live(its, files, confine),
            _ => {
                files.into_iter().for_each(SocketFile::leave);
                Ok(Remover(Some(ours)))
            }
        }
    }

    /// Has the files removed, and waits until they are.
    pub fn remove(&self) {
        let Some(line) = self.0.as_ref() else { return };
        // By calls that every thread may make. It has ended already where either fails.
        let _ = write(line, &[0]).and_then(|_| read(line, &mut [0]));
    }
}

impl Drop for Remover {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The new process's life.
fn live(line: UnixStream, files: Vec<SocketFile>, confine: impl FnOnce() -> Result<(), String>) -> ! {
    let mut kept: Vec<RawFd> = files.iter().flat_map(SocketFile::descriptors).collect();
    kept.extend([libc::STDERR_FILENO, line.as_raw_fd()]);
    close_all_but(kept);
    if let Err(reason) = confine() {
        say(format_args!(
            "the process that removes the socket is not confined: {reason}"
        ));
    }
    // A byte is an order, the end of the line is the end of the daemon.
    let _ = read(&line, &mut [0]);
    files.iter().for_each(SocketFile::remove);
    // SAFETY: ends the process, whose memory nothing refers to afterwards.
    unsafe { libc::_exit(0) }
}

fn close_all_but(mut kept: Vec<RawFd>) {
    kept.sort_unstable();
    let starts = std::iter::once(0).chain(kept.iter().map(|fd| fd + 1));
    let ends = kept.iter().map(|fd| fd - 1).chain([RawFd::MAX]);
    for (first, last) in starts.zip(ends).filter(|(first, last)| first <= last) {
        // SAFETY: this process uses none of them; their owners are not dropped, because it ends by _exit(2).
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
}
