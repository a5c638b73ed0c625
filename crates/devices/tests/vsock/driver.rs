//! The socket device on a socket, and its driver half: a guest with connections and credit of its own.

#[path = "../common/served.rs"]
mod served;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;

use ::driver::{Guest, Options, Ticket};
use devices::vsock::{VsockDevice, VsockOptions};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, accept, bind, listen, socket};

use self::served::{SOCKET, Served};

/// CID of the guest, and of the host.
pub(crate) const GUEST: u64 = 77;
pub(crate) const HOST: u64 = 2;
/// Bytes of a packet's header.
pub(crate) const HEADER: usize = 44;
/// Bytes of an rx buffer, as Linux has them.
pub(crate) const BUFFER: u32 = 4096;
/// Credit that the guest gives.
pub(crate) const CREDIT: u32 = 64 << 10;

pub(crate) const STREAM: u16 = 1;
pub(crate) const SEQPACKET: u16 = 2;
/// Feature bit of SOCK_SEQPACKET.
pub(crate) const F_SEQPACKET: u64 = 1 << 1;

pub(crate) const REQUEST: u16 = 1;
pub(crate) const RESPONSE: u16 = 2;
pub(crate) const RST: u16 = 3;
pub(crate) const SHUTDOWN: u16 = 4;
pub(crate) const RW: u16 = 5;
pub(crate) const CREDIT_UPDATE: u16 = 6;
pub(crate) const CREDIT_REQUEST: u16 = 7;

/// Flags of SHUTDOWN and of messages.
pub(crate) const NO_RECEIVE: u32 = 1;
pub(crate) const NO_SEND: u32 = 2;
pub(crate) const EOM: u32 = 1;

const RX: usize = 0;
const TX: usize = 1;
const EVENT: usize = 2;

/// Bytes of a stream from `start` on, which repeat nowhere soon.
pub(crate) fn pattern(start: u64, length: usize) -> Vec<u8> {
    let byte_at = |position: u64| (position.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    (start..start + length as u64).map(byte_at).collect()
}

/// The device on a socket, until dropped.
pub(crate) struct Daemon(Served);

impl Daemon {
    pub(crate) fn new() -> Self {
        Self::with_connections(4096)
    }

    pub(crate) fn with_connections(connections: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("v");
        let options = VsockOptions {
            guest_cid: GUEST as u32,
            path: path.clone(),
            connections,
        };
        let device = VsockDevice::new(options, UnixListener::bind(path).unwrap()).unwrap();
        Self(Served::start(directory, Arc::new(device)))
    }

    /// The Unix socket of a port of the host.
    pub(crate) fn path_of(&self, port: u32) -> PathBuf {
        self.0.path(&format!("v_{port}"))
    }

    /// A host program that listens on a port.
    pub(crate) fn listen(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.path_of(port)).unwrap()
    }

    /// The same for messages.
    pub(crate) fn listen_for_messages(&self, port: u32) -> OwnedFd {
        let listener = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        bind(&listener, &SocketAddrUnix::new(self.path_of(port)).unwrap()).unwrap();
        listen(&listener, 10).unwrap();
        listener
    }

    /// A host program that has sent this first.
    pub(crate) fn dial(&self, line: &str) -> UnixStream {
        let mut stream = UnixStream::connect(self.0.path("v")).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        stream
    }

    pub(crate) fn connect(&self, options: &Options) -> Client {
        Client::new(Guest::connect(&self.0.path(SOCKET), options).unwrap())
    }
}

/// Packed or split, with all queues and all features.
pub(crate) fn options(packed: bool) -> Options {
    let defaults = Options::default();
    Options {
        queues: 3,
        packed,
        place_size: 80 << 10,
        features: defaults.features | 0b11,
        ..defaults
    }
}

/// A packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) source: (u64, u32),
    pub(crate) destination: (u64, u32),
    pub(crate) length: u32,
    pub(crate) kind: u16,
    pub(crate) operation: u16,
    pub(crate) flags: u32,
    pub(crate) buffer: u32,
    pub(crate) forwarded: u32,
}

impl Packet {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.source.0.to_le_bytes());
        bytes.extend(self.destination.0.to_le_bytes());
        bytes.extend(self.source.1.to_le_bytes());
        bytes.extend(self.destination.1.to_le_bytes());
        bytes.extend(self.length.to_le_bytes());
        bytes.extend(self.kind.to_le_bytes());
        bytes.extend(self.operation.to_le_bytes());
        for word in [self.flags, self.buffer, self.forwarded] {
            bytes.extend(word.to_le_bytes());
        }
        bytes
    }

    fn of(bytes: &[u8]) -> Self {
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let short = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap());
        Self {
            source: (long(0), word(16)),
            destination: (long(8), word(20)),
            length: word(24),
            kind: short(28),
            operation: short(30),
            flags: word(32),
            buffer: word(36),
            forwarded: word(40),
        }
    }
}

