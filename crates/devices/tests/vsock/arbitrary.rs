//! Arbitrary bytes as packets of a guest and acts of host programs, checked against a model: data arrives in order and unchanged as
//! far as it arrives, the guest gets no more than its credit, and nothing leaks. The fuzz target `vsock` runs the same body.

#[path = "../common/resources.rs"]
mod resources;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use crate::bytes::Bytes;
use crate::driver::*;

use self::resources::Resources;

/// What takes longer hangs.
const LIMIT: Duration = Duration::from_secs(20);
/// Longer sessions take no input to new places.
const MOST_STEPS: u32 = 400;
/// Ports with a listener of streams, from 0 on. There are none on the others.
const LISTENERS: u32 = 2;

/// What happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    /// Connections that stood.
    pub(crate) stood: u32,
    /// RST and SHUTDOWN packets for the guest.
    pub(crate) ended: u32,
    /// Packets of data, both ways.
    pub(crate) data: u32,
}

/// Runs the guests that the bytes describe, one or two, and then a proper one.
pub(crate) fn run(bytes: &[u8]) -> Outcome {
    let start = Resources::now();
    let mut bytes = Bytes(bytes);
    let daemon = Daemon::with_connections(usize::from(bytes.u8() % 16) + 2);
    let listeners: Vec<_> = (0..LISTENERS).map(|port| daemon.listen(port)).collect();
    listeners
        .iter()
        .for_each(|listener| listener.set_nonblocking(true).expect("a socket"));
    let before = Resources::now();
    let mut outcome = Outcome::default();
    let two = bytes.u8() % 4 == 0;
    let (first, second) = bytes.0.split_at(if two { bytes.0.len() / 2 } else { bytes.0.len() });
    for bytes in [first, second] {
        if !bytes.is_empty() {
            let mut bytes = Bytes(bytes);
            let client = daemon.connect(&options(bytes.u8() & 1 != 0));
            let mut session = Session::new(client, &daemon, &listeners);
            session.run(&mut bytes);
            outcome.stood += session.outcome.stood;
            outcome.ended += session.outcome.ended;
            outcome.data += session.outcome.data;
            drop(session);
            before.await_return();
        }
    }
    // Of connections that the guests never saw.
    while listeners.iter().any(|listener| listener.accept().is_ok()) {}
    let mut client = daemon.connect(&options(false));
    client.give_buffers(4);
    let mut flow = open(&mut client);
    client.write(&mut flow, b"the next guest is served");
    drop(client);
    while listeners.iter().any(|listener| listener.accept().is_ok()) {}
    before.await_return();
    drop(listeners);
    drop(daemon);
    start.await_return();
    outcome
}

/// Opens a connection, as soon as it can be had: programs that have dialled and are gone count until the device has seen that.
fn open(client: &mut Client) -> Flow {
    let started = Instant::now();
    // No port of the guests before: what they had is reset first.
    for port in 9.. {
        let mut flow = Flow::new(STREAM, port, 0);
        client.send(&flow.packet(REQUEST, 0, 0), &[]);
        match client.receive_of(&mut flow).0.operation {
            RESPONSE => return flow,
            RST => assert!(started.elapsed() < LIMIT, "the next guest is not served"),
            other => panic!("operation {other}"),
        }
    }
    unreachable!("there are many ports")
}

/// A stream of a host program, and how much it received and sent.
struct Program {
    stream: UnixStream,
    /// It dialled, and its line is not answered.
    greets: bool,
    received: u64,
    sent: u64,
}

/// The guest's view of a connection.
#[derive(Clone, Copy, Debug, Default)]
struct View {
    sent: u64,
    received: u32,
    /// Highest byte that the guest gave room for.
    allowed: u32,
    stands: bool,
}

struct Session<'a> {
    client: Client,
    daemon: &'a Daemon,
    listeners: &'a [UnixListener],
    programs: Vec<Program>,
    /// By port of the guest and of the host.
    views: HashMap<(u32, u32), View>,
    /// Ports of the host that dialled last.
    dialled: (u32, u32),
    buffers: u32,
    outcome: Outcome,
}

impl<'a> Session<'a> {
    fn new(client: Client, daemon: &'a Daemon, listeners: &'a [UnixListener]) -> Self {
        Self {
            client,
            daemon,
            listeners,
            programs: Vec::new(),
            views: HashMap::new(),
            dialled: (0, 0),
            buffers: 0,
            outcome: Outcome::default(),
        }
    }

    fn run(&mut self, bytes: &mut Bytes<'_>) {
        let mut steps = 0;
        while !bytes.is_empty() && steps < MOST_STEPS {
            steps += 1;
            self.step(bytes);
            self.receive();
        }
        self.give(32);
        self.client.settle();
        self.receive();
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.u8() {
            0..=139 => self.send(bytes),
            140..=169 => self.give(u32::from(bytes.u8() % 8)),
            170..=184 => self.dial(bytes),
            185..=199 => self.accept(),
            200..=214 => self.write(bytes),
            215..=234 => self.read(bytes),
            235..=244 => {
                if !self.programs.is_empty() {
                    let which = usize::from(bytes.u8()) % self.programs.len();
                    self.programs.swap_remove(which);
                }
            }
            _ => self.client.settle(),
        }
    }

    fn give(&mut self, count: u32) {
        let count = count.min(24 - self.buffers.min(24));
        self.client.give_buffers(count);
        self.buffers += count;
    }

