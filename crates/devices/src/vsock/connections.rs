//! All connections of one guest, and the packets that belong to none.
//!
//! Everything is bounded: connections by their number, data of the guest by the credit that it got, replies to packets of no
//! connection by [`RESETS_MOST`], behind which no packet of the guest is taken until it has taken some (VIRTIO 1.2 5.10.6.1).

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use backend::{Files, Interest};
use guestmem::{Reader, Writer};
use rustix::io::Errno;
use tracing::{debug, warn};

use super::connection::{Connection, Fate, Step};
use super::host::{Greeted, Host};
use super::wire::{Flow, HEADER, Header, Kind, operation};
use super::{Guest, HOST_CID};

/// Number of the listener in [`Files`]; connections follow.
const LISTENER: u64 = 0;
/// Host programs accepted at a time.
const ACCEPTED_AT_A_TIME: u32 = 16;
/// RST packets that may wait for the guest before its next packet is taken.
const RESETS_MOST: usize = 1024;

/// Bytes that a connection of the guest may have in our memory: many for the first connections, fewer for the others.
const BUFFER: u32 = 256 << 10;
const SMALL_BUFFER: u32 = 16 << 10;
/// The same for messages, which must fit into one packet of a Unix socket.
const MESSAGE_BUFFER: u32 = 128 << 10;
/// Connections with large buffers.
const LARGE_BUFFERS: usize = 256;

/// Lowest of the ports that host programs get: above those that programs choose.
const FIRST_PORT: u32 = 1 << 30;

/// The connections of one guest.
pub(super) struct Connections {
    guest: Guest,
    host: Arc<Host>,
    has_messages: bool,
    files: Files,
    is_listening: bool,
    slots: Vec<Option<Connection>>,
    free: Vec<usize>,
    by_flow: HashMap<Flow, usize>,
    /// Those with something to send, each once, in the order of their turns.
    list: VecDeque<usize>,
    /// Connections that are no more, or never were.
    resets: VecDeque<(Flow, u16)>,
    /// Connections of a former lane: the guest may still believe in them.
    lost: VecDeque<(Flow, u16)>,
    next_port: u32,
}

impl Connections {
    /// `has_messages` if the guest may use SOCK_SEQPACKET. `lost` are connections of which only the guest knows.
    pub(super) fn new(guest: Guest, host: Arc<Host>, has_messages: bool, lost: Vec<(Flow, u16)>) -> io::Result<Self> {
        let mut connections = Self {
            guest,
            host,
            has_messages,
            files: Files::new()?,
            is_listening: false,
            slots: Vec::new(),
            free: Vec::new(),
            by_flow: HashMap::new(),
            list: VecDeque::new(),
            resets: VecDeque::new(),
            lost: lost.into(),
            next_port: FIRST_PORT,
        };
        connections.listen();
        Ok(connections)
    }

    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    /// Whether another packet of the guest may be taken.
    pub(super) fn has_room(&self) -> bool {
        self.resets.len() < RESETS_MOST
    }

    /// Whether the guest believes in connections that are no more.
    pub(super) fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// The guest learns by an event that all connections are gone, new ones included.
    pub(super) fn forget_all(&mut self) {
        self.lost.clear();
        for slot in 0..self.slots.len() {
            self.remove(slot, Fate::Gone);
        }
        self.resets.clear();
    }

    /// The guest learns one by one that they are gone.
    pub(super) fn reset_lost(&mut self) {
        self.resets.append(&mut self.lost);
    }

    /// The connections of which the guest knows.
    pub(super) fn known(&self) -> impl Iterator<Item = (Flow, u16)> {
        let connections = self.slots.iter().flatten();
        let known = connections.filter(|connection| !connection.is_unknown_to_guest());
        let flows = known.filter_map(|connection| Some((connection.flow?, connection.kind as u16)));
        self.lost.iter().chain(&self.resets).copied().chain(flows)
    }

    /// Polls for host programs, if there is room for them.
    pub(super) fn listen(&mut self) {
        if !self.is_listening && self.has_slot() {
            let added = self.files.add(self.host.listener(), LISTENER, Interest::Reading);
            self.is_listening = added.is_ok();
            if let Err(error) = added {
                warn!(%error, "cannot wait for host programs that connect to the guest");
            }
        }
    }

    fn stop_listening(&mut self) {
        if self.is_listening {
            let removed = self.files.remove(self.host.listener());
            removed.unwrap_or_else(|error| warn!(%error, "cannot stop waiting for host programs"));
            self.is_listening = false;
        }
    }

