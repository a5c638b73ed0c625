//! Feature bits of rings and transports (VIRTIO 1.2 6) by name. Only this module knows their numbers.

/// Pages that are written are logged for a migration (vhost-user's VHOST_F_LOG_ALL).
pub const LOG_ALL: u64 = 1 << 26;
/// Chains may lie in tables of their own.
pub const INDIRECT_DESC: u64 = 1 << 28;
/// Each side tells the other at which position it wants to be notified.
pub const EVENT_IDX: u64 = 1 << 29;
/// The device follows VIRTIO 1.0 or later.
pub const VERSION_1: u64 = 1 << 32;
/// Addresses are translated for the device.
pub const ACCESS_PLATFORM: u64 = 1 << 33;
/// Rings are packed.
pub const RING_PACKED: u64 = 1 << 34;
/// Chains are used in the order in which they were made available.
pub const IN_ORDER: u64 = 1 << 35;
/// A kick may carry the ring position. The device may ignore it (VIRTIO 1.1 2.7.23), and vhost-user has no room for it.
pub const NOTIFICATION_DATA: u64 = 1 << 38;
/// Queues can be reset one by one.
pub const RING_RESET: u64 = 1 << 40;

/// Every bit that belongs to rings and transports and to no device: 24 to 40, and 41 to 49, which are reserved (VIRTIO 1.2 2.2).
pub const TRANSPORT: u64 = (1 << 50) - (1 << 24);
/// What this crate implements.
pub const IMPLEMENTED: u64 = INDIRECT_DESC | EVENT_IDX | VERSION_1 | RING_PACKED | IN_ORDER | NOTIFICATION_DATA;
/// Bits that the other side relies on. Most change the meaning of rings or addresses: if one side uses one and the other does not,
/// requests hang or overwrite the wrong memory. Without the log of written pages, a migration loses them.
pub const BINDING: u64 = LOG_ALL | INDIRECT_DESC | EVENT_IDX | ACCESS_PLATFORM | RING_PACKED | IN_ORDER;
