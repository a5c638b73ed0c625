//! `innkeeper boot`: daemon and virtual machine together, wired to the user's terminal.

mod accelerator;
pub(crate) mod args;
mod console;
mod cpio;
mod direct_boot;
mod error;
mod initramfs;
mod kernel;
mod modules;
mod own_program;
mod qemu;
mod root;
mod terminal;
mod wiring;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use accelerator::Accelerator;
use args::Boot;
use console::Console;
use direct_boot::DirectBoot;
use error::Error;
use kernel::Kernel;
use qemu::{Attached, Machine, Qemu};
use root::Root;

use terminal::RawMode;
use wiring::{Event, Wiring};

use crate::serve::connected;
use crate::serve::device::Attachment;
use process::limits;
use process::say::say;
use process::signals::{ENDING, Signals};

/// Boots the guest and stays until it ends. Answers the exit status.
pub(crate) fn run(args: &Boot) -> Result<u8, Error> {
    for kind in args.devices.kinds() {
        kind.check(&args.root)?;
    }
    let program = match args.devices.fs.export.dax {
        Some(_) => qemu::find_for_dax(args.qemu.as_deref())?,
        None => qemu::find(args.qemu.as_deref())?,
    };
    let root = Root::open(&args.root).map_err(|source| Error::Root {
        path: args.root.clone(),
        source,
    })?;
    let kernel = Kernel::find(args.kernel.as_deref(), &root, &args.root)?;
    let start = DirectBoot::plan(args, &root, &kernel)?;
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
    let (devices, at_end) = serve(args)?;
    let (console, guest_console) = pair()?;
    let (channel, guest_channel) = if args.command.is_empty() { None } else { Some(pair()?) }.unzip();
    let machine = Machine {
        accelerator: &accelerator,
        memory: args.memory.0,
        cpus: args.cpus,
        kernel: kernel.file.into(),
        initrd: start.initrd,
        words: start.words,
        devices,
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
    at_end.into_iter().for_each(|at_end| at_end());
    ended
}

/// What is to be done when the devices are served no more.
type AtEnd = Vec<Box<dyn FnOnce()>>;

/// Makes and serves all devices of the machine.
fn serve(args: &Boot) -> Result<(Vec<Attached>, AtEnd), Error> {
    let (mut devices, mut at_end) = (Vec::new(), Vec::new());
    for kind in args.devices.kinds() {
        for Attachment { made, qemu, threads } in
            kind.attach(&args.root, args.rings, args.system_calls.seccomp.into())?
        {
            at_end.extend(made.at_end);
            for device in made.devices {
                let socket = connected::serve(device, threads.clone(), args.rings)?;
                let qemu = qemu.clone();
                devices.push(Attached { qemu, socket });
            }
        }
    }
    Ok((devices, at_end))
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
