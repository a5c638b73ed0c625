//! The header in front of each frame (VIRTIO 1.1 5.1.6), and what of it is believed.

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::features;

/// Bytes of the header, of which there are 12 with `VERSION_1` (VIRTIO 1.1 5.1.6.1).
pub(super) const HEADER: usize = size_of::<Header>();

/// Most bytes of a frame: an IP packet of 65535 bytes behind an Ethernet header with a VLAN tag.
pub const FRAME_MAX: usize = 65535 + ETHERNET + VLAN_TAG;
/// Bytes of an Ethernet header: fewer are no frame.
pub(super) const ETHERNET: usize = 14;
pub(super) const VLAN_TAG: usize = 4;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_UDP: u8 = 3;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;

/// `struct virtio_net_hdr` with `num_buffers`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Header {
    flags: u8,
    gso_type: u8,
    hdr_len: U16,
    gso_size: U16,
    csum_start: U16,
    csum_offset: U16,
    /// Chains that a received frame takes.
    pub(super) num_buffers: U16,
}

/// The feature bits that the segmentation types of a header belong to, on one side.
struct Side {
    checksum: u64,
    tso4: u64,
    tso6: u64,
    ecn: u64,
    ufo: u64,
}

/// What a driver sends and the host finishes.
const HOST: Side = Side {
    checksum: features::CSUM,
    tso4: features::HOST_TSO4,
    tso6: features::HOST_TSO6,
    ecn: features::HOST_ECN,
    ufo: features::HOST_UFO,
};

/// What the host hands over and the driver finishes.
const GUEST: Side = Side {
    checksum: features::GUEST_CSUM,
    tso4: features::GUEST_TSO4,
    tso6: features::GUEST_TSO6,
    ecn: features::GUEST_ECN,
    ufo: features::GUEST_UFO,
};

impl Header {
    /// The header as the host may believe it, of a frame of `length` bytes from a driver that negotiated `features`; `None` if the
    /// frame must be dropped. What has no meaning is cleared: unknown flags (VIRTIO 1.1 5.1.6.2.2), checksum fields
    /// without `NEEDS_CSUM`, segment sizes without segments.
    pub(super) fn outgoing(self, features: u64, length: usize) -> Option<Self> {
        self.checked(&HOST, features, length)
    }

    /// The header as the guest may get it in front of a frame of `length` bytes, with the offloads that it has switched on; `None` if
    /// it could not make sense of the frame. `DATA_VALID` goes only to a guest that has `GUEST_CSUM` (VIRTIO 1.1
    /// 5.1.6.4.1).
    pub(super) fn incoming(self, offloads: u64, length: usize) -> Option<Self> {
        let valid = if offloads & features::GUEST_CSUM != 0 {
            self.flags & DATA_VALID
        } else {
            0
        };
        let mut header = self.checked(&GUEST, offloads, length)?;
        header.flags |= valid;
        header.num_buffers = 1.into();
        Some(header)
    }

    /// Whether the frame may exceed the MTU, since whoever gets it cuts it into segments.
    pub(super) fn is_segmented(self) -> bool {
        self.gso_type & !GSO_ECN != GSO_NONE
    }

