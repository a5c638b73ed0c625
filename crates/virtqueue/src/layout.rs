//! Layout of a ring and arithmetic of positions, shared by device half and driver half.

/// Largest queue size of either format (VIRTIO 1.1 2.6, 2.7).
pub(crate) const MAX_SIZE: u16 = 1 << 15;
/// Bytes of a descriptor, in the ring or in an indirect table, in both formats.
pub(crate) const DESCRIPTOR_SIZE: usize = 16;
/// A chain is at most this many bytes long in all (VIRTIO 1.1 2.6.5.2).
pub(crate) const MAX_CHAIN_BYTES: u64 = 1 << 32;

/// Descriptor flag: another one follows.
pub(crate) const NEXT: u16 = 1 << 0;
/// Descriptor flag: the device writes the buffer, and does not read it.
pub(crate) const WRITE: u16 = 1 << 1;
/// Descriptor flag: the buffer is a table of descriptors.
pub(crate) const INDIRECT: u16 = 1 << 2;

/// A descriptor, copied out of shared memory once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) length: u32,
    pub(crate) flags: u16,
    /// Split: where the chain goes on. Packed: the id of the buffer.
    pub(crate) link: u16,
}

/// How a format arranges the second eight bytes of a descriptor.
pub(crate) trait Format {
    fn decode(address: u64, rest: u64) -> Descriptor;
    fn encode(descriptor: &Descriptor) -> (u64, u64);
}

/// VIRTIO 1.1 2.6.
pub(crate) mod split {
    use super::{Descriptor, Format};

    /// Offset of `flags` in the available and in the used ring.
    pub(crate) const FLAGS: usize = 0;
    /// Offset of `idx` in the available and in the used ring.
    pub(crate) const INDEX: usize = 2;
    /// Value of `flags`: the other side need not notify.
    pub(crate) const NO_NOTIFICATION: u16 = 1;

    /// Offset of an entry of the available ring; the one behind the last is `used_event`.
    pub(crate) const fn available(slot: u16) -> usize {
        4 + 2 * slot as usize
    }

    /// Offset of an element of the used ring; behind the last is `avail_event`.
    pub(crate) const fn used(slot: u16) -> usize {
        4 + 8 * slot as usize
    }

    /// Whether crossing from index `old` to `new` passes `event` (VIRTIO 1.1 2.6.7.2); all run free modulo 2^16.
    #[inline]
    pub(crate) fn passes(event: u16, new: u16, old: u16) -> bool {
        new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
    }

    /// Addresses, lengths and links in the order of a split ring.
    #[derive(Debug)]
    pub(crate) struct Layout;

    impl Format for Layout {
        #[inline]
        fn decode(address: u64, rest: u64) -> Descriptor {
            Descriptor {
                address,
                length: rest as u32,
                flags: (rest >> 32) as u16,
                link: (rest >> 48) as u16,
            }
        }

        #[inline]
        fn encode(it: &Descriptor) -> (u64, u64) {
            (
                it.address,
                u64::from(it.length) | u64::from(it.flags) << 32 | u64::from(it.link) << 48,
            )
        }
    }
}

/// VIRTIO 1.1 2.7.
pub(crate) mod packed {
    use super::{Descriptor, Format};

    /// Descriptor flag, compared with a wrap counter: the driver has made it available.
    pub(crate) const AVAILABLE: u16 = 1 << 7;
    /// Descriptor flag, compared with a wrap counter: the device has used it.
    pub(crate) const USED: u16 = 1 << 15;
    /// Length of an event suppression structure, handled as one word so that no half of it is ever seen.
    pub(crate) const EVENT_SIZE: usize = 4;

    /// Addresses, lengths and ids in the order of a packed ring.
    #[derive(Debug)]
    pub(crate) struct Layout;

    impl Format for Layout {
        #[inline]
        fn decode(address: u64, rest: u64) -> Descriptor {
            Descriptor {
                address,
                length: rest as u32,
                flags: (rest >> 48) as u16,
                link: (rest >> 32) as u16,
            }
        }

        #[inline]
        fn encode(it: &Descriptor) -> (u64, u64) {
            (
                it.address,
                u64::from(it.length) | u64::from(it.flags) << 48 | u64::from(it.link) << 32,
            )
        }
    }

