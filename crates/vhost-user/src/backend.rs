//! The device's end: answers a frontend's requests, one at a time.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use zerocopy::{Immutable, IntoBytes};

use crate::channel::Channel;
use crate::message::{
    Config, FLAG_REPLY, Header, Inflight, MemoryRegion, PROTOCOL_FEATURES, RequestCode, SHARED_MEMORY_REGIONS,
    SharedMemoryConfig, VringAddress, VringState,
};
use crate::socket::{Incoming, Message, Socket};
use crate::{Error, Malformed, ProtocolFeatures, Request};

/// The protocol features that every session offers: what this crate and a [`Handler`] implement, and nothing more, since
/// frontends acknowledge whatever they are offered. SHMEM comes on top for a device with shared memory, INFLIGHT_SHMFD for one whose
/// requests in flight are tracked.
pub const OFFERED: ProtocolFeatures = ProtocolFeatures::all()
    .difference(ProtocolFeatures::SHMEM)
    .difference(ProtocolFeatures::INFLIGHT_SHMFD);

/// What a device process does about each request. Queue indices are as sent: the handler checks them.
///
/// An `Err` refuses the request: the frontend gets a non-zero acknowledgement if it asked for one, and the caller of
/// [`Session::serve`] the reason.
pub trait Handler {
    /// Why a request is refused.
    type Error: fmt::Display;

    /// VIRTIO features of the device; the session adds the bit for protocol features.
    fn features(&mut self) -> u64;
    /// The protocol features in use from now on.
    fn set_protocol_features(&mut self, features: ProtocolFeatures);
    /// Bytes of each shared memory region in the order of their ids, at most 256; 0 or left out: there is none of that id.
    fn shared_memory(&mut self) -> Vec<u64>;
    /// Whether requests in flight are tracked, so that they survive this process.
    fn tracks_inflight(&mut self) -> bool;
    /// A new record of requests in flight for so many queues of this size, all zeros, and its file. Neither number is checked. After an error
    /// the frontend does without.
    fn inflight(&mut self, queues: u16, queue_size: u16) -> Result<(Inflight, OwnedFd), Self::Error>;
    /// Uses a record of requests in flight, which a predecessor may have written and the frontend may have changed. The queue size is 1
    /// to 32768; that the file is as long as it is said to be is not checked.
    fn set_inflight(&mut self, inflight: Inflight, file: OwnedFd) -> Result<(), Self::Error>;
    /// The features that will be used. If the frontend did not acknowledge protocol features, it will never enable rings: they
    /// start enabled.
    fn set_features(&mut self, features: u64, rings_start_enabled: bool) -> Result<(), Self::Error>;
    /// Number of queues.
    fn queue_num(&mut self) -> u64;
    /// A frontend takes the device.
    fn set_owner(&mut self) -> Result<(), Self::Error>;
    /// Disables all rings.
    fn reset_owner(&mut self) -> Result<(), Self::Error>;
    /// Replaces the whole guest memory.
    fn set_memory_table(&mut self, regions: Vec<(MemoryRegion, OwnedFd)>) -> Result<(), Self::Error>;
    /// How many regions there may be.
    fn max_memory_slots(&mut self) -> u64;
    /// Adds a region.
    fn add_memory_region(&mut self, region: MemoryRegion, file: OwnedFd) -> Result<(), Self::Error>;
    /// Removes the region with these addresses and size.
    fn remove_memory_region(&mut self, region: MemoryRegion) -> Result<(), Self::Error>;
    /// Sets a ring's size, 1 to 32768.
    fn set_vring_num(&mut self, index: u32, size: u16) -> Result<(), Self::Error>;
    /// Sets a ring's addresses.
    fn set_vring_address(&mut self, address: VringAddress) -> Result<(), Self::Error>;
    /// Sets where a ring goes on.
    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<(), Self::Error>;
    /// Stops a ring; tells where it would go on. An error ends the session: there is no way to send it.
    fn vring_base(&mut self, index: u32) -> Result<u32, Self::Error>;
    /// Sets the file that wakes the backend (`None`: it has to poll) and starts the ring.
    fn set_vring_kick(&mut self, index: u32, file: Option<OwnedFd>) -> Result<(), Self::Error>;
    /// Sets the file that interrupts the driver (`None`: no interrupts).
    fn set_vring_call(&mut self, index: u32, file: Option<OwnedFd>) -> Result<(), Self::Error>;
    /// Sets the file that tells of a broken ring.
    fn set_vring_err(&mut self, index: u32, file: Option<OwnedFd>) -> Result<(), Self::Error>;
    /// Enables or disables a ring.
    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<(), Self::Error>;
    /// `size` bytes of configuration space at `offset`. `offset` is below 256 and `size` at most 256; their sum may be more. The
    /// session pads a shorter answer with zeros and cuts a longer one.
    fn config(&mut self, offset: u32, size: u32) -> Result<Vec<u8>, Self::Error>;
    /// Writes to configuration space.
    fn set_config(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error>;
    /// The channel for requests to the frontend.
    fn set_channel(&mut self, channel: Channel) -> Result<(), Self::Error>;
    /// The driver wrote the device status.
    fn set_status(&mut self, status: u8) -> Result<(), Self::Error>;
    /// The device status.
    fn status(&mut self) -> u8;
    /// Stops all rings and forgets all device state.
    fn reset_device(&mut self) -> Result<(), Self::Error>;
}

/// What became of the message that was next.
#[derive(Debug)]
pub enum Served<E> {
    /// No whole message has arrived yet.
    Pending,
    /// The frontend closed the connection.
    Closed,
    /// The request was granted.
    Granted(RequestCode),
    /// The device refused the request; the session goes on.
    Refused(RequestCode, E),
    /// The message was no valid request; the session goes on.
    Malformed(Malformed),
}

/// The outer result ends the session, the inner one refuses the request.
type Granted<H> = Result<Result<(), <H as Handler>::Error>, Error>;

/// A connection to one frontend.
#[derive(Debug)]
pub struct Session {
    socket: Socket,
    negotiated: ProtocolFeatures,
}

impl Session {
    /// Serves the frontend at the other end of a connected socket.
    pub fn new(stream: impl Into<OwnedFd>) -> Self {
        Self {
            socket: Socket::new(stream),
            negotiated: ProtocolFeatures::empty(),
        }
    }