    /// A packet, not always a sensible one.
    fn send(&mut self, bytes: &mut Bytes<'_>) {
        let ports = match bytes.u8() {
            0..=199 => (u32::from(bytes.u8() % 3), u32::from(bytes.u8() % 3)),
            _ => self.dialled,
        };
        let view = self.views.entry(ports).or_default();
        let flow = Flow {
            received: view.received,
            ..Flow::new(STREAM, ports.0, ports.1)
        };
        let operation = match bytes.u8() {
            0..=59 => REQUEST,
            60..=79 => RESPONSE,
            80..=84 => RST,
            85..=99 => SHUTDOWN,
            100..=209 => RW,
            210..=229 => CREDIT_UPDATE,
            230..=249 => CREDIT_REQUEST,
            _ => bytes.u16(),
        };
        let length = if operation == RW {
            usize::from(bytes.u16() % 5000)
        } else {
            0
        };
        let mut packet = flow.packet(operation, u32::from(bytes.u8() & 3), length as u32);
        packet.buffer = u32::from(bytes.u16());
        let proper = (packet.kind, packet.source, packet.destination);
        match bytes.u8() {
            0..=5 => packet.length = bytes.u32(),
            6..=8 => packet.kind = bytes.u16(),
            9..=11 => packet.source.0 = bytes.u64(),
            12..=14 => packet.destination.0 = bytes.u64(),
            15..=17 => packet.forwarded = bytes.u32(),
            _ => {}
        }
        let proper = proper == (packet.kind, packet.source, packet.destination);
        view.allowed = view.allowed.max(packet.forwarded.saturating_add(packet.buffer));
        // Either makes a connection, or ends it. A program's request may have been answered before it was seen.
        if proper && matches!(operation, REQUEST | RESPONSE) {
            view.sent = 0;
        }
        let payload = pattern(view.sent, length);
        if operation == RW {
            view.sent += if proper { length as u64 } else { 0 };
            self.outcome.data += 1;
        }
        self.client.post(&packet, &payload);
        let started = Instant::now();
        while !self.client.poll_sent() {
            assert!(started.elapsed() < LIMIT, "{packet:?} is not taken");
            self.receive();
            self.give(4);
            std::thread::yield_now();
        }
    }

    /// Takes the packets that there are.
    fn receive(&mut self) {
        while let Some((packet, data)) = self.client.poll() {
            self.buffers -= 1;
            let ports = (packet.destination.1, packet.source.1);
            let view = self.views.entry(ports).or_default();
            match packet.operation {
                REQUEST | RESPONSE => {
                    *view = View {
                        allowed: view.allowed,
                        stands: true,
                        sent: view.sent,
                        received: 0,
                    };
                    self.outcome.stood += 1;
                    if packet.operation == REQUEST {
                        self.dialled = ports;
                    }
                }
                RW => {
                    assert!(view.stands, "data of no connection: {packet:?}");
                    assert_eq!(data, pattern(view.received.into(), data.len()), "{packet:?}");
                    view.received += packet.length;
                    assert!(view.received <= view.allowed, "more than the credit: {packet:?}");
                    self.outcome.data += 1;
                }
                RST => {
                    view.stands = false;
                    self.outcome.ended += 1;
                }
                SHUTDOWN => self.outcome.ended += 1,
                CREDIT_UPDATE | CREDIT_REQUEST => {}
                other => panic!("operation {other}"),
            }
        }
    }

    fn dial(&mut self, bytes: &mut Bytes<'_>) {
        let line = match bytes.u8() {
            0..=219 => format!("CONNECT {}\n", bytes.u8() % 3),
            220..=239 => "CONN".into(),
            // No complete line: what follows it would be no part of the pattern.
            _ => String::from_utf8_lossy(bytes.some(30)).replace('\n', " "),
        };
        let stream = self.daemon.dial(&line);
        self.add(stream, true);
    }

    fn accept(&mut self) {
        for listener in self.listeners {
            if let Ok((stream, _)) = listener.accept() {
                self.add(stream, false);
            }
        }
    }

    fn add(&mut self, stream: UnixStream, greets: bool) {
        stream.set_nonblocking(true).expect("a socket");
        if self.programs.len() < 16 {
            self.programs.push(Program {
                stream,
                greets,
                received: 0,
                sent: 0,
            });
        }
    }

    fn write(&mut self, bytes: &mut Bytes<'_>) {
        let length = usize::from(bytes.u16());
        let Some(program) = pick(&mut self.programs, bytes) else {
            return;
        };
        let payload = pattern(program.sent, length);
        if let Ok(sent) = program.stream.write(&payload) {
            program.sent += sent as u64;
        }
    }

    fn read(&mut self, bytes: &mut Bytes<'_>) {
        let Some(program) = pick(&mut self.programs, bytes) else {
            return;
        };
        let mut space = [0; 1 << 16];
        if program.greets {
            let Ok(1..) = program.stream.read(&mut space[..1]) else {
                return;
            };
            assert_eq!(space[0], b'O');
            program.stream.set_nonblocking(false).expect("a socket");
            line_of(&mut program.stream);
            program.stream.set_nonblocking(true).expect("a socket");
            program.greets = false;
        }
        if let Ok(length) = program.stream.read(&mut space) {
            assert_eq!(space[..length], pattern(program.received, length));
            program.received += length as u64;
        }
    }
}

fn pick<'p>(programs: &'p mut [Program], bytes: &mut Bytes<'_>) -> Option<&'p mut Program> {
    let count = programs.len();
    let which = usize::from(bytes.u8()).checked_rem(count)?;
    programs.get_mut(which)
}
