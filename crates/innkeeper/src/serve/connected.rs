//! Serves a device for the one machine that this process starts.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use backend::Device;
use confinement::Role;
use process::whole;
use rustix::event::{EventfdFlags, eventfd};

use super::args::Rings;
use super::error::Error;
use super::threads::Threads;

/// Serves one machine from a thread that lives as long as the process. Answers the socket to give to it, already
/// connected: in a directory that nobody else may enter, and gone from there again, so that nothing is left over whatever
/// becomes of us.
pub(crate) fn serve(device: Box<dyn Device>, threads: Threads, rings: Rings) -> Result<OwnedFd, Error> {
    let connect = || {
        let directory = tempfile::Builder::new().prefix("innkeeper-").tempdir()?;
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path)?;
        let socket = UnixStream::connect(&path)?;
        directory.close()?;
        Ok((listener, socket, eventfd(0, EventfdFlags::CLOEXEC)?))
    };
    let (listener, socket, never) = connect().map_err(process::Error::system::<io::Error>("make a socket for QEMU"))?;
    let options = rings.options(threads.narrowed(Role::Lane));
    thread::spawn(move || {
        // This thread and those that it starts alone: else QEMU would get back what its parent lacks, and the kernel would forget
        // to end it with us (PR_SET_PDEATHSIG).
        if let Err(error) = threads.confine(Role::ControlPlane) {
            tracing::error!("{error}");
            return;
        }
        if let Err(error) = backend::serve(&listener, &*device, options, never.as_fd()) {
            tracing::error!("{}", Error::Serve { reason: whole(&error) });
        }
    });
    Ok(socket.into())
}
