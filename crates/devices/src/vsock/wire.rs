//! The packets of a socket device (VIRTIO 1.2 5.10.6).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Size of a [`Header`] in bytes.
pub(super) const HEADER: usize = size_of::<Header>();

/// What a packet starts with.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Header {
    pub(super) source_cid: U64,
    pub(super) destination_cid: U64,
    pub(super) source_port: U32,
    pub(super) destination_port: U32,
    /// Bytes of payload.
    pub(super) length: U32,
    /// See [`Kind`].
    pub(super) kind: U16,
    pub(super) operation: U16,
    pub(super) flags: U32,
    /// Size of the sender's receive buffer for this connection.
    pub(super) buffer: U32,
    /// Bytes that the sender has taken out of that buffer so far.
    pub(super) forwarded: U32,
}

/// Values of [`Header::operation`].
pub(super) mod operation {
    pub(crate) const REQUEST: u16 = 1;
    pub(crate) const RESPONSE: u16 = 2;
    pub(crate) const RESET: u16 = 3;
    pub(crate) const SHUTDOWN: u16 = 4;
    pub(crate) const DATA: u16 = 5;
    pub(crate) const CREDIT_UPDATE: u16 = 6;
    pub(crate) const CREDIT_REQUEST: u16 = 7;
}

/// Flags of SHUTDOWN: the sender receives no more.
pub(super) const NO_RECEIVE: u32 = 1 << 0;
/// The sender sends no more.
pub(super) const NO_SEND: u32 = 1 << 1;
/// Both.
pub(super) const NO_MORE: u32 = NO_RECEIVE | NO_SEND;

/// Flags of DATA on a [`Kind::Record`] connection: the last byte of a message.
pub(super) const END_OF_MESSAGE: u32 = 1 << 0;

/// The event of the event queue: all connections are gone (VIRTIO 1.2 5.10.6.7).
pub(super) const TRANSPORT_RESET: u32 = 0;

/// Type of a socket, and its values in [`Header::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Kind {
    /// SOCK_STREAM
    Stream = 1,
    /// SOCK_SEQPACKET
    Record = 2,
}

impl Kind {
    pub(super) fn of(value: U16) -> Option<Self> {
        match value.get() {
            1 => Some(Self::Stream),
            2 => Some(Self::Record),
            _ => None,
        }
    }
}

/// A connection from the guest's point of view: its own port, and the CID and port of its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Flow {
    pub(super) guest_port: u32,
    pub(super) peer_cid: u64,
    pub(super) peer_port: u32,
}

impl Flow {
    /// The flow of a packet that the guest sent.
    pub(super) fn of(header: &Header) -> Self {
        Self {
            guest_port: header.source_port.get(),
            peer_cid: header.destination_cid.get(),
            peer_port: header.destination_port.get(),
        }
    }

    /// A packet of this flow for the guest `cid`.
    pub(super) fn header(self, cid: u64, kind: u16, operation: u16) -> Header {
        Header {
            source_cid: self.peer_cid.into(),
            destination_cid: cid.into(),
            source_port: self.peer_port.into(),
            destination_port: self.guest_port.into(),
            kind: kind.into(),
            operation: operation.into(),
            ..Header::default()
        }
    }
}
