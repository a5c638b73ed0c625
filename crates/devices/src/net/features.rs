//! Feature bits of the network device (VIRTIO 1.1 5.1.3).

/// The host completes checksums.
pub const CSUM: u64 = 1 << 0;
/// The guest completes checksums.
pub const GUEST_CSUM: u64 = 1 << 1;
/// The guest switches its offloads by the control queue.
pub const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
/// The device has an MTU.
pub const MTU: u64 = 1 << 3;
/// The device has a MAC address.
pub const MAC: u64 = 1 << 5;
/// The guest takes TCP over IPv4 in large segments.
pub const GUEST_TSO4: u64 = 1 << 7;
/// The guest takes TCP over IPv6 in large segments.
pub const GUEST_TSO6: u64 = 1 << 8;
/// The guest takes large segments with congestion marks.
pub const GUEST_ECN: u64 = 1 << 9;
/// The guest takes large UDP datagrams.
pub const GUEST_UFO: u64 = 1 << 10;
/// The host takes TCP over IPv4 in large segments.
pub const HOST_TSO4: u64 = 1 << 11;
/// The host takes TCP over IPv6 in large segments.
pub const HOST_TSO6: u64 = 1 << 12;
/// The host takes large segments with congestion marks.
pub const HOST_ECN: u64 = 1 << 13;
/// The host takes large UDP datagrams.
pub const HOST_UFO: u64 = 1 << 14;
/// A received frame may take several chains.
pub const MRG_RXBUF: u64 = 1 << 15;
/// The configuration space has the state of the link.
pub const STATUS: u64 = 1 << 16;
/// There is a control queue.
pub const CTRL_VQ: u64 = 1 << 17;
/// There are several pairs of queues.
pub const MQ: u64 = 1 << 22;
/// The MAC address is set by the control queue.
pub const CTRL_MAC_ADDR: u64 = 1 << 23;
/// The device stands by for another with the same MAC address.
pub const STANDBY: u64 = 1 << 62;

/// The offloads that `CTRL_GUEST_OFFLOADS` switches (VIRTIO 1.1 5.1.6.5.6.1).
pub const GUEST_OFFLOADS: u64 = GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN | GUEST_UFO;
/// What a port that carries segments and checksums both ways has.
pub const ALL_OFFLOADS: u64 = GUEST_OFFLOADS | CSUM | HOST_TSO4 | HOST_TSO6 | HOST_ECN | HOST_UFO;
/// Offloads with which received frames exceed the MTU.
pub(super) const GUEST_SEGMENTS: u64 = GUEST_TSO4 | GUEST_TSO6 | GUEST_UFO;
