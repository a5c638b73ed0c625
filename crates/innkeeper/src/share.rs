//! `innkeeper share`: one directory on one socket, for one virtual machine after another.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use fuse::failure::Failures;

use crate::args::Share;
use crate::error::Error;
use crate::error_log::ErrorLog;
use crate::{export, hint};
use process::signals::{ENDING, Signals};
use process::{ending, limits, socket};

/// Serves until a signal ends it. Answers the exit status.
pub(crate) fn run(args: &Share) -> Result<u8, Error> {
    export::check(&args.directory)?;
    let open_files = limits::raise_open_files(args.process.rlimit_nofile)?;
    process::capabilities::keep(export::KEPT)?;
    // Before the first thread, which would take the signals otherwise.
    let signals = Signals::take(&ENDING).map_err(process::Error::system("wait for signals"))?;
    let errors = ErrorLog::open(&args.errors)?;
    let failures = errors.clone().map(|errors| errors as Arc<dyn Failures>);
    let device = export::device(&args.directory, &args.tag, &args.export, failures)?;
    // The file is removed on every way out.
    let (listener, file) = match (&args.endpoint.socket_path, args.endpoint.fd) {
        (Some(path), _) => {
            socket::listen(path, args.socket_group.as_deref()).map(|(listener, file)| (listener, Some(Arc::new(file))))
        }
        (None, Some(number)) => socket::inherit(number).map(|listener| (listener, None)),
        (None, None) => unreachable!("clap requires one of the two"),
    }?;
    let stop = ending::watch(signals, file.as_ref().map(Arc::downgrade).unwrap_or_default())?;
    announce(args, &listener, open_files);

    let served = export::serve(&listener, &device, &args.export, stop.as_fd());
    if let Some(errors) = errors {
        errors.end();
    }
    served.map(|()| 0)
}

/// Prints what to paste and what limit holds, once the socket listens.
fn announce(args: &Share, listener: &UnixListener, open_files: u64) {
    let Some(path) = args.endpoint.socket_path.clone().or_else(|| socket::path_of(listener)) else {
        return;
    };
    let text = format!(
        "Sharing {}. Start the virtual machine with\n\n  {}\n\nand mount the share in the guest with\n\n  {}\n\n\
         At most {open_files} files are open at a time (--rlimit-nofile).\n",
        args.directory.display(),
        hint::qemu(&path, &args.tag, &args.export),
        hint::mount(&args.tag, &args.export),
    );
    process::say::announce(&text);
}
