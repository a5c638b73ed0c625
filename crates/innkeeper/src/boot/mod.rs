//! `innkeeper boot`: daemon and virtual machine together, wired to the user's terminal.

mod accelerator;
mod console;
mod cpio;
mod initramfs;
mod kernel;
mod modules;
mod own;
pub(crate) mod qemu;
mod root;
mod start;
mod terminal;
mod wiring;

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use accelerator::Accelerator;
use console::Console;
use fuse::failure::Failures;
use kernel::Kernel;
use qemu::{Machine, Qemu};
use root::Root;
use start::{ROOT_TAG, Start};
use terminal::RawMode;
use wiring::{Event, Wiring};

use crate::args::{Boot, Ring, SharedDirectory};
use crate::error::Error;
use crate::error_log::ErrorLog;
use crate::export;
use process::limits;
use process::say::say;
use process::signals::{ENDING, Signals};

/// Boots the guest and stays until it ends. Answers the exit status.
pub(crate) fn run(args: &Boot) -> Result<u8, Error> {
    let shares = all_shares(args)?;
    for share in &shares {
        export::check(&share.directory)?;
    }
    let program = match args.export.dax {
        Some(_) => qemu::find_for_dax(args.qemu.as_deref())?,
        None => qemu::find(args.qemu.as_deref())?,
    };
    let root = Root::open(&args.root).map_err(|source| Error::Directory {
        path: args.root.clone(),
        source,
    })?;
    let kernel = Kernel::find(args.kernel.as_deref(), &root, &args.root)?;
    let start = Start::plan(args, &root, &kernel)?;
    let accelerator = Accelerator::probe(&program, &kernel.file)?;
    let open_files = limits::raise_open_files(args.process.rlimit_nofile)?;
    tracing::info!("at most {open_files} files are open at a time (--rlimit-nofile)");
    let (path, release) = (args.root.display(), &kernel.release);
    say(format_args!(
        "booting {path} with kernel {release} and {} on {accelerator}",
        start.description
    ));

    // Before the first thread, which would take the signals otherwise.
    let signals = Signals::take(&[&ENDING[..], &[libc::SIGWINCH]].concat())
        .map_err(process::Error::system("wait for signals"))?;
    let errors = ErrorLog::open(&args.errors)?;
    let failures = errors.clone().map(|errors| errors as Arc<dyn Failures>);
    let (console, guest_console) = pair()?;
    let (channel, guest_channel) = if args.command.is_empty() { None } else { Some(pair()?) }.unzip();
    let machine = Machine {
        accelerator: &accelerator,
        memory: args.memory.0,
        cpus: args.cpus,
        kernel: kernel.file.into(),
        initrd: start.initrd,
        words: start.words,
        shares: shares
            .iter()
            .map(|share| serve(share, args, failures.clone()))
            .collect::<Result<_, _>>()?,
        export: &args.export,
        packed: args.export.ring != Ring::Split,
        console: guest_console.into(),
        channel: guest_channel.map(OwnedFd::from),
    };
    // From here on every way out, a panic too, ends QEMU and gives the terminal back.
    let raw = if terminal::interactive() {
        Some(RawMode::enter())
    } else {
        None
    };
    let _raw = raw
        .transpose()
        .map_err(process::Error::system("switch the terminal to raw mode"))?;
    let qemu = machine.start(&program)?;
    let wiring = Wiring::start(console, channel, args.verbose, signals)?;
    let ended = supervise(qemu, wiring);
    if let Some(errors) = errors {
        errors.end();
    }
    ended
}

/// The root and what `--share` names, each with a tag of its own.
fn all_shares(args: &Boot) -> Result<Vec<SharedDirectory>, Error> {
    let root = SharedDirectory {
        directory: args.root.clone(),
        tag: ROOT_TAG.into(),
    };
    let shares = [&[root], &args.shares[..]].concat();
    let mut tags = HashSet::new();
    match shares.iter().find(|share| !tags.insert(&share.tag)) {
        Some(twice) => Err(Error::TagTaken {
            tag: twice.tag.clone(),
            root: ROOT_TAG,
        }),
        None => Ok(shares),
    }
}

fn serve(share: &SharedDirectory, args: &Boot, failures: Option<Arc<dyn Failures>>) -> Result<qemu::Share, Error> {
    let device = export::device(&share.directory, &share.tag, &args.export, failures)?;
    Ok(qemu::Share {
        tag: share.tag.clone(),
        socket: export::serve_connected(device, &args.export)?,
    })
}

fn pair() -> Result<(UnixStream, UnixStream), Error> {
    Ok(UnixStream::pair().map_err(process::Error::system("make a pair of sockets"))?)
}

/// Waits for whatever ends this guest. QEMU is killed on return.
fn supervise(qemu: Qemu, wiring: Wiring) -> Result<u8, Error> {
    let mut console = Console::default();
    let with_command = wiring.has_channel();
    let mut open = 1 + u8::from(with_command);
    while open > 0 {
        match wiring.next() {
            Event::Console(output) => console.take(&output),
            Event::Exit(code) => return Ok(code),
            Event::Resized => wiring.resize(),
            Event::Signal(signal) => return Ok(128 + u8::try_from(signal).unwrap_or(0)),
            Event::Leave => return Ok(0),
            Event::ChannelBroken(reason) => return Err(Error::Channel { reason }),
            // QEMU has closed it: it has ended, or is about to.
            Event::Closed => open -= 1,
        }
    }
    qemu.wait()?;
    match (console.failure.take(), console.panic.take()) {
        (Some(line), _) => Err(Error::GuestSetup { line }),
        (None, Some(line)) => Err(Error::Panicked { line }),
        (None, None) if with_command => Err(Error::EndedEarly {
            console: console.tail(),
        }),
        (None, None) => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Arguments, Job};

    #[test]
    fn no_two_shares_have_one_tag() {
        let tags = |options: &[&str]| {
            let line = ["innkeeper", "boot", "/srv"].iter().chain(options);
            let Job::Boot(args) = Arguments::parse_from(line).job else {
                panic!("boot was asked for")
            };
            all_shares(&args).map(|shares| shares.into_iter().map(|share| share.tag).collect::<Vec<_>>())
        };
        assert_eq!(
            tags(&["--share", "/a:x", "--share", "/b:y"]).unwrap(),
            ["rootfs", "x", "y"]
        );
        assert!(matches!(
            tags(&["--share", "/a:x", "--share", "/b:x"]),
            Err(Error::TagTaken { .. })
        ));
        assert!(matches!(tags(&["--share", "/a:rootfs"]), Err(Error::TagTaken { .. })));
    }
}
