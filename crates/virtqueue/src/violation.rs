//! Reasons why a ring becomes unusable, mostly violations by the driver.

use guestmem::OutOfMemory;

/// What the driver did that no driver may do, or what became of its memory. The queue is retired with it: it looks empty from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// More than the ring has entries, counting what the device has not used yet (VIRTIO 1.1 2.6.13, 2.7.17); or a list
    /// all around a packed ring.
    #[error("more chains are available than a ring of {size} holds")]
    TooManyAvailable {
        /// Queue size.
        size: u16,
    },
    /// A head or a link that is no entry of its table.
    #[error("descriptor {index} is outside its table of {entries}")]
    NoSuchDescriptor {
        /// The number given.
        index: u16,
        /// Entries of the table.
        entries: u32,
    },
    /// More descriptors than allowed; a loop looks like this.
    #[error("chain of more than {limit} descriptors")]
    ChainTooLong {
        /// Most descriptors allowed.
        limit: u32,
    },
    /// More than 2^32 bytes in one chain (VIRTIO 1.1 2.6.5.2; packed rings are held to it too).
    #[error("chain of more than 2^32 bytes")]
    TooManyBytes,
    /// A buffer for the device to read behind one for it to write (VIRTIO 1.1 2.6.4.2, 2.7.17).
    #[error("readable buffer behind a writable one")]
    ReadableBehindWritable,
    /// An indirect table although that was not negotiated (VIRTIO 1.1 2.6.5.3.1).
    #[error("indirect table without the negotiated feature")]
    IndirectNotNegotiated,
    /// An indirect table whose length is no multiple of a descriptor, or zero.
    #[error("indirect table of {length} bytes")]
    IndirectLength {
        /// The length given.
        length: u32,
    },
    /// An indirect table inside another, or as a link of a chain that goes on (VIRTIO 1.1 2.6.5.3.1), or inside a list
    /// of a packed ring (VIRTIO 1.1 2.7.19).
    #[error("indirect table where none is allowed")]
    IndirectMisplaced,
    /// An indirect table in a window, where the file has ended.
    #[error("unreadable indirect table")]
    IndirectUnreadable,
    /// The ring lies in memory that is no longer there: the file behind it was shortened, or cannot be read.
    #[error("the memory of the ring is lost")]
    MemoryLost,
    /// An indirect table that is not guest memory.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}
