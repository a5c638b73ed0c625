//! `innkeeper share` and its siblings: a device on each socket, for one virtual machine after another.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use backend::Device;
use confinement::{Declaration, Maps, Role, capabilities, sandbox};
use process::remover::Remover;
use process::signals::{ENDING, Signals};
use process::{ending, limits, say, whole};
use rustix::thread::CapabilitySet;

use super::args::SandboxMode;
use super::device::{Inside, Service};
use super::error::Error;
use super::remover;
use super::sockets::{self, Sockets};
use super::threads::Threads;

/// Serves one virtual machine after another until a signal ends it. Answers the exit status.
pub(crate) fn run(service: &dyn Service) -> Result<u8, Error> {
    let serving = service.serving();
    service.check()?;
    let open_files = limits::raise_open_files(serving.process.rlimit_nofile)?;
    let declaration = service.declaration()?;
    let mut opened = service.open()?;
    // Before the first thread, which would take the signals otherwise, and before there is a file to remove.
    let signals = Signals::take(&ENDING).map_err(process::Error::system("wait for signals"))?;
    let Sockets {
        listeners,
        mut files,
        paths,
    } = sockets::listen(serving)?;
    files.extend(opened.listen()?);
    let seccomp = serving.confinement.system_calls.seccomp.into();
    // From now on they are removed on every way out.
    let remover = Remover::start(files, || remover::confine(seccomp).map_err(|error| error.to_string()))?;
    let remover = Arc::new(remover);
    // Before the first thread as well, which would stay outside.
    let (inside, left) = enter(serving.confinement.sandbox, &declaration, &service.maps())?;
    // CAP_SETPCAP is what reduces the bounding set, the second time too.
    capabilities::keep((declaration.all_capabilities() | CapabilitySet::SETPCAP) & left)?;
    let threads = Threads::new(declaration, seccomp, left)?;
    let made = opened.make(inside, &threads)?;
    let stop = ending::watch(signals, Arc::downgrade(&remover), threads.confined(Role::Signals))?;
    announce(service, &paths, open_files);
    report_panics_briefly();
    threads.confine(Role::ControlPlane)?;

    let options = serving.rings.options(threads.narrowed(Role::Lane));
    let served = serve_all(&listeners, &made.devices, &options, stop.as_fd());
    made.end();
    served.map(|()| 0)
}

/// Serves each device on its socket until `stop`, an eventfd, is readable. Where one cannot be served any longer, all end.
fn serve_all(
    listeners: &[UnixListener],
    devices: &[Box<dyn Device>],
    options: &backend::Options,
    stop: BorrowedFd<'_>,
) -> Result<(), Error> {
    let end_all = |_: &Error| {
        if let Err(errno) = rustix::io::write(stop, &1_u64.to_ne_bytes()) {
            tracing::error!("the other machines are served until a signal comes: {errno}");
        }
    };
    let serve = |listener: &UnixListener, device: &dyn Device| {
        let served = backend::serve(listener, device, options.clone(), stop);
        let served = served.map_err(|error| Error::Serve { reason: whole(&error) });
        served.inspect_err(end_all)
    };
    thread::scope(|scope| {
        let mut machines = listeners.iter().zip(devices);
        let first = machines.next();
        let mut others = Vec::new();
        for (number, (listener, device)) in machines.enumerate() {
            let (serve, thread) = (&serve, thread::Builder::new());
            let thread = thread.name(format!("machine-{}", number + 1));
            let started = thread.spawn_scoped(scope, move || serve(listener, &**device));
            let started = started.map_err(process::Error::system("start a thread"));
            others.push(started.map_err(Error::from).inspect_err(end_all)?);
        }
        // By this thread.
        let served = first.map_or(Ok(()), |(listener, device)| serve(listener, &**device));
        let join = |served: Result<(), Error>, other: thread::ScopedJoinHandle<'_, Result<(), Error>>| {
            served.and(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        };
        others.into_iter().fold(served, join)
    })
}

/// Enters the sandbox. Answers what is left of the host, and the capabilities that may be kept.
fn enter(mode: SandboxMode, declaration: &Declaration, maps: &Maps) -> Result<(Inside, CapabilitySet), Error> {
    let entered = sandbox::enter(mode.into(), declaration, maps)?;
    match &entered.ids {
        Some(ids) => tracing::info!("confined by {}: {ids}", entered.kind),
        None => tracing::info!("confined by {}", entered.kind),
    }
    for refusal in &entered.refused {
        tracing::debug!("not confined by {refusal}");
    }
    let inside = Inside {
        shared: entered.shared,
        proc_self_fd: entered.proc_self_fd,
        opens_handles: entered.opens_handles,
    };
    Ok((inside, entered.capabilities))
}

/// A panic is a defect that costs a request or a lane. A backtrace, for which files are opened, would cost the daemon.
fn report_panics_briefly() {
    std::panic::set_hook(Box::new(|panic| say::say(format_args!("defect: {panic}"))));
}

/// Prints what to paste and what limit holds, once the sockets listen.
fn announce(service: &dyn Service, paths: &[PathBuf], open_files: u64) {
    let lines: Vec<_> = paths.iter().map(|path| service.qemu().command_line(path)).collect();
    if !lines.is_empty() {
        say::announce(&service.announcement(&lines.join("\n\n  "), open_files));
    }
}
