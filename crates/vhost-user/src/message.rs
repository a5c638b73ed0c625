//! The wire format: header, payloads, request numbers, feature bits. Everything is in host byte order.

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a message's header.
pub const HEADER_SIZE: usize = size_of::<Header>();
/// No message has more payload. The largest today has 2056 bytes (the reply to GET_SHMEM_CONFIG).
pub const MAX_PAYLOAD: usize = 4096;
/// No message has more files: a memory table has eight regions at most, every other message one file.
pub const MAX_FILES: usize = 8;
/// Bytes of device configuration space reachable by GET_CONFIG and SET_CONFIG.
pub const MAX_CONFIG: usize = 256;
/// Feature bit 30 of GET_FEATURES and SET_FEATURES: protocol features can be negotiated. Never shown to a guest.
pub const PROTOCOL_FEATURES: u64 = 1 << 30;

/// Header flags: the low two bits are the version.
pub(crate) const VERSION_MASK: u32 = 0x3;
pub(crate) const VERSION: u32 = 0x1;
/// Header flag: this is a reply.
pub const FLAG_REPLY: u32 = 1 << 2;
/// Header flag: the sender waits for an acknowledgement (REPLY_ACK).
pub const FLAG_NEED_REPLY: u32 = 1 << 3;

/// In the number of KICK, CALL and ERR: the ring's index.
pub(crate) const VRING_INDEX_MASK: u64 = 0xff;
/// In the number of KICK, CALL and ERR: no file comes with the message.
pub(crate) const VRING_NO_FILE: u64 = 1 << 8;

bitflags::bitflags! {
    /// Extensions of the protocol that both ends must agree upon.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ProtocolFeatures: u64 {
        /// The number of queues can be asked for.
        const MQ = 1 << 0;
        /// The sender may ask for an acknowledgement of any message.
        const REPLY_ACK = 1 << 3;
        /// The backend may send requests of its own on a second socket.
        const BACKEND_REQ = 1 << 5;
        /// The configuration space is read and written through the protocol.
        const CONFIG = 1 << 9;
        /// Requests of the backend may carry files.
        const BACKEND_SEND_FD = 1 << 10;
        /// Requests in flight are tracked in memory that outlives the backend.
        const INFLIGHT_SHMFD = 1 << 12;
        /// RESET_DEVICE is understood.
        const RESET_DEVICE = 1 << 13;
        /// Memory regions are added and removed one at a time.
        const CONFIGURE_MEM_SLOTS = 1 << 15;
        /// SET_STATUS and GET_STATUS are understood.
        const STATUS = 1 << 16;
        /// The device has shared memory regions, into which the frontend maps files for it.
        const SHMEM = 1 << 22;
    }
}

/// First bytes of every message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// Request number, see [`RequestCode`].
    pub request: u32,
    /// Version and [`FLAG_REPLY`], [`FLAG_NEED_REPLY`].
    pub flags: u32,
    /// Bytes of payload that follow.
    pub size: u32,
}

impl Header {
    /// Whether the sender asked for an acknowledgement.
    pub fn needs_reply(&self) -> bool {
        self.flags & FLAG_NEED_REPLY != 0
    }
}

/// A ring's index and a number whose meaning is the request's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VringState {
    /// Ring index.
    pub index: u32,
    /// Size, base or enablement.
    pub num: u32,
}

/// Where the three parts of a ring lie, in the frontend's own address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VringAddress {
    /// Ring index.
    pub index: u32,
    /// Bit 0: writes to the used ring are to be logged.
    pub flags: u32,
    /// Descriptor table (split) or descriptor ring (packed), 16-byte aligned.
    pub descriptor: u64,
    /// Used ring (split) or device event suppression (packed), 4-byte aligned.
    pub used: u64,
    /// Available ring (split, 2-byte aligned) or driver event suppression (packed, 4-byte aligned).
    pub available: u64,
    /// Guest address for logging.
    pub log: u64,
}