    fn used(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn has_slot(&self) -> bool {
        self.used() < self.guest.connections
    }

    fn buffer(&self, kind: Kind) -> u32 {
        match kind {
            _ if self.used() >= LARGE_BUFFERS => SMALL_BUFFER,
            Kind::Stream => BUFFER,
            Kind::Record => MESSAGE_BUFFER,
        }
    }

    /// Handles a packet of the guest.
    pub(super) fn receive(&mut self, reader: &mut Reader<'_>) {
        let Ok(header) = reader.read_object::<Header>() else {
            debug!("the guest sent a packet without a header");
            return;
        };
        // From somebody else, which the guest cannot be.
        if header.source_cid.get() != u64::from(self.guest.cid) {
            debug!(?header, "the guest sent a packet in the name of another");
            return;
        }
        let flow = Flow::of(&header);
        if let Some(&slot) = self.by_flow.get(&flow)
            && let Some(connection) = self.connection(slot)
        {
            let fate = connection.receive(&header, reader);
            if fate != Fate::Stays {
                debug!(?header, ?fate, "the guest ended a connection");
            }
            return self.settle(slot, fate);
        }
        match header.operation.get() {
            // Never a RST in answer to a RST: the two sides would not stop.
            operation::RESET => {}
            operation::REQUEST => {
                if let Err(errno) = self.connect(flow, &header) {
                    debug!(?flow, %errno, "cannot connect the guest");
                    self.resets.push_back((flow, header.kind.get()));
                }
            }
            _ => self.resets.push_back((flow, header.kind.get())),
        }
    }

    /// Connects the guest to a host program.
    fn connect(&mut self, flow: Flow, request: &Header) -> Result<(), Errno> {
        let kind = Kind::of(request.kind).filter(|kind| *kind == Kind::Stream || self.has_messages);
        let kind = kind.ok_or(Errno::PROTONOSUPPORT)?;
        if flow.peer_cid != HOST_CID {
            return Err(Errno::HOSTUNREACH);
        }
        if !self.has_slot() {
            return Err(Errno::MFILE);
        }
        let socket = self.host.dial(kind, flow.peer_port)?;
        let connection = Connection::to_host(kind, flow, socket, self.buffer(kind), request);
        let slot = self.insert(connection);
        self.by_flow.insert(flow, slot);
        self.settle(slot, Fate::Stays);
        Ok(())
    }

    /// Handles a ready file.
    pub(super) fn ready(&mut self, file: u64) {
        let Some(slot) = file.checked_sub(1) else {
            return self.accept();
        };
        let slot = slot as usize;
        let Some(connection) = self.connection(slot) else {
            return;
        };
        if let Some(greeted) = connection.greet() {
            return self.greet(slot, greeted);
        }
        let fate = connection.ready();
        if fate == Fate::Stays && connection.may_have_data() {
            self.list(slot);
        }
        self.settle(slot, fate);
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTED_AT_A_TIME {
            if !self.has_slot() {
                return self.stop_listening();
            }
            match self.host.accept() {
                Ok(socket) => {
                    let slot = self.insert(Connection::from_host(socket, self.buffer(Kind::Stream)));
                    self.settle(slot, Fate::Stays);
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(errno) => {
                    warn!(%errno, "cannot accept a host program that connects to the guest; trying again later");
                    return self.stop_listening();
                }
            }
        }
    }

    fn greet(&mut self, slot: usize, greeted: Greeted) {
        let guest_port = match greeted {
            Greeted::NotYet => return,
            Greeted::Nonsense => return self.settle(slot, Fate::Gone),
            Greeted::Port(port) => port,
        };
        let flow = loop {
            let flow = Flow {
                guest_port,
                peer_cid: HOST_CID,
                peer_port: self.next_port,
            };
            self.next_port = self
                .next_port
                .checked_add(1)
                .filter(|port| *port < u32::MAX)
                .unwrap_or(FIRST_PORT);
            // There are more ports than connections.
            if !self.by_flow.contains_key(&flow) {
                break flow;
            }
        };
        if let Some(connection) = self.connection(slot) {
            connection.request(flow);
            self.by_flow.insert(flow, slot);
            self.settle(slot, Fate::Stays);
        }
    }

    /// Writes the next packet for the guest. `None` if there is none.
    pub(super) fn send(&mut self, writer: &mut Writer<'_>) -> Option<u32> {
        let Ok(mut space) = writer.split_at(HEADER) else {
            // A buffer of no use, but only a guest that has many of them loses time by that.
            return (!self.resets.is_empty() || !self.list.is_empty()).then_some(0);
        };
        loop {
            if let Some((flow, kind)) = self.resets.pop_front() {
                let header = flow.header(self.guest.cid.into(), kind, operation::RESET);
                let written = space.write_object(&header);
                return Some(written.map_or(0, |()| HEADER as u32));
            }
            let slot = self.list.pop_front()?;
            if let Some(written) = self.send_of(slot, &mut space, writer) {
                return Some(written);
            }
        }
    }

    /// Writes the next packet of a connection. `None` if there is none.
    fn send_of(&mut self, slot: usize, space: &mut Writer<'_>, writer: &mut Writer<'_>) -> Option<u32> {
        let cid = self.guest.cid.into();
        let connection = self.connection(slot)?;
        connection.is_listed = false;
        let step = connection.send(cid, space, writer);
        match step {
            Step::Sent(_) | Step::Useless => self.list(slot),
            // Polled for data again.
            Step::SentLast(_) | Step::Nothing => connection.is_parked = false,
            Step::Reset => {}
        }
        self.settle(slot, if step == Step::Reset { Fate::Reset } else { Fate::Stays });
        match step {
            Step::Sent(length) | Step::SentLast(length) => Some(length),
            Step::Useless => Some(0),
            Step::Nothing | Step::Reset => None,
        }
    }

    /// Stops to poll a file whose data the guest has no buffer for.
    pub(super) fn park(&mut self, file: u64) {
        let Some(slot) = file.checked_sub(1) else { return };
        if let Some(connection) = self.connection(slot as usize).filter(|connection| connection.is_listed) {
            connection.is_parked = true;
            self.settle(slot as usize, Fate::Stays);
        }
    }

    fn connection(&mut self, slot: usize) -> Option<&mut Connection> {
        self.slots.get_mut(slot)?.as_mut()
    }

    fn insert(&mut self, connection: Connection) -> usize {
        if let Some(slot) = self.free.pop() {
            self.slots[slot] = Some(connection);
            return slot;
        }
        self.slots.push(Some(connection));
        self.slots.len() - 1
    }

    fn list(&mut self, slot: usize) {
        if let Some(connection) = self.slots.get_mut(slot).and_then(Option::as_mut)
            && !std::mem::replace(&mut connection.is_listed, true)
        {
            self.list.push_back(slot);
        }
    }

    /// Brings the lists and the polled files up to date with a connection to which something has happened.
    fn settle(&mut self, slot: usize, fate: Fate) {
        if fate != Fate::Stays {
            return self.remove(slot, fate);
        }
        let Self {
            slots, files, by_flow, ..
        } = self;
        let Some(connection) = slots.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        if connection.is_host_gone() {
            poll_for(files, slot, connection, None);
            if connection.close() == Fate::Reset {
                return self.remove(slot, Fate::Reset);
            }
        }
        let interest = connection.interest();
        poll_for(files, slot, connection, interest);
        if connection.is_lingering()
            && let Some(flow) = connection.flow.take()
        {
            by_flow.remove(&flow);
        }
        if connection.has_packets() {
            self.list(slot);
        }
    }

    fn remove(&mut self, slot: usize, fate: Fate) {
        let Some(mut connection) = self.slots.get_mut(slot).and_then(Option::take) else {
            return;
        };
        poll_for(&self.files, slot, &mut connection, None);
        if let Some(flow) = connection.flow {
            self.by_flow.remove(&flow);
            if fate == Fate::Reset && !connection.is_unknown_to_guest() {
                self.resets.push_back((flow, connection.kind as u16));
            }
        }
        if connection.is_listed {
            self.list.retain(|listed| *listed != slot);
        }
        self.free.push(slot);
        self.listen();
    }
}

/// Polls the file of a connection for `interest` from now on, or not at all.
fn poll_for(files: &Files, slot: usize, connection: &mut Connection, interest: Option<Interest>) {
    let Some(socket) = &connection.socket else { return };
    if connection.polled == interest {
        return;
    }
    let number = slot as u64 + 1;
    let done = match (connection.polled, interest) {
        (None, Some(interest)) => files.add(socket, number, interest),
        (Some(_), Some(interest)) => files.change(socket, number, interest),
        (_, None) => files.remove(socket),
    };
    match done {
        Ok(()) => connection.polled = interest,
        Err(error) => warn!(%error, "cannot change what a connection of the guest is waited for"),
    }
}
