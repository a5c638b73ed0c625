//! `innkeeper share` and its siblings: one device on one socket, for one virtual machine after another.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use confinement::{Declaration, Maps, Role, capabilities, sandbox};
use process::signals::{ENDING, Signals};
use process::socket::SocketFile;
use process::{ending, limits, say, socket, whole};
use rustix::thread::CapabilitySet;

use super::args::SandboxMode;
use super::device::{Inside, Service};
use super::error::Error;
use super::threads::Threads;

/// Serves one virtual machine after another until a signal ends it. Answers the exit status.
pub(crate) fn run(service: &dyn Service) -> Result<u8, Error> {
    let serving = service.serving();
    service.check()?;
    let open_files = limits::raise_open_files(serving.process.rlimit_nofile)?;
    let declaration = service.declaration()?;
    let opened = service.open()?;
    // Before the first thread, which would take the signals otherwise, and before there is a file to remove.
    let signals = Signals::take(&ENDING).map_err(process::Error::system("wait for signals"))?;
    // The file is removed on every way out.
    let (listener, file) = match (&serving.endpoint.socket_path, serving.endpoint.fd) {
        (Some(path), _) => {
            socket::listen(path, serving.socket_group.as_deref()).map(|(listener, file)| (listener, Some(file)))
        }
        (None, Some(number)) => socket::inherit(number).map(|listener| (listener, None)),
        (None, None) => unreachable!("clap requires one of the two"),
    }?;
    // Before the first thread as well, which would stay outside.
    let (inside, file, left) = enter(serving.confinement.sandbox, &declaration, file, &service.maps())?;
    // CAP_SETPCAP is what reduces the bounding set, the second time too.
    capabilities::keep((declaration.all_capabilities() | CapabilitySet::SETPCAP) & left)?;
    let threads = Threads::new(declaration, serving.confinement.system_calls.seccomp.into(), left)?;
    let made = opened.make(inside, &threads)?;
    let removes = file.as_ref().map(Arc::downgrade).unwrap_or_default();
    let stop = ending::watch(signals, removes, threads.confined(Role::Signals))?;
    announce(service, &listener, open_files);
    report_panics_briefly();
    threads.confine(Role::ControlPlane)?;

    let options = serving.rings.options(threads.narrowed(Role::Lane));
    let served = backend::serve(&listener, &*made.device, options, stop.as_fd());
    made.end();
    served.map_err(|error| Error::Serve { reason: whole(&error) })?;
    Ok(0)
}

/// Enters the sandbox. Answers what is left of the host, the socket's file, which is removed through the sandbox from now on, and the
/// capabilities that may be kept.
fn enter(
    mode: SandboxMode,
    declaration: &Declaration,
    file: Option<SocketFile>,
    maps: &Maps,
) -> Result<(Inside, Option<Arc<SocketFile>>, CapabilitySet), Error> {
    let directory = file.as_ref().map(SocketFile::directory);
    let outside: Vec<&Path> = directory.iter().map(PathBuf::as_path).collect();
    let entered = sandbox::enter(mode.into(), declaration, &outside, maps)?;
    match &entered.ids {
        Some(ids) => tracing::info!("confined by {}: {ids}", entered.kind),
        None => tracing::info!("confined by {}", entered.kind),
    }
    for refusal in &entered.refused {
        tracing::debug!("not confined by {refusal}");
    }
    let mut directories = entered.outside.into_iter();
    let file = file.map(|file| match directories.next() {
        Some(directory) => Arc::new(file.through(directory)),
        None => Arc::new(file),
    });
    let inside = Inside {
        shared: entered.shared,
        proc_self_fd: entered.proc_self_fd,
        opens_handles: entered.opens_handles,
    };
    Ok((inside, file, entered.capabilities))
}

/// A panic is a defect that costs a request or a lane. A backtrace, for which files are opened, would cost the daemon.
fn report_panics_briefly() {
    std::panic::set_hook(Box::new(|panic| say::say(format_args!("defect: {panic}"))));
}

/// Prints what to paste and what limit holds, once the socket listens.
fn announce(service: &dyn Service, listener: &UnixListener, open_files: u64) {
    let named = service.serving().endpoint.socket_path.clone();
    if let Some(path) = named.or_else(|| socket::path_of(listener)) {
        let line = service.qemu().command_line(&path);
        say::announce(&service.announcement(&line, open_files));
    }
}