/// One piece of guest memory, as announced by the frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemoryRegion {
    /// Guest physical address of the first byte.
    pub guest_address: u64,
    /// Bytes.
    pub size: u64,
    /// Address of the first byte in the frontend's own address space.
    pub user_address: u64,
    /// Offset of the first byte in the file that comes with the message.
    pub mmap_offset: u64,
}

/// Precedes the regions of SET_MEM_TABLE.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct MemoryTable {
    pub(crate) count: u32,
    pub(crate) padding: u32,
}

/// Payload of ADD_MEM_REG and REM_MEM_REG.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct SingleRegion {
    pub(crate) padding: u64,
    pub(crate) region: MemoryRegion,
}

/// Precedes the bytes of GET_CONFIG and SET_CONFIG.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Config {
    pub(crate) offset: u32,
    pub(crate) size: u32,
    pub(crate) flags: u32,
}

/// Payload of GET_INFLIGHT_FD and SET_INFLIGHT_FD: the record of requests in flight of all queues, each in a region of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Inflight {
    /// Bytes of all regions; in the answer to GET_INFLIGHT_FD 0 if there is no record.
    pub mmap_size: u64,
    /// Where they start in the file.
    pub mmap_offset: u64,
    /// Number of queues.
    pub num_queues: u16,
    /// Entries of each queue.
    pub queue_size: u16,
    /// Nothing.
    pub padding: u32,
}

/// How many shared memory regions a device can have: their ids are one byte.
pub const SHARED_MEMORY_REGIONS: usize = 256;

/// Answers GET_SHMEM_CONFIG.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct SharedMemoryConfig {
    pub(crate) regions: u32,
    pub(crate) padding: u32,
    pub(crate) sizes: [u64; SHARED_MEMORY_REGIONS],
}

/// Flag of [`SharedMapping`]: the guest may write. Without it the mapping is read-only.
pub const SHARED_WRITABLE: u64 = 1;

/// Payload of SHMEM_MAP and SHMEM_UNMAP: part of a file, and where it lies in a shared memory region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SharedMapping {
    /// Id of the region.
    pub region: u8,
    /// Nothing.
    pub padding: [u8; 7],
    /// Where the mapping starts in the file. Without meaning in SHMEM_UNMAP.
    pub file_offset: u64,
    /// Where it starts in the region.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// [`SHARED_WRITABLE`].
    pub flags: u64,
}

/// The requests of a backend that are implemented here, by their numbers on its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum BackendRequestCode {
    /// The configuration space has changed.
    ConfigChange = 2,
    /// Maps a file into a shared memory region.
    Map = 9,
    /// Takes a mapping out again, whole.
    Unmap = 10,
}

impl fmt::Display for BackendRequestCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::ConfigChange => "CONFIG_CHANGE_MSG",
            Self::Map => "SHMEM_MAP",
            Self::Unmap => "SHMEM_UNMAP",
        })
    }
}

macro_rules! request_codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal $name:literal;)*) => {
        /// The requests of a frontend that are implemented here, by their numbers on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum RequestCode {
            $($(#[$doc])* $variant = $number,)*
        }

        impl RequestCode {
            /// Every request implemented here.
            pub const ALL: &[RequestCode] = &[$(RequestCode::$variant,)*];

            /// The request with this number, if it is implemented here.
            pub fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for RequestCode {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(match self {
                    $(Self::$variant => $name,)*
                })
            }
        }
    };
}

