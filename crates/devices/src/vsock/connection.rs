//! One connection between a port of the guest and a socket of the host.

use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};

use backend::Interest;
use guestmem::{Reader, Writer};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};

use super::credit::Credit;
use super::host::{self, Greeted, Greeting};
use super::inbox::{Inbox, Payload};
use super::outbox::Outbox;
use super::wire::{END_OF_MESSAGE, Flow, HEADER, Header, Kind, NO_MORE, NO_RECEIVE, NO_SEND, operation};

/// Most bytes of a packet for the guest, however large its buffer is: the next connection has its turn then.
const TURN: usize = 64 << 10;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) kind: Kind,
    state: State,
    /// What the table knows it by, once its ports are known and as long as the guest knows of it.
    pub(super) flow: Option<Flow>,
    /// `None` once the host's end is closed.
    pub(super) socket: Option<OwnedFd>,
    credit: Credit,
    outbox: Outbox,
    inbox: Inbox,
    /// Packets without payload that are to be sent.
    due: Due,
    /// SHUTDOWN flags that the guest sent.
    guest_ended: u32,
    /// SHUTDOWN flags for the guest, sent or due.
    host_ended: u32,
    /// The socket's sending direction is shut down.
    is_sending_over: bool,
    /// There may be data, but the guest has no room for it.
    is_starved: bool,
    /// There may be data, but the rx queue has no buffer.
    pub(super) is_parked: bool,
    /// It is in the list of connections with something to send.
    pub(super) is_listed: bool,
    /// What its file is polled for.
    pub(super) polled: Option<Interest>,
}

#[derive(Debug)]
enum State {
    /// A host program has not named a port yet.
    Greeting(Greeting),
    /// The guest was asked, or will be.
    Requested,
    Established,
    /// The guest is done with it; the socket gets what is left.
    Lingering,
}

#[derive(Debug, Default)]
struct Due {
    request: bool,
    response: bool,
    shutdown: bool,
    credit_update: bool,
    credit_request: bool,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Stays,
    /// It ends, and the guest is told so (RST).
    Reset,
    /// It ends.
    Gone,
}

/// What became of a buffer of the rx queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// So many bytes are in it; there may be more to send.
    Sent(u32),
    /// As above, and there is nothing more for now.
    SentLast(u32),
    /// It is of no use.
    Useless,
    /// There is nothing to send.
    Nothing,
    Reset,
}

impl Connection {
    fn new(kind: Kind, state: State, socket: OwnedFd, buffer: u32) -> Self {
        Self {
            kind,
            state,
            flow: None,
            socket: Some(socket),
            credit: Credit::new(buffer),
            outbox: Outbox::default(),
            inbox: Inbox::default(),
            due: Due::default(),
            guest_ended: 0,
            host_ended: 0,
            is_sending_over: false,
            is_starved: false,
            is_parked: false,
            is_listed: false,
            polled: None,
        }
    }

    /// Of a host program that will name a port.
    pub(super) fn from_host(socket: OwnedFd, buffer: u32) -> Self {
        Self::new(Kind::Stream, State::Greeting(Greeting::default()), socket, buffer)
    }

    /// To a host program, as the guest requested.
    pub(super) fn to_host(kind: Kind, flow: Flow, socket: OwnedFd, buffer: u32, request: &Header) -> Self {
        let mut connection = Self::new(kind, State::Established, socket, buffer);
        connection.flow = Some(flow);
        connection.credit.learn(request);
        connection.due.response = true;
        connection
    }

    /// Requests the connection that a host program asked for.
    pub(super) fn request(&mut self, flow: Flow) {
        self.flow = Some(flow);
        self.state = State::Requested;
        self.due.request = true;
    }

    /// Whether the guest was sent nothing of it yet.
    pub(super) fn is_unknown_to_guest(&self) -> bool {
        self.flow.is_none() || self.due.request
    }