    /// A slot of the ring, and the wrap counter of the lap.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Position {
        pub(crate) slot: u16,
        pub(crate) wrap: bool,
    }

    impl Position {
        /// Where a fresh ring starts.
        pub(crate) const FIRST: Position = Position { slot: 0, wrap: true };

        /// Fifteen bits of slot and the wrap counter above: event structures and `VRING_BASE` have it so.
        pub(crate) fn from_bits(bits: u16) -> Position {
            Position {
                slot: bits & 0x7fff,
                wrap: bits >> 15 == 1,
            }
        }

        pub(crate) fn to_bits(self) -> u16 {
            self.slot | u16::from(self.wrap) << 15
        }

        /// The position `slots` further, at most one lap, in a ring of `size`.
        #[inline]
        pub(crate) fn plus(self, slots: u16, size: u16) -> Position {
            debug_assert!(slots <= size && self.slot < size);
            let sum = u32::from(self.slot) + u32::from(slots);
            match sum.checked_sub(u32::from(size)) {
                Some(over) => Position {
                    slot: over as u16,
                    wrap: !self.wrap,
                },
                None => Position {
                    slot: sum as u16,
                    wrap: self.wrap,
                },
            }
        }

        /// The position `slots` before this one, at most a lap.
        pub(crate) fn minus(self, slots: u16, size: u16) -> Position {
            debug_assert!(slots <= size && self.slot < size);
            match self.slot.checked_sub(slots) {
                Some(slot) => Position { slot, wrap: self.wrap },
                None => Position {
                    slot: self.slot + (size - slots),
                    wrap: !self.wrap,
                },
            }
        }

        /// Whether `flags` in this slot say that the driver has made it available.
        #[inline]
        pub(crate) fn is_available(self, flags: u16) -> bool {
            flags & (AVAILABLE | USED) == self.available_flags()
        }

        /// Whether `flags` in this slot say that the device has used it.
        #[inline]
        pub(crate) fn is_used(self, flags: u16) -> bool {
            flags & (AVAILABLE | USED) == self.used_flags()
        }

        /// The flags that make a descriptor in this slot available.
        #[inline]
        pub(crate) fn available_flags(self) -> u16 {
            if self.wrap { AVAILABLE } else { USED }
        }

        /// The flags that make a descriptor in this slot used.
        #[inline]
        pub(crate) fn used_flags(self) -> u16 {
            if self.wrap { AVAILABLE | USED } else { 0 }
        }

        /// Whether one of the last `slots` slots in front of this position is `event`, in a ring of `size`.
        ///
        /// The same as the usual 16 bit arithmetic for up to `size` slots, and right beyond.
        #[inline]
        pub(crate) fn has_passed(self, event: Position, slots: u32, size: u16) -> bool {
            let lap = u32::from(size);
            let linear = |at: Position| u32::from(at.slot) + if at.wrap { 0 } else { lap };
            let distance = linear(self) + 2 * lap - linear(event);
            // Once a chain: no division.
            let distance = if distance < 2 * lap {
                distance
            } else {
                distance - 2 * lap
            };
            slots >= 2 * lap || (1..=slots).contains(&distance)
        }
    }

    /// What an event suppression structure asks for (VIRTIO 1.1 2.7.14).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Event {
        Always,
        Never,
        /// When this position is passed; only with `EVENT_IDX`.
        At(Position),
    }

    impl Event {
        /// What a structure says. The value that is reserved, a position without `EVENT_IDX` or one outside the ring ask
        /// for every notification: a needless one is harmless, a missing one is not.
        pub(crate) fn from_bits(bits: u32, event_idx: bool, size: u16) -> Event {
            let position = Position::from_bits(bits as u16);
            match (bits >> 16) & 3 {
                1 => Event::Never,
                2 if event_idx && position.slot < size => Event::At(position),
                _ => Event::Always,
            }
        }

        pub(crate) fn to_bits(self) -> u32 {
            match self {
                Event::Always => 0,
                Event::Never => 1 << 16,
                Event::At(position) => u32::from(position.to_bits()) | 2 << 16,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::packed::Position;

    /// The usual 16 bit arithmetic: an event of the lap before lies `size` in front of the ring.
    fn by_the_book(new: Position, event: Position, slots: u16, size: u16) -> bool {
        let event = if event.wrap == new.wrap {
            event.slot
        } else {
            event.slot.wrapping_sub(size)
        };
        super::split::passes(event, new.slot, new.slot.wrapping_sub(slots))
    }

    #[test]
    fn a_position_is_passed_exactly_when_a_walk_over_the_last_slots_meets_it() {
        for size in 1..=5u16 {
            let start = Position { slot: 0, wrap: true };
            let all = || (0..2 * size).map(|steps| (0..steps).fold(start, |at, _| at.plus(1, size)));
            for (from, event) in all().flat_map(|from| all().map(move |event| (from, event))) {
                let mut passed = false;
                let mut at = from;
                for slots in 1..=5 * size {
                    passed |= at == event;
                    at = at.plus(1, size);
                    assert_eq!(
                        at.has_passed(event, slots.into(), size),
                        passed,
                        "{slots} slots from {from:?} in {size}"
                    );
                    assert!(slots > size || by_the_book(at, event, slots, size) == passed);
                }
            }
        }
    }
}