request_codes! {
    /// Which VIRTIO features are there?
    GetFeatures = 1 "GET_FEATURES";
    /// These VIRTIO features will be used.
    SetFeatures = 2 "SET_FEATURES";
    /// The sender is the frontend of this session.
    SetOwner = 3 "SET_OWNER";
    /// Deprecated; disables all rings.
    ResetOwner = 4 "RESET_OWNER";
    /// The whole guest memory.
    SetMemoryTable = 5 "SET_MEM_TABLE";
    /// Size of a ring.
    SetVringNum = 8 "SET_VRING_NUM";
    /// Addresses of a ring.
    SetVringAddress = 9 "SET_VRING_ADDR";
    /// Where a ring goes on.
    SetVringBase = 10 "SET_VRING_BASE";
    /// Stops a ring; where would it go on?
    GetVringBase = 11 "GET_VRING_BASE";
    /// The file that wakes the backend; starts the ring.
    SetVringKick = 12 "SET_VRING_KICK";
    /// The file that interrupts the driver.
    SetVringCall = 13 "SET_VRING_CALL";
    /// The file that tells of a broken ring.
    SetVringErr = 14 "SET_VRING_ERR";
    /// Which extensions of the protocol are there?
    GetProtocolFeatures = 15 "GET_PROTOCOL_FEATURES";
    /// These extensions will be used.
    SetProtocolFeatures = 16 "SET_PROTOCOL_FEATURES";
    /// How many queues are there?
    GetQueueNum = 17 "GET_QUEUE_NUM";
    /// Enables or disables a ring.
    SetVringEnable = 18 "SET_VRING_ENABLE";
    /// The socket for requests of the backend.
    SetBackendReqFd = 21 "SET_BACKEND_REQ_FD";
    /// Reads the device's configuration space.
    GetConfig = 24 "GET_CONFIG";
    /// Writes the device's configuration space.
    SetConfig = 25 "SET_CONFIG";
    /// The file for the record of requests in flight.
    GetInflight = 31 "GET_INFLIGHT_FD";
    /// The record of requests in flight, new or from an earlier connection.
    SetInflight = 32 "SET_INFLIGHT_FD";
    /// Stops all rings, forgets all device state.
    ResetDevice = 34 "RESET_DEVICE";
    /// How many regions may there be?
    GetMaxMemSlots = 36 "GET_MAX_MEM_SLOTS";
    /// One more region of guest memory.
    AddMemoryRegion = 37 "ADD_MEM_REG";
    /// One region less.
    RemoveMemoryRegion = 38 "REM_MEM_REG";
    /// The device status the driver wrote.
    SetStatus = 39 "SET_STATUS";
    /// The device status.
    GetStatus = 40 "GET_STATUS";
    /// How large are the shared memory regions?
    GetSharedMemory = 44 "GET_SHMEM_CONFIG";
}

impl RequestCode {
    /// The protocol feature without which the request must not be sent.
    pub fn needs(self) -> ProtocolFeatures {
        match self {
            Self::GetQueueNum => ProtocolFeatures::MQ,
            Self::SetBackendReqFd => ProtocolFeatures::BACKEND_REQ,
            Self::GetConfig | Self::SetConfig => ProtocolFeatures::CONFIG,
            Self::GetInflight | Self::SetInflight => ProtocolFeatures::INFLIGHT_SHMFD,
            Self::ResetDevice => ProtocolFeatures::RESET_DEVICE,
            Self::GetMaxMemSlots | Self::AddMemoryRegion | Self::RemoveMemoryRegion => {
                ProtocolFeatures::CONFIGURE_MEM_SLOTS
            }
            Self::SetStatus | Self::GetStatus => ProtocolFeatures::STATUS,
            Self::GetSharedMemory => ProtocolFeatures::SHMEM,
            _ => ProtocolFeatures::empty(),
        }
    }

    /// Whether the request is answered with data of its own, so that NEED_REPLY changes nothing.
    pub fn has_reply(self) -> bool {
        matches!(
            self,
            Self::GetFeatures
                | Self::GetProtocolFeatures
                | Self::GetQueueNum
                | Self::GetVringBase
                | Self::GetConfig
                | Self::GetInflight
                | Self::GetMaxMemSlots
                | Self::GetStatus
                | Self::GetSharedMemory
        )
    }
}
