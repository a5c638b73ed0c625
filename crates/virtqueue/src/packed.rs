//! The device half of a packed ring (VIRTIO 1.1 2.7).

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use guestmem::Area;

use crate::Violation;
use crate::chain::{Buffers, Claim, Limits, Walk};
use crate::inflight::{LeftBehind, PackedRecord};
use crate::layout::packed::{Event, Layout, Position, USED};
use crate::layout::{DESCRIPTOR_SIZE, Descriptor, Format as _, INDIRECT, NEXT, WRITE};
use crate::ring::Ring;
use crate::words::Words;

/// The whole queue.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) ring: Slots<Area>,
    pub(crate) limits: Limits,
    pub(crate) record: Option<PackedRecord<Area>>,
}

/// The ring of descriptors and the two event structures.
#[derive(Debug)]
pub(crate) struct Slots<W> {
    ring: W,
    driver_event: W,
    device_event: W,
    size: u16,
    event_idx: bool,
    next_available: Position,
    next_used: Position,
    /// Slots taken and not used yet.
    outstanding: u16,
    /// Slots used since the last decision about an interrupt; none yet after the start.
    undecided: Option<u32>,
    /// What the device event structure says; unknown after the start.
    kicks: Option<Event>,
}

impl Ring for Packed {
    #[inline]
    fn peek(&mut self, buffers: &mut Buffers) -> Result<Option<Claim>, Violation> {
        let Self { ring, limits, record } = self;
        match record {
            None => walk(ring, *limits, buffers, |_| {}),
            Some(record) => peek_recorded(ring, *limits, record, buffers),
        }
    }

    #[inline]
    fn advance(&mut self, claim: Claim) {
        // A chain that a predecessor left is counted already.
        if !self.record.as_mut().is_some_and(PackedRecord::take_left) {
            self.ring.advance(claim.span);
        }
    }

    #[cold]
    fn put_back(&mut self, claim: Claim) {
        if let Some(record) = &mut self.record
            && record.oldest_left().is_none()
        {
            record.unmark(claim.entry);
        }
    }

    #[inline]
    fn stage(&mut self, claim: Claim) {
        if let Some(record) = &mut self.record {
            record.stage(claim.entry);
        }
    }

    #[inline]
    fn push_used(&mut self, claim: Claim, written: u32) {
        let Some(record) = &mut self.record else {
            return self.ring.push_used(claim.id, written, claim.span);
        };
        record.before_publication(claim.entry, self.ring.next_used.plus(claim.span, self.ring.size));
        self.ring.push_used(claim.id, written, claim.span);
        record.after_publication();
    }

    fn push_used_together(&mut self, chains: &[(Claim, u32)]) {
        if let (Some(record), Some(((last, _), others))) = (&mut self.record, chains.split_last()) {
            others.iter().for_each(|(claim, _)| record.stage(claim.entry));
            let start = self.ring.next_used;
            let used = chains
                .iter()
                .fold(start, |at, (claim, _)| at.plus(claim.span, self.ring.size));
            record.before_publication(last.entry, used);
        }
        self.ring.push_used_together(chains);
        if let Some(record) = &mut self.record {
            record.after_publication();
        }
    }

    fn retreat(&mut self, claim: Claim) {
        match &mut self.record {
            None => self.ring.retreat(claim.span),
            // It stays marked, and is the next one all the same.
            Some(record) => record.leave(LeftBehind {
                head: claim.entry,
                count: claim.span,
            }),
        }
    }

    fn has_available(&self) -> bool {
        let left = self.record.as_ref().and_then(PackedRecord::oldest_left);
        self.ring.head().is_some() || left.is_some()
    }

    fn disarm_kick(&mut self, for_long: bool) {
        self.ring.disarm_kick(for_long);
    }

    fn arm_kick(&mut self) -> bool {
        self.ring.arm_kick()
    }

    fn interrupt_wanted(&mut self) -> bool {
        self.ring.interrupt_wanted()
    }

    #[inline]
    fn is_awaited(&self, more: u16) -> bool {
        self.ring.is_awaited(more)
    }

    fn position(&self) -> u32 {
        u32::from(self.ring.next_available.to_bits()) | u32::from(self.ring.next_used.to_bits()) << 16
    }

    #[cold]
    fn is_lost(&self) -> bool {
        self.ring.is_lost() || self.record.as_ref().is_some_and(PackedRecord::is_lost)
    }
}