    /// Ends it without closing anything: the socket, and the protocol features in use.
    pub fn into_parts(self) -> (Socket, ProtocolFeatures) {
        (self.socket, self.negotiated)
    }

    /// Goes on with a socket on which protocol features are in use.
    pub fn resume(socket: Socket, negotiated: ProtocolFeatures) -> Self {
        Self { socket, negotiated }
    }

    /// Handles the next message if it has arrived, and answers it. Never waits. An error ends the session.
    pub fn serve<H: Handler>(&mut self, handler: &mut H) -> Result<Served<H::Error>, Error> {
        let message = match self.socket.try_receive()? {
            Incoming::Message(message) => message,
            Incoming::Pending => return Ok(Served::Pending),
            Incoming::Closed => return Ok(Served::Closed),
        };
        let header = message.header;
        let (code, request) = match self.parse(message) {
            Ok(parsed) => parsed,
            Err(malformed) => return self.reject(&header, malformed),
        };
        if let Request::SetProtocolFeatures(features) = &request
            && !offered(handler).contains(*features)
        {
            let (field, value) = ("protocol features", features.bits());
            return self.reject(
                &header,
                Malformed::Value {
                    request: code,
                    field,
                    value,
                },
            );
        }

        let result = self.grant(code, request, handler)?;
        if !code.has_reply() {
            self.acknowledge(&header, result.is_ok())?;
        }
        match result {
            Ok(()) => Ok(Served::Granted(code)),
            Err(error) => Ok(Served::Refused(code, error)),
        }
    }

    /// Asks the handler; sends the data of requests that ask for data.
    fn grant<H: Handler>(&mut self, code: RequestCode, request: Request, handler: &mut H) -> Granted<H> {
        match request {
            Request::GetFeatures => self.answer(code, handler.features() | PROTOCOL_FEATURES)?,
            Request::GetProtocolFeatures => self.answer(code, offered(handler).bits())?,
            Request::GetQueueNum => self.answer(code, handler.queue_num())?,
            Request::GetMaxMemSlots => self.answer(code, handler.max_memory_slots())?,
            Request::GetSharedMemory => self.answer(code, shared_memory_config(&handler.shared_memory()))?,
            Request::GetStatus => self.answer(code, u64::from(handler.status()))?,
            Request::GetVringBase { index } => match handler.vring_base(index) {
                Ok(num) => self.answer(code, VringState { index, num })?,
                Err(error) => {
                    return Err(Error::Unanswerable {
                        request: code,
                        reason: error.to_string(),
                    });
                }
            },
            Request::GetConfig { offset, size, flags } => {
                let result = handler.config(offset, size).map(|mut bytes| {
                    bytes.resize(size as usize, 0);
                    bytes
                });
                self.answer_config(offset, flags, result.as_deref().unwrap_or_default())?;
                return Ok(result.map(drop));
            }
            Request::GetInflight { queues, queue_size } => return self.answer_inflight(queues, queue_size, handler),

            Request::SetFeatures(features) => {
                let rings_start_enabled = features & PROTOCOL_FEATURES == 0;
                return Ok(handler.set_features(features & !PROTOCOL_FEATURES, rings_start_enabled));
            }
            Request::SetProtocolFeatures(features) => {
                self.negotiated = features;
                handler.set_protocol_features(features);
            }
            Request::SetOwner => return Ok(handler.set_owner()),
            Request::ResetOwner => return Ok(handler.reset_owner()),
            Request::SetMemoryTable(regions) => return Ok(handler.set_memory_table(regions)),
            Request::AddMemoryRegion(region, file) => return Ok(handler.add_memory_region(region, file)),
            Request::RemoveMemoryRegion(region) => return Ok(handler.remove_memory_region(region)),
            Request::SetVringNum { index, size } => return Ok(handler.set_vring_num(index, size)),
            Request::SetVringAddress(address) => return Ok(handler.set_vring_address(address)),
            Request::SetVringBase { index, base } => return Ok(handler.set_vring_base(index, base)),
            Request::SetVringKick { index, file } => return Ok(handler.set_vring_kick(index, file)),
            Request::SetVringCall { index, file } => return Ok(handler.set_vring_call(index, file)),
            Request::SetVringErr { index, file } => return Ok(handler.set_vring_err(index, file)),
            Request::SetVringEnable { index, enable } => return Ok(handler.set_vring_enable(index, enable)),
            Request::SetConfig { offset, bytes, .. } => return Ok(handler.set_config(offset, &bytes)),
            Request::SetBackendReqFd(file) => {
                return Ok(handler.set_channel(Channel::new(file)));
            }
            Request::SetInflight(inflight, file) => return Ok(handler.set_inflight(inflight, file)),
            Request::SetStatus(status) => return Ok(handler.set_status(status)),
            Request::ResetDevice => return Ok(handler.reset_device()),
        }
        Ok(Ok(()))
    }