/// A connection as the guest has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) kind: u16,
    pub(crate) guest_port: u32,
    pub(crate) host_port: u32,
    /// Counters of both sides.
    pub(crate) sent: u32,
    pub(crate) received: u32,
    pub(crate) host_buffer: u32,
    pub(crate) host_forwarded: u32,
}

impl Flow {
    pub(crate) fn new(kind: u16, guest_port: u32, host_port: u32) -> Self {
        Self {
            kind,
            guest_port,
            host_port,
            sent: 0,
            received: 0,
            host_buffer: 0,
            host_forwarded: 0,
        }
    }

    /// A packet of it. All that was received is consumed at once.
    pub(crate) fn packet(&self, operation: u16, flags: u32, length: u32) -> Packet {
        Packet {
            source: (GUEST, self.guest_port),
            destination: (HOST, self.host_port),
            length,
            kind: self.kind,
            operation,
            flags,
            buffer: CREDIT,
            forwarded: self.received,
        }
    }

    pub(crate) fn room(&self) -> u32 {
        self.host_buffer - self.sent.wrapping_sub(self.host_forwarded)
    }

    pub(crate) fn is_of(&self, packet: &Packet) -> bool {
        (packet.destination.1, packet.source.1) == (self.guest_port, self.host_port)
    }
}

/// A guest of the device.
pub(crate) struct Client {
    pub(crate) guest: Guest,
    /// Packets that came while others were waited for.
    came: VecDeque<(Packet, Vec<u8>)>,
    /// Events of the event queue that are not read.
    events: Option<Ticket>,
}

impl Client {
    pub(crate) fn new(guest: Guest) -> Self {
        Self {
            guest,
            came: VecDeque::new(),
            events: None,
        }
    }

    /// Gives the device so many rx buffers, and as many again as it uses.
    pub(crate) fn give_buffers(&mut self, count: u32) {
        for _ in 0..count {
            self.guest.queues[RX].submit(&[], BUFFER).unwrap();
        }
    }

    /// Waits until the device has taken a packet.
    pub(crate) fn send(&mut self, packet: &Packet, payload: &[u8]) {
        self.post(packet, payload);
        self.wait_sent();
    }

    /// Sends a packet for which there is nobody to wait.
    pub(crate) fn post(&mut self, packet: &Packet, payload: &[u8]) {
        let bytes = [packet.bytes().as_slice(), payload].concat();
        self.guest.queues[TX].submit(&bytes, 0).unwrap();
    }

    pub(crate) fn wait_sent(&mut self) {
        assert_eq!(
            self.guest.queues[TX].wait().unwrap().1,
            0,
            "VS-11: nothing is written on tx"
        );
    }

    /// Whether a packet was taken.
    pub(crate) fn poll_sent(&mut self) -> bool {
        self.guest.queues[TX].poll().unwrap().is_some()
    }

    /// The next packet for the guest.
    pub(crate) fn receive(&mut self) -> (Packet, Vec<u8>) {
        if let Some(came) = self.came.pop_front() {
            return came;
        }
        let (_, written, bytes) = self.guest.queues[RX].wait().unwrap();
        self.guest.queues[RX].submit(&[], BUFFER).unwrap();
        let packet = Packet::of(&bytes);
        assert_eq!(packet.source.0, HOST);
        assert_eq!(packet.destination.0, GUEST);
        assert_eq!(written as usize, HEADER + packet.length as usize, "VS-11");
        (packet, bytes[HEADER..].to_vec())
    }

    /// The next packet for the guest if there is one. Its buffer is not given again.
    pub(crate) fn poll(&mut self) -> Option<(Packet, Vec<u8>)> {
        let (_, written, bytes) = self.guest.queues[RX].poll().unwrap()?;
        let packet = Packet::of(&bytes);
        assert_eq!(written as usize, HEADER + packet.length as usize, "VS-11");
        Some((packet, bytes[HEADER..].to_vec()))
    }

    /// The next packet of a connection. Others are kept.
    pub(crate) fn receive_of(&mut self, flow: &mut Flow) -> (Packet, Vec<u8>) {
        let mut others = VecDeque::new();
        let found = loop {
            let (packet, bytes) = self.receive();
            if flow.is_of(&packet) {
                break (packet, bytes);
            }
            others.push_back((packet, bytes));
        };
        others.append(&mut self.came);
        self.came = others;
        if found.0.operation != RST {
            (flow.host_buffer, flow.host_forwarded) = (found.0.buffer, found.0.forwarded);
        }
        assert_eq!(found.0.kind, flow.kind);
        flow.received = flow.received.wrapping_add(found.0.length);
        found
    }