/// Collects the next chain of the ring. `each` is given its descriptors in the ring, in turn.
#[inline]
fn walk(
    ring: &Slots<Area>,
    limits: Limits,
    buffers: &mut Buffers,
    mut each: impl FnMut(&Descriptor),
) -> Result<Option<Claim>, Violation> {
    let Some(head) = ring.head() else { return Ok(None) };
    let mut walk = Walk::new(buffers, limits);
    let (mut descriptor, mut at, mut span) = (head, ring.next_available, 1);
    each(&descriptor);
    if descriptor.flags & INDIRECT != 0 {
        walk.sweep_table::<Layout>(&descriptor)?;
    } else {
        walk.add(&descriptor)?;
        while descriptor.flags & NEXT != 0 {
            if span == ring.free() {
                return Err(Violation::TooManyAvailable { size: ring.size });
            }
            // The head was made available last: the others of the list are there (VIRTIO 1.1 2.7.17).
            at = at.plus(1, ring.size);
            descriptor = ring.member(at.slot);
            if descriptor.flags & INDIRECT != 0 {
                return Err(Violation::IndirectMisplaced);
            }
            walk.add(&descriptor)?;
            each(&descriptor);
            span += 1;
        }
    }
    walk.finish()?;
    // A list may run into slots that still belong to chains in flight.
    if span > ring.free() {
        return Err(Violation::TooManyAvailable { size: ring.size });
    }
    // Only the last descriptor of a list carries the id (VIRTIO 1.1 2.7.6). It is the driver's and never looked up.
    Ok(Some(Claim {
        id: descriptor.link,
        span,
        entry: 0,
    }))
}

/// The same with in-flight tracking: a chain that a predecessor left comes first, and another one is marked.
fn peek_recorded(
    ring: &Slots<Area>,
    limits: Limits,
    record: &mut PackedRecord<Area>,
    buffers: &mut Buffers,
) -> Result<Option<Claim>, Violation> {
    if let Some(left) = record.oldest_left() {
        return collect_left(limits, record, left, buffers).map(Some);
    }
    record.begin();
    let claim = walk(ring, limits, buffers, |descriptor| record.copy(descriptor))?;
    Ok(claim.map(|claim| Claim {
        entry: record.mark(),
        ..claim
    }))
}

/// Collects a chain from its copies, since its slots in the ring may be overwritten. The front end may have changed them: they are
/// checked as new ones are.
fn collect_left(
    limits: Limits,
    record: &PackedRecord<Area>,
    left: LeftBehind,
    buffers: &mut Buffers,
) -> Result<Claim, Violation> {
    let mut walk = Walk::new(buffers, limits);
    let mut id = 0;
    for descriptor in record.descriptors(left) {
        if descriptor.flags & INDIRECT == 0 {
            walk.add(&descriptor)?;
        } else if left.count == 1 {
            walk.sweep_table::<Layout>(&descriptor)?;
        } else {
            return Err(Violation::IndirectMisplaced);
        }
        id = descriptor.link;
    }
    walk.finish()?;
    Ok(Claim {
        id,
        span: left.count,
        entry: left.head,
    })
}

impl Slots<Area> {
    fn is_lost(&self) -> bool {
        self.ring.is_lost() || self.driver_event.is_lost() || self.device_event.is_lost()
    }
}