    fn parse(&self, message: Message) -> Result<(RequestCode, Request), Malformed> {
        let code =
            RequestCode::from_number(message.header.request).ok_or(Malformed::Unknown(message.header.request))?;
        let feature = code.needs();
        if !self.negotiated.contains(feature) {
            return Err(Malformed::NotNegotiated { request: code, feature });
        }
        Ok((code, Request::parse(message)?))
    }

    /// Refuses a malformed request. If the frontend waits for data, the connection ends, since it would wait for ever; only a reply to
    /// GET_CONFIG can report an error. Other requests are refused in their acknowledgement.
    fn reject<E>(&self, header: &Header, malformed: Malformed) -> Result<Served<E>, Error> {
        match RequestCode::from_number(header.request) {
            Some(RequestCode::GetConfig) => {
                self.answer_config(0, 0, &[])?;
                Ok(Served::Malformed(malformed))
            }
            Some(request) if request.has_reply() => Err(Error::Unanswerable {
                request,
                reason: malformed.to_string(),
            }),
            _ => {
                self.acknowledge(header, false)?;
                Ok(Served::Malformed(malformed))
            }
        }
    }

    /// Sends as many bytes as were requested, or none to report an error.
    fn answer_config(&self, offset: u32, flags: u32, bytes: &[u8]) -> Result<(), Error> {
        let header = Config {
            offset,
            size: bytes.len() as u32,
            flags,
        };
        let code = RequestCode::GetConfig as u32;
        self.socket.send(code, FLAG_REPLY, &[header.as_bytes(), bytes], &[])
    }

    /// Sends a record of requests in flight, or that there is none: then the frontend does without.
    fn answer_inflight<H: Handler>(&self, queues: u16, queue_size: u16, handler: &mut H) -> Granted<H> {
        let code = RequestCode::GetInflight;
        match handler.inflight(queues, queue_size) {
            Ok((inflight, file)) => {
                let files = [file.as_fd()];
                self.socket
                    .send(code as u32, FLAG_REPLY, &[inflight.as_bytes()], &files)?;
                Ok(Ok(()))
            }
            Err(error) => {
                self.answer(code, Inflight::default())?;
                Ok(Err(error))
            }
        }
    }

    fn answer<T: IntoBytes + Immutable>(&self, code: RequestCode, value: T) -> Result<(), Error> {
        self.socket.send(code as u32, FLAG_REPLY, &[value.as_bytes()], &[])
    }

    fn acknowledge(&self, header: &Header, granted: bool) -> Result<(), Error> {
        if !header.needs_reply() || !self.negotiated.contains(ProtocolFeatures::REPLY_ACK) {
            return Ok(());
        }
        let status = u64::from(!granted);
        self.socket.send(header.request, FLAG_REPLY, &[status.as_bytes()], &[])
    }
}

fn offered<H: Handler>(handler: &mut H) -> ProtocolFeatures {
    let mut offered = OFFERED;
    offered.set(
        ProtocolFeatures::SHMEM,
        handler.shared_memory().iter().any(|&size| size > 0),
    );
    offered.set(ProtocolFeatures::INFLIGHT_SHMFD, handler.tracks_inflight());
    offered
}

fn shared_memory_config(given: &[u64]) -> SharedMemoryConfig {
    let mut sizes = [0; SHARED_MEMORY_REGIONS];
    for (size, given) in sizes.iter_mut().zip(given) {
        *size = *given;
    }
    SharedMemoryConfig {
        regions: sizes.iter().filter(|&&size| size > 0).count() as u32,
        padding: 0,
        sizes,
    }
}

impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
