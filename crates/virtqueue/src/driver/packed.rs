//! The driver half of a packed ring (VIRTIO 1.1 2.7).

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use guestmem::Area;

use super::{Fault, Half, flags};
use crate::layout::packed::{Event, Layout, Position};
use crate::layout::{DESCRIPTOR_SIZE, Descriptor, Format as _, WRITE};
use crate::words::Words;

#[derive(Debug)]
pub(super) struct Packed {
    ring: Slots<Area>,
    /// Ids that no posted chain has.
    ids: Vec<u16>,
    /// Slots of the chain with this id.
    spans: Vec<u16>,
    free: u16,
}

/// The ring of descriptors and the two event structures, seen by the driver.
#[derive(Debug)]
pub(crate) struct Slots<W> {
    ring: W,
    driver_event: W,
    device_event: W,
    size: u16,
    event_idx: bool,
    next_available: Position,
    next_used: Position,
    /// Slots made available since the last decision about a kick.
    unannounced: u32,
}

impl Packed {
    pub(super) fn new(ring: Slots<Area>, size: u16) -> Packed {
        Packed {
            ring,
            ids: (0..size).rev().collect(),
            spans: vec![0; size as usize],
            free: size,
        }
    }
}

impl Half for Packed {
    type Layout = Layout;

    /// No flag but `WRITE` means anything there, and entries follow each other (VIRTIO 1.1 2.7.7).
    fn table_entry(descriptor: Descriptor, _index: u16, _count: u16) -> Descriptor {
        descriptor
    }

    fn free(&self) -> u16 {
        self.free
    }

    fn place(&mut self, chain: &[Descriptor]) -> u16 {
        // Each posted chain has at least one slot, so there are never fewer ids than slots.
        let id = self.ids.pop().unwrap_or(0);
        self.spans[id as usize] = chain.len() as u16;
        self.free -= chain.len() as u16;
        self.ring.publish(chain, id);
        id
    }

    fn used(&self) -> Result<Option<(u32, u32)>, Fault> {
        // Only posted slots count: a cleared one looks used on every second lap (VIRTIO 1.1 2.7.1).
        Ok(if self.free == self.ring.size {
            None
        } else {
            self.ring.used()
        })
    }

    fn release(&mut self, id: u16) {
        let span = self.spans[id as usize];
        self.ring.consume(span);
        self.free += span;
        self.ids.push(id);
    }

    fn kick_wanted(&mut self) -> bool {
        self.ring.kick_wanted()
    }

    fn arm_interrupt(&mut self) -> bool {
        self.ring.arm_interrupt() || self.free == self.ring.size
    }

    fn disarm_interrupt(&mut self) {
        self.ring.disarm_interrupt();
    }
}

impl<W: Words> Slots<W> {
    /// A cleared ring of `size` slots, going on at these positions.
    pub(crate) fn new(
        [ring, driver_event, device_event]: [W; 3],
        size: u16,
        event_idx: bool,
        next_available: Position,
        next_used: Position,
    ) -> Slots<W> {
        Slots {
            ring,
            driver_event,
            device_event,
            size,
            event_idx,
            next_available,
            next_used,
            unannounced: 0,
        }
    }

    /// Makes a chain available. Its head is written last, with release order, so that the device sees the whole chain
    /// or nothing (VIRTIO 1.1 2.7.21).
    pub(crate) fn publish(&mut self, chain: &[Descriptor], id: u16) {
        let count = chain.len();
        for (index, descriptor) in chain.iter().enumerate().rev() {
            let at = self.next_available.plus(index as u16, self.size);
            let flags = flags(descriptor, index, count) | at.available_flags();
            let (address, rest) = Layout::encode(&Descriptor {
                flags,
                link: id,
                ..*descriptor
            });
            let offset = at.slot as usize * DESCRIPTOR_SIZE;
            self.ring.store_u64(offset, address, Relaxed);
            self.ring
                .store_u64(offset + 8, rest, if index == 0 { Release } else { Relaxed });
        }
        self.next_available = self.next_available.plus(count as u16, self.size);
        self.unannounced = self.unannounced.saturating_add(count as u32);
    }

    /// Whether the device is to be kicked for what was published since the last decision.
    pub(crate) fn kick_wanted(&mut self) -> bool {
        let slots = std::mem::take(&mut self.unannounced);
        if slots == 0 {
            return false;
        }
        // The device stores what it wants to hear and then looks at our flags; we have stored the flags and look now.
        W::fence();
        match Event::from_bits(self.device_event.load_u32(0, Acquire), self.event_idx, self.size) {
            Event::Always => true,
            Event::Never => false,
            Event::At(event) => self.next_available.has_passed(event, slots, self.size),
        }
    }

    /// Id and length of the descriptor in the next slot, if it is used; the length means something only with `WRITE`.
    pub(crate) fn used(&self) -> Option<(u32, u32)> {
        let rest = self
            .ring
            .load_u64(self.next_used.slot as usize * DESCRIPTOR_SIZE + 8, Acquire);
        let it = Layout::decode(0, rest);
        let written = if it.flags & WRITE != 0 { it.length } else { 0 };
        self.next_used
            .is_used(it.flags)
            .then_some((u32::from(it.link), written))
    }

    /// Passes over a used chain of `span` slots.
    pub(crate) fn consume(&mut self, span: u16) {
        self.next_used = self.next_used.plus(span, self.size);
    }

    /// Asks for an interrupt at the next used chain. False if one has slipped in.
    pub(crate) fn arm_interrupt(&mut self) -> bool {
        self.ask(if self.event_idx {
            Event::At(self.next_used)
        } else {
            Event::Always
        });
        W::fence();
        self.used().is_none()
    }

    pub(crate) fn disarm_interrupt(&mut self) {
        self.ask(Event::Never);
    }

    fn ask(&mut self, event: Event) {
        self.driver_event.store_u32(0, event.to_bits(), Release);
    }
}