impl<W: Words> Slots<W> {
    /// A ring of `size` slots, going on at these positions, which lie in it.
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
            outstanding: 0,
            undecided: None,
            kicks: None,
        }
    }

    /// Whether the device has used the slot at a position, or the driver has made it available again since: until then, the flag
    /// has the value that the driver gave it.
    pub(crate) fn was_used(&self, at: Position) -> bool {
        (self.member(at.slot).flags & USED != 0) == at.wrap
    }

    /// The same, going on at `next_used` with so many slots in flight that a predecessor has taken: the next chain is behind them.
    ///
    /// A predecessor may have begun to publish several chains together, the first of them last. What it wrote behind must not look
    /// used once the first slot is.
    pub(crate) fn with_left(self, next_used: Position, slots: u16) -> Slots<W> {
        let mut at = next_used;
        for _ in 0..slots {
            if self.was_used(at) {
                let word = at.slot as usize * DESCRIPTOR_SIZE + 8;
                let mut descriptor = Layout::decode(0, self.ring.load_u64(word, Relaxed));
                descriptor.flags = at.available_flags();
                self.ring.store_u64(word, Layout::encode(&descriptor).1, Release);
            }
            at = at.plus(1, self.size);
        }
        Slots {
            next_available: next_used.plus(slots, self.size),
            next_used,
            outstanding: slots,
            ..self
        }
    }

    /// Goes on at the same place, seen through another mapping.
    pub(crate) fn replace_memory(&mut self, [ring, driver_event, device_event]: [W; 3]) {
        (self.ring, self.driver_event, self.device_event) = (ring, driver_event, device_event);
    }

    /// The next descriptor, if the driver has made it available. The acquire order makes all of its list visible
    /// (VIRTIO 1.1 2.7.21).
    #[inline]
    pub(crate) fn head(&self) -> Option<Descriptor> {
        let Position { slot, .. } = self.next_available;
        let rest = self.ring.load_u64(slot as usize * DESCRIPTOR_SIZE + 8, Acquire);
        let available = self.next_available.is_available(Layout::decode(0, rest).flags);
        available.then(|| self.descriptor(slot, rest))
    }

    /// Another descriptor of a list whose head was available.
    #[inline]
    fn member(&self, slot: u16) -> Descriptor {
        self.descriptor(slot, self.ring.load_u64(slot as usize * DESCRIPTOR_SIZE + 8, Relaxed))
    }

    /// Flags, length and id come in one word, so that they belong together; the address is fetched behind it.
    #[inline]
    fn descriptor(&self, slot: u16, rest: u64) -> Descriptor {
        Layout::decode(self.ring.load_u64(slot as usize * DESCRIPTOR_SIZE, Relaxed), rest)
    }

    /// Slots that the driver can have made available: those that the device does not owe it.
    #[inline]
    fn free(&self) -> u16 {
        self.size - self.outstanding
    }

    #[inline]
    pub(crate) fn advance(&mut self, span: u16) {
        self.outstanding += span;
        self.next_available = self.next_available.plus(span, self.size);
    }

    /// Takes `advance` back.
    fn retreat(&mut self, span: u16) {
        self.outstanding -= span;
        self.next_available = self.next_available.minus(span, self.size);
    }

    /// Writes one used descriptor in the first of `span` slots, which publishes them.
    #[inline]
    pub(crate) fn push_used(&mut self, id: u16, written: u32, span: u16) {
        self.write_used(self.next_used, id, written);
        self.move_used(span);
    }

    /// Writes the first used descriptor last, which publishes all of them: the driver looks there.
    fn push_used_together(&mut self, chains: &[(Claim, u32)]) {
        let start = self.next_used;
        for (claim, written) in chains {
            if self.next_used != start {
                self.write_used(self.next_used, claim.id, *written);
            }
            self.move_used(claim.span);
        }
        if let Some((claim, written)) = chains.first() {
            self.write_used(start, claim.id, *written);
        }
    }

    /// Id and length share their word with the flags; the release order makes what was written before visible first.
    #[inline]
    fn write_used(&self, at: Position, id: u16, written: u32) {
        let flags = at.used_flags() | if written > 0 { WRITE } else { 0 };
        let (_, rest) = Layout::encode(&Descriptor {
            address: 0,
            length: written,
            flags,
            link: id,
        });
        self.ring
            .store_u64(at.slot as usize * DESCRIPTOR_SIZE + 8, rest, Release);
    }

    #[inline]
    fn move_used(&mut self, span: u16) {
        self.next_used = self.next_used.plus(span, self.size);
        self.outstanding -= span;
        self.undecided = self.undecided.map(|slots| slots.saturating_add(u32::from(span)));
    }

    /// Tells the driver that no kick is needed. With `EVENT_IDX` the old position does, for almost two laps.
    pub(crate) fn disarm_kick(&mut self, for_long: bool) {
        if for_long || !self.event_idx {
            self.ask(Event::Never);
        }
    }

    /// Asks for a kick at the next chain. False if one has slipped in, for which no kick may come.
    pub(crate) fn arm_kick(&mut self) -> bool {
        self.ask(if self.event_idx {
            Event::At(self.next_available)
        } else {
            Event::Always
        });
        // The driver stores its flags and then looks at what we just stored; we do it the other way round. With a full
        // barrier on both sides, one of the two sees the other.
        W::fence();
        self.head().is_none()
    }

    /// Whether the driver is to be interrupted for what was used since the last decision (VIRTIO 1.1 2.7.10).
    pub(crate) fn interrupt_wanted(&mut self) -> bool {
        // A predecessor may have used chains and ended before its interrupt: the first decision is always yes.
        let Some(slots) = self.undecided.replace(0) else {
            return true;
        };
        if slots == 0 {
            return false;
        }
        // The driver stores what it wants to hear and then looks at the used flags; see `arm_kick`.
        W::fence();
        match Event::from_bits(self.driver_event.load_u32(0, Acquire), self.event_idx, self.size) {
            Event::Always => true,
            Event::Never => false,
            Event::At(event) => self.next_used.has_passed(event, slots, self.size),
        }
    }

    /// See [`Ring::is_awaited`]. There is no barrier, so a driver that arms just now is seen by the next decision.
    #[inline]
    pub(crate) fn is_awaited(&self, more: u16) -> bool {
        let Some(slots) = self.undecided else { return false };
        let bits = self.driver_event.load_u32(0, Relaxed);
        let Event::At(event) = Event::from_bits(bits, self.event_idx, self.size) else {
            return false;
        };
        self.next_used
            .plus(more, self.size)
            .has_passed(event, slots.saturating_add(more.into()), self.size)
    }

    fn ask(&mut self, event: Event) {
        if self.kicks != Some(event) {
            self.device_event.store_u32(0, event.to_bits(), Release);
            self.kicks = Some(event);
        }
    }
}