    /// The next packet of a connection, which must be this one.
    pub(crate) fn expect(&mut self, flow: &mut Flow, operation: u16) -> (Packet, Vec<u8>) {
        loop {
            let (packet, bytes) = self.receive_of(flow);
            // Never wrong, and never expected.
            let of_credit = matches!(packet.operation, CREDIT_UPDATE | CREDIT_REQUEST);
            if of_credit && packet.operation != operation {
                continue;
            }
            assert_eq!(packet.operation, operation, "{packet:?}");
            return (packet, bytes);
        }
    }

    /// Connects to a port of the host.
    pub(crate) fn open(&mut self, kind: u16, guest_port: u32, host_port: u32) -> Flow {
        let mut flow = Flow::new(kind, guest_port, host_port);
        self.send(&flow.packet(REQUEST, 0, 0), &[]);
        self.expect(&mut flow, RESPONSE);
        flow
    }

    /// Accepts the next connection to the guest.
    pub(crate) fn accept(&mut self) -> Flow {
        let (packet, _) = self.receive();
        assert_eq!(packet.operation, REQUEST);
        assert!(packet.source.1 >= 1024, "VS-13");
        let mut flow = Flow::new(packet.kind, packet.destination.1, packet.source.1);
        (flow.host_buffer, flow.host_forwarded) = (packet.buffer, packet.forwarded);
        self.send(&flow.packet(RESPONSE, 0, 0), &[]);
        flow
    }

    /// Sends data within the credit, and waits for more of it where it must.
    pub(crate) fn write(&mut self, flow: &mut Flow, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = bytes.len().min(flow.room() as usize).min(64 << 10);
            if room == 0 {
                self.send(&flow.packet(CREDIT_REQUEST, 0, 0), &[]);
                while flow.room() == 0 {
                    self.receive_of(flow);
                }
                continue;
            }
            self.send(&flow.packet(RW, 0, room as u32), &bytes[..room]);
            flow.sent = flow.sent.wrapping_add(room as u32);
            bytes = &bytes[room..];
        }
    }

    /// Receives so many bytes.
    pub(crate) fn read(&mut self, flow: &mut Flow, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let (packet, more) = self.receive_of(flow);
            match packet.operation {
                RW => bytes.extend(more),
                CREDIT_REQUEST => self.send(&flow.packet(CREDIT_UPDATE, 0, 0), &[]),
                CREDIT_UPDATE => {}
                _ => panic!("{packet:?}"),
            }
        }
        bytes
    }

    /// Receives a message.
    pub(crate) fn read_message(&mut self, flow: &mut Flow) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let (packet, more) = self.receive_of(flow);
            match packet.operation {
                RW => bytes.extend(more),
                CREDIT_REQUEST => self.send(&flow.packet(CREDIT_UPDATE, 0, 0), &[]),
                CREDIT_UPDATE => {}
                _ => panic!("{packet:?}"),
            }
            if packet.operation == RW && packet.flags & EOM != 0 {
                return bytes;
            }
        }
    }

    /// The device has looked at all that is in the queues.
    pub(crate) fn settle(&mut self) {
        for queue in [TX, RX] {
            let base = self.guest.stop(queue as u16).unwrap();
            self.guest.start(queue as u16, base).unwrap();
        }
    }

    /// There is no packet for the guest.
    pub(crate) fn assert_quiet(&mut self) {
        self.settle();
        assert!(self.came.is_empty(), "{:?}", self.came);
        assert_eq!(self.guest.queues[RX].poll().unwrap(), None);
    }

    /// Gives the event queue a buffer.
    pub(crate) fn listen_for_events(&mut self) {
        self.events = Some(self.guest.queues[EVENT].submit(&[], 4).unwrap());
    }

    pub(crate) fn event(&mut self) -> Vec<u8> {
        let (ticket, _, bytes) = self.guest.queues[EVENT].wait().unwrap();
        assert_eq!(Some(ticket), self.events.take());
        bytes
    }
}

/// The next connection to a listener of messages.
pub(crate) fn accept_messages(listener: &OwnedFd) -> OwnedFd {
    accept(listener).unwrap()
}

/// A host program's answer, up to the end of the line.
pub(crate) fn line_of(stream: &mut UnixStream) -> String {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        if stream.read(&mut byte).unwrap() == 0 {
            break;
        }
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}
