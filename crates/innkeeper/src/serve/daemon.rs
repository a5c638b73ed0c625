//! `innkeeper share` and its siblings: one device on one socket, for one virtual machine after another.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use process::signals::{ENDING, Signals};
use process::{capabilities, ending, limits, say, socket, whole};

use super::device::Service;
use super::error::Error;

/// Serves one virtual machine after another until a signal ends it. Answers the exit status.
pub(crate) fn run(service: &dyn Service) -> Result<u8, Error> {
    let serving = service.serving();
    service.check()?;
    let open_files = limits::raise_open_files(serving.process.rlimit_nofile)?;
    capabilities::keep(service.keeps_to_make())?;
    // Before the first thread, which would take the signals otherwise.
    let signals = Signals::take(&ENDING).map_err(process::Error::system("wait for signals"))?;
    let made = service.make()?;
    capabilities::keep(service.keeps())?;
    // The file is removed on every way out.
    let (listener, file) = match (&serving.endpoint.socket_path, serving.endpoint.fd) {
        (Some(path), _) => socket::listen(path, serving.socket_group.as_deref())
            .map(|(listener, file)| (listener, Some(Arc::new(file)))),
        (None, Some(number)) => socket::inherit(number).map(|listener| (listener, None)),
        (None, None) => unreachable!("clap requires one of the two"),
    }?;
    let stop = ending::watch(signals, file.as_ref().map(Arc::downgrade).unwrap_or_default())?;
    announce(service, &listener, open_files);

    let served = backend::serve(&listener, &*made.device, serving.rings.options(), stop.as_fd());
    made.end();
    served.map_err(|error| Error::Serve { reason: whole(&error) })?;
    Ok(0)
}

/// Prints what to paste and what limit holds, once the socket listens.
fn announce(service: &dyn Service, listener: &UnixListener, open_files: u64) {
    let named = service.serving().endpoint.socket_path.clone();
    if let Some(path) = named.or_else(|| socket::path_of(listener)) {
        let line = service.qemu().command_line(&path);
        say::announce(&service.announcement(&line, open_files));
    }
}