    /// The events to poll the socket for. A file whose events cannot be handled now is not polled at all, because a hang-up wakes
    /// the lane in any case.
    pub(super) fn interest(&self) -> Option<Interest> {
        self.socket.as_ref()?;
        match self.state {
            State::Greeting(_) => Some(Interest::Reading),
            State::Requested => Some(Interest::Nothing),
            State::Lingering => Some(Interest::Writing),
            State::Established => match (self.wants_data() && !self.is_parked, self.outbox.has_work(self.kind)) {
                (true, true) => Some(Interest::Both),
                (true, false) => Some(Interest::Reading),
                (false, true) => Some(Interest::Writing),
                (false, false) if self.is_receiving_over() => Some(Interest::Nothing),
                (false, false) => None,
            },
        }
    }

    /// Whether nothing more is read from the socket.
    fn is_receiving_over(&self) -> bool {
        self.host_ended & NO_SEND != 0 || self.guest_ended & NO_RECEIVE != 0
    }

    fn wants_data(&self) -> bool {
        matches!(self.state, State::Established)
            && self.socket.is_some()
            && !self.is_receiving_over()
            && !self.is_starved
            && self.inbox.is_empty()
    }

    /// Whether the guest is to be sent something now, or may be.
    pub(super) fn has_packets(&self) -> bool {
        let Due {
            request,
            response,
            shutdown,
            credit_update,
            credit_request,
        } = self.due;
        let due = request || response || shutdown || credit_update || credit_request;
        self.flow.is_some() && (due || !self.inbox.is_empty() && !self.is_starved)
    }

    /// Handles a packet of the guest, whose payload is what is left in `reader`.
    pub(super) fn receive(&mut self, header: &Header, reader: &mut Reader<'_>) -> Fate {
        if header.kind.get() != self.kind as u16 {
            return Fate::Reset;
        }
        self.credit.learn(header);
        if self.is_starved && self.credit.for_guest() > 0 {
            self.is_starved = false;
        }
        match header.operation.get() {
            operation::RESPONSE => self.be_established(),
            operation::RESET => self.linger(),
            _ if !matches!(self.state, State::Established) => Fate::Reset,
            operation::SHUTDOWN => self.end_by_guest(header.flags.get()),
            operation::DATA => self.forward(header, reader),
            operation::CREDIT_UPDATE => Fate::Stays,
            operation::CREDIT_REQUEST => {
                self.due.credit_update = true;
                Fate::Stays
            }
            // A second REQUEST too (the guest knows nothing of the first), and what is no operation.
            _ => Fate::Reset,
        }
    }

    fn be_established(&mut self) -> Fate {
        let (State::Requested, Some(socket), Some(flow)) = (&self.state, &self.socket, self.flow) else {
            return Fate::Reset;
        };
        if host::say_ok(socket, flow.peer_port).is_err() {
            return Fate::Reset;
        }
        self.state = State::Established;
        Fate::Stays
    }

    /// The guest has dropped the connection. What it sent before an orderly end still goes out.
    fn linger(&mut self) -> Fate {
        if self.guest_ended & NO_SEND == 0 || !self.outbox.has_work(self.kind) {
            return Fate::Gone;
        }
        self.state = State::Lingering;
        self.due = Due::default();
        self.inbox.clear();
        Fate::Stays
    }

    fn end_by_guest(&mut self, flags: u32) -> Fate {
        self.guest_ended |= flags & NO_MORE;
        if self.guest_ended & NO_RECEIVE != 0 {
            self.inbox.clear();
            if let Some(socket) = &self.socket {
                let _host_is_gone = shutdown(socket, Shutdown::Read);
            }
        }
        self.end_sending()
    }

    /// Passes on the guest's end once all that it sent is gone. The connection is over if it receives no more either (VIRTIO 1.2
    /// 5.10.6.5).
    fn end_sending(&mut self) -> Fate {
        if self.guest_ended & NO_SEND == 0 || self.outbox.has_work(self.kind) {
            return Fate::Stays;
        }
        if self.guest_ended == NO_MORE {
            return Fate::Reset;
        }
        if let Some(socket) = self.socket.as_ref().filter(|_| !self.is_sending_over) {
            let _host_is_gone = shutdown(socket, Shutdown::Write);
            self.is_sending_over = true;
        }
        Fate::Stays
    }

