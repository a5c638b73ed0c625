//! Threads between the guest and the user: they pass bytes on, and report important ones as events.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::error::Error;
use super::terminal::{self, Escape};
use crate::guest::channel::{Frame, PAYLOAD_BYTES};
use process::signals::Signals;

/// Events and frames that may wait. Bounded, so that a guest that talks much waits for us and not our memory for it.
const WAITING: usize = 16;

/// What the one event loop of `boot` hears of.
#[derive(Debug)]
pub(crate) enum Event {
    /// The guest said this on its serial console.
    Console(Vec<u8>),
    /// The command has ended with this status.
    Exit(u8),
    /// The user's terminal has another size.
    Resized,
    /// Innkeeper got a signal that ends it.
    Signal(i32),
    /// The user typed Ctrl-a x.
    Leave,
    /// The guest's end of the channel makes no sense.
    ChannelBroken(String),
    /// QEMU closed the console or the channel.
    Closed,
}

/// The running threads, seen from the event loop.
#[derive(Debug)]
pub(crate) struct Wiring {
    events: Receiver<Event>,
    to_guest: Option<SyncSender<Frame>>,
}

impl Wiring {
    /// Wires the user to the command's `channel` if there is one, and to the `console` otherwise.
    pub(crate) fn start(
        console: UnixStream,
        channel: Option<UnixStream>,
        verbose: bool,
        signals: Signals,
    ) -> Result<Self, Error> {
        let (sender, events) = sync_channel(WAITING);
        let clone = |stream: &UnixStream| {
            stream
                .try_clone()
                .map_err(process::Error::system("share a socket among threads"))
        };
        spawn(&sender, move |events| pass_signals(&signals, events));
        let Some(channel) = channel else {
            let to_guest = clone(&console)?;
            spawn(&sender, move |events| read_console(console, io::stdout(), events));
            spawn(&sender, move |events| type_on_console(to_guest, events));
            return Ok(Self { events, to_guest: None });
        };
        match verbose {
            true => spawn(&sender, move |events| read_console(console, io::stderr(), events)),
            false => spawn(&sender, move |events| read_console(console, io::sink(), events)),
        }
        let (to_guest, frames) = sync_channel(WAITING);
        let writer = clone(&channel)?;
        thread::spawn(move || write_frames(writer, &frames));
        spawn(&sender, move |events| read_channel(channel, events));
        let wiring = Self {
            events,
            to_guest: Some(to_guest.clone()),
        };
        if terminal::interactive() {
            // The guest waits for the size before it starts the command.
            wiring.resize();
        }
        thread::spawn(move || read_input(&to_guest));
        Ok(wiring)
    }

    /// Waits for the next event.
    pub(crate) fn next(&self) -> Event {
        // The thread that waits for signals never ends, so there is always a sender.
        self.events.recv().unwrap_or(Event::Closed)
    }

    /// Whether a command is wired up.
    pub(crate) fn has_channel(&self) -> bool {
        self.to_guest.is_some()
    }

    /// Tells the guest the size of the user's terminal.
    pub(crate) fn resize(&self) {
        if let (Some(to_guest), Some((rows, columns))) = (&self.to_guest, terminal::size()) {
            // If the guest reads nothing at present, waiting here would make innkeeper deaf.
            let _ = to_guest.try_send(Frame::Size(rows, columns));
        }
    }
}

/// A receiver that is gone means that innkeeper is ending, and the thread with it.
type Gone = std::sync::mpsc::SendError<Event>;

fn spawn(events: &SyncSender<Event>, body: impl FnOnce(&SyncSender<Event>) -> Result<(), Gone> + Send + 'static) {
    let events = events.clone();
    thread::spawn(move || body(&events));
}

fn pass_signals(signals: &Signals, events: &SyncSender<Event>) -> Result<(), Gone> {
    loop {
        match signals.wait() {
            Ok(libc::SIGWINCH) => events.send(Event::Resized)?,
            Ok(signal) => events.send(Event::Signal(signal))?,
            Err(error) => {
                tracing::error!("cannot wait for signals any more: {error}");
                return Ok(());
            }
        }
    }
}

/// Passes the console on to `user` and to the event loop.
fn read_console(mut console: UnixStream, mut user: impl Write, events: &SyncSender<Event>) -> Result<(), Gone> {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = console.read(&mut buffer) {
        if !deliver(&mut user, &buffer[..length]) {
            events.send(Event::Signal(libc::SIGPIPE))?;
        }
        events.send(Event::Console(buffer[..length].to_vec()))?;
    }
    events.send(Event::Closed)
}

fn type_on_console(mut console: UnixStream, events: &SyncSender<Event>) -> Result<(), Gone> {
    let mut escape = terminal::interactive().then(Escape::default);
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = io::stdin().read(&mut buffer) {
        let (keys, leave) = match &mut escape {
            Some(escape) => escape.filter(&buffer[..length]),
            None => (buffer[..length].to_vec(), false),
        };
        if leave {
            return events.send(Event::Leave);
        }
        if console.write_all(&keys).is_err() {
            break;
        }
    }
    Ok(())
}

/// Passes the command's output on to the user, until its exit status comes.
fn read_channel(mut channel: UnixStream, events: &SyncSender<Event>) -> Result<(), Gone> {
    loop {
        let delivered = match Frame::receive(&mut channel) {
            Ok(Frame::Output(bytes)) => deliver(&mut io::stdout(), &bytes),
            Ok(Frame::Errors(bytes)) => deliver(&mut io::stderr(), &bytes),
            Ok(Frame::Exit(code)) => return events.send(Event::Exit(code)),
            Ok(Frame::Input(_) | Frame::InputEnd | Frame::Size(..)) => {
                return events.send(Event::ChannelBroken("it sent what only the host may send".into()));
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return events.send(Event::ChannelBroken(error.to_string()));
            }
            Err(_) => return events.send(Event::Closed),
        };
        if !delivered {
            events.send(Event::Signal(libc::SIGPIPE))?;
        }
    }
}

fn write_frames(mut channel: UnixStream, frames: &Receiver<Frame>) {
    for frame in frames {
        if frame.send(&mut channel).is_err() {
            // QEMU has ended; whoever reads says so.
            return;
        }
    }
}

fn read_input(to_guest: &SyncSender<Frame>) {
    let mut buffer = vec![0; PAYLOAD_BYTES];
    while let Ok(length @ 1..) = io::stdin().read(&mut buffer) {
        if to_guest.send(Frame::Input(buffer[..length].to_vec())).is_err() {
            return;
        }
    }
    // Fails only if nobody listens any more.
    let _ = to_guest.send(Frame::InputEnd);
}

/// Whether somebody still takes the output.
fn deliver(user: &mut impl Write, bytes: &[u8]) -> bool {
    user.write_all(bytes).and_then(|()| user.flush()).is_ok()
}