    fn checked(self, side: &Side, features: u64, length: usize) -> Option<Self> {
        if !(ETHERNET..=FRAME_MAX).contains(&length) {
            return None;
        }
        let mut header = Self::default();
        if self.flags & NEEDS_CSUM != 0 {
            let end = usize::from(self.csum_start.get()) + usize::from(self.csum_offset.get()) + 2;
            if features & side.checksum == 0 || end > length {
                return None;
            }
            header.flags = NEEDS_CSUM;
            header.csum_start = self.csum_start;
            header.csum_offset = self.csum_offset;
        }
        if self.gso_type != GSO_NONE {
            let needed = match self.gso_type & !GSO_ECN {
                GSO_TCPV4 => side.tso4,
                GSO_TCPV6 => side.tso6,
                GSO_UDP => side.ufo,
                _ => return None,
            };
            let marked = self.gso_type & GSO_ECN != 0;
            // Each segment needs a checksum of its own (VIRTIO 1.1 5.1.6.2.1).
            if header.flags & NEEDS_CSUM == 0
                || features & needed == 0
                || marked && (features & side.ecn == 0 || needed == side.ufo)
                || self.gso_size.get() == 0
            {
                return None;
            }
            header.gso_type = self.gso_type;
            header.gso_size = self.gso_size;
            // A hint that may be wrong (VIRTIO 1.1 5.1.6.2.2).
            let most = u16::try_from(length).unwrap_or(u16::MAX);
            header.hdr_len = self.hdr_len.get().min(most).into();
        }
        Some(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = u64::MAX;

    fn checksum(start: u16, offset: u16) -> Header {
        Header {
            flags: NEEDS_CSUM,
            csum_start: start.into(),
            csum_offset: offset.into(),
            ..Header::default()
        }
    }

    fn segments(gso_type: u8) -> Header {
        Header {
            gso_type,
            gso_size: 1000.into(),
            hdr_len: 54.into(),
            ..checksum(34, 16)
        }
    }

    #[test]
    fn a_checksum_lies_in_the_frame() {
        assert!(checksum(34, 16).outgoing(ALL, 52).is_some());
        assert!(checksum(34, 16).outgoing(ALL, 51).is_none());
        assert!(checksum(u16::MAX, u16::MAX).outgoing(ALL, FRAME_MAX).is_none());
        assert!(checksum(34, 16).outgoing(ALL & !features::CSUM, 60).is_none());
    }

    #[test]
    fn segments_need_their_feature_a_size_and_a_checksum() {
        for (gso_type, feature) in [
            (GSO_TCPV4, features::HOST_TSO4),
            (GSO_TCPV6, features::HOST_TSO6),
            (GSO_UDP, features::HOST_UFO),
            (GSO_TCPV4 | GSO_ECN, features::HOST_ECN),
        ] {
            let header = segments(gso_type);
            assert_eq!(header.outgoing(ALL, 5000), Some(header));
            assert_eq!(header.outgoing(ALL & !feature, 5000), None);
            let none = Header {
                gso_size: 0.into(),
                ..header
            };
            assert_eq!(none.outgoing(ALL, 5000), None);
            let unsummed = Header { flags: 0, ..header };
            assert_eq!(unsummed.outgoing(ALL, 5000), None);
        }
        for unknown in [2, 5, 0x7f, GSO_UDP | GSO_ECN, GSO_ECN] {
            assert_eq!(segments(unknown).outgoing(ALL, 5000), None);
        }
    }

    #[test]
    fn what_has_no_meaning_is_cleared() {
        let header = Header {
            flags: 0xfe,
            hdr_len: 9.into(),
            gso_size: 9.into(),
            csum_start: 9.into(),
            csum_offset: 9.into(),
            num_buffers: 9.into(),
            ..Header::default()
        };
        assert_eq!(header.outgoing(ALL, 60), Some(Header::default()));
        let long = Header {
            hdr_len: u16::MAX.into(),
            ..segments(GSO_TCPV4)
        };
        assert_eq!(long.outgoing(ALL, 60).unwrap().hdr_len.get(), 60);
    }

    #[test]
    fn a_frame_has_an_ethernet_header_and_at_most_an_ip_packet() {
        for (length, good) in [
            (0, false),
            (13, false),
            (14, true),
            (FRAME_MAX, true),
            (FRAME_MAX + 1, false),
        ] {
            assert_eq!(Header::default().outgoing(0, length).is_some(), good, "{length}");
        }
    }

    #[test]
    fn a_guest_without_checksums_gets_no_flags() {
        let valid = Header {
            flags: DATA_VALID,
            ..Header::default()
        };
        assert_eq!(valid.incoming(features::GUEST_CSUM, 60).unwrap().flags, DATA_VALID);
        assert_eq!(valid.incoming(0, 60).unwrap().flags, 0);
        assert_eq!(checksum(34, 16).incoming(0, 60), None);
        assert_eq!(valid.incoming(0, 60).unwrap().num_buffers.get(), 1);
    }
}
