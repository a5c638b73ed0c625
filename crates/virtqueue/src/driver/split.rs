//! The driver half of a split ring (VIRTIO 1.1 2.6).

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use guestmem::Area;

use super::{Fault, Half, flags};
use crate::layout::split::{FLAGS, INDEX, Layout, NO_NOTIFICATION, available, passes, used};
use crate::layout::{DESCRIPTOR_SIZE, Descriptor, Format as _, NEXT};
use crate::words::Words;

#[derive(Debug)]
pub(super) struct Split {
    rings: Rings<Area>,
    table: Area,
    /// Where each free or posted chain goes on: our own copy, which the device cannot change.
    links: Vec<u16>,
    /// Descriptors of the chain with this head.
    lengths: Vec<u16>,
    /// Free descriptors are a list that is taken from its head and given back at its tail. With completions in order it
    /// runs around the table, which is what `IN_ORDER` asks for (VIRTIO 1.1 2.6.5).
    free: u16,
    head: u16,
    tail: u16,
}

/// The available and the used ring, seen by the driver.
#[derive(Debug)]
pub(crate) struct Rings<W> {
    available: W,
    used: W,
    size: u16,
    event_idx: bool,
    next_available: u16,
    next_used: u16,
    /// `next_available` at the last decision about a kick.
    announced: u16,
}

impl Split {
    pub(super) fn new(rings: Rings<Area>, table: Area, size: u16) -> Split {
        let links = (0..size).map(|index| (index + 1) % size).collect();
        Split {
            rings,
            table,
            links,
            lengths: vec![0; size as usize],
            free: size,
            head: 0,
            tail: size - 1,
        }
    }
}

impl Half for Split {
    type Layout = Layout;

    /// Linked in sequence (VIRTIO 1.1 2.6.5.3.1).
    fn table_entry(descriptor: Descriptor, index: u16, count: u16) -> Descriptor {
        let flags = flags(&descriptor, index as usize, count as usize);
        Descriptor {
            flags,
            link: if flags & NEXT != 0 { index + 1 } else { 0 },
            ..descriptor
        }
    }

    fn free(&self) -> u16 {
        self.free
    }

    fn place(&mut self, chain: &[Descriptor]) -> u16 {
        let head = self.head;
        for (index, descriptor) in chain.iter().enumerate() {
            let link = self.links[self.head as usize];
            let (address, rest) = Layout::encode(&Descriptor {
                flags: flags(descriptor, index, chain.len()),
                link,
                ..*descriptor
            });
            let offset = self.head as usize * DESCRIPTOR_SIZE;
            self.table.store_u64(offset, address, Relaxed);
            self.table.store_u64(offset + 8, rest, Relaxed);
            self.head = link;
        }
        self.lengths[head as usize] = chain.len() as u16;
        self.free -= chain.len() as u16;
        self.rings.publish(head);
        head
    }

    fn used(&self) -> Result<Option<(u32, u32)>, Fault> {
        self.rings.used()
    }

    fn release(&mut self, id: u16) {
        let length = self.lengths[id as usize];
        if self.free == 0 {
            self.head = id;
        } else {
            self.links[self.tail as usize] = id;
        }
        self.tail = (1..length).fold(id, |at, _| self.links[at as usize]);
        self.free += length;
        self.rings.consume();
    }

    fn kick_wanted(&mut self) -> bool {
        self.rings.kick_wanted()
    }

    fn arm_interrupt(&mut self) -> bool {
        self.rings.arm_interrupt()
    }

    fn disarm_interrupt(&mut self) {
        self.rings.disarm_interrupt();
    }
}

impl<W: Words> Rings<W> {
    /// Cleared rings of `size` entries, which both go on at index `base`.
    pub(crate) fn new(available: W, used: W, size: u16, event_idx: bool, base: u16) -> Rings<W> {
        available.store_u16(INDEX, base, Relaxed);
        used.store_u16(INDEX, base, Relaxed);
        Rings {
            available,
            used,
            size,
            event_idx,
            next_available: base,
            next_used: base,
            announced: base,
        }
    }

    /// Makes the chain at `head` available. The release order makes its descriptors visible first.
    pub(crate) fn publish(&mut self, head: u16) {
        self.available
            .store_u16(available(self.next_available & (self.size - 1)), head, Relaxed);
        self.next_available = self.next_available.wrapping_add(1);
        self.available.store_u16(INDEX, self.next_available, Release);
    }

    /// Whether the device is to be kicked for what was published since the last decision.
    pub(crate) fn kick_wanted(&mut self) -> bool {
        let old = std::mem::replace(&mut self.announced, self.next_available);
        if old == self.next_available {
            return false;
        }
        // The device stores what it wants to hear and then looks at our index; we have stored the index and look now.
        W::fence();
        if self.event_idx {
            passes(self.used.load_u16(used(self.size), Relaxed), self.next_available, old)
        } else {
            self.used.load_u16(FLAGS, Relaxed) & NO_NOTIFICATION == 0
        }
    }

    /// The next used element, if the device has published one.
    pub(crate) fn used(&self) -> Result<Option<(u32, u32)>, Fault> {
        let pending = self.used.load_u16(INDEX, Acquire).wrapping_sub(self.next_used);
        if pending > self.next_available.wrapping_sub(self.next_used) {
            return Err(Fault::TooManyUsed);
        }
        let element = used(self.next_used & (self.size - 1));
        let read = |offset| self.used.load_u32(offset, Relaxed);
        Ok((pending > 0).then(|| (read(element), read(element + 4))))
    }

    /// Passes over a used element.
    pub(crate) fn consume(&mut self) {
        self.next_used = self.next_used.wrapping_add(1);
    }

    /// Asks for an interrupt at the next used chain. False if one has slipped in.
    pub(crate) fn arm_interrupt(&mut self) -> bool {
        if self.event_idx {
            self.available.store_u16(available(self.size), self.next_used, Relaxed);
        } else {
            self.available.store_u16(FLAGS, 0, Relaxed);
        }
        W::fence();
        self.used.load_u16(INDEX, Relaxed) == self.next_used
    }

    /// With `EVENT_IDX` flags must stay 0 (VIRTIO 1.1 2.6.7.1), but an index that was just passed is as good: it comes up
    /// again after 65535 chains.
    pub(crate) fn disarm_interrupt(&mut self) {
        if self.event_idx {
            self.available
                .store_u16(available(self.size), self.next_used.wrapping_sub(1), Relaxed);
        } else {
            self.available.store_u16(FLAGS, NO_NOTIFICATION, Relaxed);
        }
    }
}