    /// Data of the guest: straight to the socket, or behind what waits for it.
    fn forward(&mut self, header: &Header, reader: &mut Reader<'_>) -> Fate {
        let length = header.length.get();
        if self.guest_ended & NO_SEND != 0
            || reader.remaining() != length as usize
            || self.credit.receive(length).is_err()
        {
            return Fate::Reset;
        }
        let ends = self.kind == Kind::Record && header.flags.get() & END_OF_MESSAGE != 0;
        let Some(socket) = self.socket.as_ref().filter(|_| self.host_ended & NO_RECEIVE == 0) else {
            self.count_forwarded(length);
            return Fate::Stays;
        };
        if self.outbox.is_empty() && (ends || self.kind == Kind::Stream && length > 0) {
            match reader.send_to(socket.as_fd(), length as usize) {
                Ok(sent) => {
                    self.count_forwarded(sent as u32);
                    match (reader.remaining(), self.kind) {
                        (0, _) => return Fate::Stays,
                        (_, Kind::Stream) => {}
                        // A message in more pieces than one call of the kernel takes.
                        (_, Kind::Record) => return Fate::Reset,
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => {
                    let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                    return self.sending_failed(errno, length);
                }
            }
        }
        if self.outbox.take(reader).is_err() {
            return Fate::Reset;
        }
        if ends && self.outbox.end_message().is_err() {
            return Fate::Reset;
        }
        Fate::Stays
    }

    fn count_forwarded(&mut self, bytes: u32) {
        if self.credit.forward(bytes) {
            self.due.credit_update = true;
        }
    }

    /// The host's program receives no more: the guest learns it, and what is left for the program is dropped.
    fn sending_failed(&mut self, errno: Errno, unsent: u32) -> Fate {
        // Part of the guest's memory, or a message too long for a socket.
        if errno == Errno::FAULT || errno == Errno::MSGSIZE {
            return Fate::Reset;
        }
        let dropped = self.outbox.clear();
        self.count_forwarded(dropped.saturating_add(unsent));
        if matches!(self.state, State::Lingering) {
            return Fate::Gone;
        }
        self.end_by_host(NO_RECEIVE);
        self.end_sending()
    }

    fn end_by_host(&mut self, flags: u32) {
        if self.host_ended | flags != self.host_ended {
            self.host_ended |= flags;
            self.due.shutdown = true;
        }
    }

    /// Handles an event of the socket.
    pub(super) fn ready(&mut self) -> Fate {
        let Some(socket) = &self.socket else { return Fate::Stays };
        match &self.state {
            State::Requested if host::has_state(socket, PollFlags::HUP) => return Fate::Reset,
            State::Greeting(_) | State::Requested => return Fate::Stays,
            State::Established | State::Lingering => {}
        }
        let fate = self.flush();
        if fate != Fate::Stays {
            return fate;
        }
        if matches!(self.state, State::Lingering) {
            return if self.outbox.has_work(self.kind) {
                Fate::Stays
            } else {
                Fate::Gone
            };
        }
        let Some(socket) = &self.socket else { return Fate::Stays };
        if self.is_receiving_over() && host::has_state(socket, PollFlags::HUP) {
            self.end_by_host(NO_MORE);
        }
        Fate::Stays
    }

    /// Whether its file is of no more use: the host's program is gone, and the guest learns it.
    pub(super) fn is_host_gone(&self) -> bool {
        self.host_ended == NO_MORE && self.socket.is_some() && matches!(self.state, State::Established)
    }

    /// Closes the file.
    pub(super) fn close(&mut self) -> Fate {
        self.socket = None;
        let dropped = self.outbox.clear();
        self.count_forwarded(dropped);
        self.end_sending()
    }

    /// Whether the guest is done with it, and only the socket is not.
    pub(super) fn is_lingering(&self) -> bool {
        matches!(self.state, State::Lingering)
    }

    /// Whether the socket may have data that the guest may get.
    pub(super) fn may_have_data(&self) -> bool {
        self.wants_data()
    }

    /// Reads the first line of a host program.
    pub(super) fn greet(&mut self) -> Option<Greeted> {
        match (&mut self.state, &self.socket) {
            (State::Greeting(greeting), Some(socket)) => Some(greeting.read(socket)),
            _ => None,
        }
    }

    /// Sends what waits for the socket, as far as it goes.
    fn flush(&mut self) -> Fate {
        while let Some(socket) = self.socket.as_ref().filter(|_| self.outbox.has_work(self.kind)) {
            match self.outbox.send(socket.as_fd(), self.kind) {
                Ok(sent) => self.count_forwarded(sent),
                Err(Errno::AGAIN) => return Fate::Stays,
                Err(Errno::INTR) => {}
                Err(errno) => return self.sending_failed(errno, 0),
            }
        }
        if matches!(self.state, State::Lingering) {
            return Fate::Stays;
        }
        self.end_sending()
    }

    /// Puts the next packet for the guest `cid` into `space` for its header and `writer` for its payload.
    pub(super) fn send(&mut self, cid: u64, space: &mut Writer<'_>, writer: &mut Writer<'_>) -> Step {
        let Some(flow) = self.flow else { return Step::Nothing };
        let due = &mut self.due;
        let (operation, flags) = if std::mem::take(&mut due.request) {
            (operation::REQUEST, 0)
        } else if std::mem::take(&mut due.response) {
            (operation::RESPONSE, 0)
        } else if std::mem::take(&mut due.credit_update) {
            (operation::CREDIT_UPDATE, 0)
        } else if std::mem::take(&mut due.credit_request) {
            (operation::CREDIT_REQUEST, 0)
        } else if self.is_starved || self.inbox.is_empty() && !self.wants_data() {
            if !std::mem::take(&mut self.due.shutdown) {
                return Step::Nothing;
            }
            (operation::SHUTDOWN, self.host_ended)
        } else {
            return self.send_data(flow, cid, space, writer);
        };
        let mut header = flow.header(cid, self.kind as u16, operation);
        header.flags = flags.into();
        self.credit.announce(&mut header);
        match space.write_object(&header) {
            Ok(()) => Step::Sent(HEADER as u32),
            Err(_) => Step::Reset,
        }
    }

    fn send_data(&mut self, flow: Flow, cid: u64, space: &mut Writer<'_>, writer: &mut Writer<'_>) -> Step {
        let credit = self.credit.for_guest() as usize;
        if credit == 0 {
            self.is_starved = true;
            self.due.credit_request = true;
            return self.send(cid, space, writer);
        }
        let room = writer.remaining().min(credit).min(TURN);
        if room == 0 {
            return Step::Useless;
        }
        let guest_buffer = self.credit.guest_buffer() as usize;
        let socket = self.socket.as_ref();
        let (length, flags) = match self.inbox.read(socket, self.kind, (writer, room), guest_buffer) {
            Ok(Payload::Bytes(length, flags)) => (length, flags),
            Ok(Payload::End) => {
                let closed = self
                    .socket
                    .as_ref()
                    .is_none_or(|socket| host::has_state(socket, PollFlags::HUP));
                self.end_by_host(if closed { NO_MORE } else { NO_SEND });
                return self.send(cid, space, writer);
            }
            Err(error) => {
                return match error.kind() {
                    ErrorKind::WouldBlock => Step::Nothing,
                    _ if error.raw_os_error() == Some(Errno::FAULT.raw_os_error()) && self.kind == Kind::Stream => {
                        Step::Useless
                    }
                    _ => Step::Reset,
                };
            }
        };
        let mut header = flow.header(cid, self.kind as u16, operation::DATA);
        header.length = (length as u32).into();
        header.flags = flags.into();
        self.credit.spend(length as u32);
        self.credit.announce(&mut header);
        if space.write_object(&header).is_err() {
            return Step::Reset;
        }
        let total = (HEADER + length) as u32;
        // A socket that had less than was asked for is most likely empty now, and is polled again in any case.
        if self.kind == Kind::Stream && length < room {
            Step::SentLast(total)
        } else {
            Step::Sent(total)
        }
    }
}
