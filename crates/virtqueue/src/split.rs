//! The device half of a split ring (VIRTIO 1.1 2.6).

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use guestmem::Area;

use crate::Violation;
use crate::chain::{Buffers, Claim, Limits, Walk};
use crate::inflight::SplitRecord;
use crate::layout::split::{FLAGS, INDEX, Layout, NO_NOTIFICATION, available, passes, used};
use crate::layout::{DESCRIPTOR_SIZE, Descriptor, Format as _, INDIRECT, NEXT};
use crate::ring::Ring;
use crate::words::Words;

/// The whole queue: the two rings and the descriptors that their entries name.
#[derive(Debug)]
pub(crate) struct Split {
    pub(crate) rings: Rings<Area>,
    pub(crate) table: Area,
    pub(crate) limits: Limits,
    pub(crate) record: Option<SplitRecord<Area>>,
}

/// The available and the used ring: what is offered, what is finished, and who wants to hear of it.
#[derive(Debug)]
pub(crate) struct Rings<W> {
    available: W,
    used: W,
    size: u16,
    event_idx: bool,
    /// Index of the next chain to take; runs free, as all indexes here do.
    next_available: u16,
    /// The driver's index when it was last looked at.
    seen_available: u16,
    next_used: u16,
    /// Chains taken and not used yet.
    outstanding: u16,
    /// `next_used` at the last decision about an interrupt; none yet after the start.
    decided: Option<u16>,
    /// Whether kicks are asked for; unknown after the start.
    kicks: Option<bool>,
}

impl Ring for Split {
    #[inline]
    fn peek(&mut self, buffers: &mut Buffers) -> Result<Option<Claim>, Violation> {
        let left = self.record.as_ref().and_then(SplitRecord::oldest_left);
        let head = match left {
            Some(head) => head,
            None => match self.rings.head()? {
                Some(head) => head,
                None => return Ok(None),
            },
        };
        let mut walk = Walk::new(buffers, self.limits);
        let mut index = head;
        loop {
            let descriptor = self.descriptor(index)?;
            if descriptor.flags & INDIRECT != 0 {
                // Ordinary descriptors may come before the table, none after it (VIRTIO 1.1 2.6.5.3.2).
                walk.follow_table::<Layout>(&descriptor)?;
                break;
            }
            walk.add(&descriptor)?;
            if descriptor.flags & NEXT == 0 {
                break;
            }
            index = descriptor.link;
        }
        walk.finish()?;
        if let Some(record) = &mut self.record
            && left.is_none()
        {
            record.mark(head);
        }
        Ok(Some(Claim {
            id: head,
            span: 1,
            entry: head,
        }))
    }

    #[inline]
    fn advance(&mut self, claim: Claim) {
        // A chain that a predecessor left is counted already.
        if !self.record.as_mut().is_some_and(SplitRecord::take_left) {
            self.rings.advance(claim.span);
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
            return self.rings.push_used(claim.id, written, claim.span);
        };
        record.before_publication(claim.entry);
        self.rings.push_used(claim.id, written, claim.span);
        record.after_publication(self.rings.next_used);
    }

    fn push_used_together(&mut self, chains: &[(Claim, u32)]) {
        if let (Some(record), Some(((last, _), others))) = (&mut self.record, chains.split_last()) {
            others.iter().for_each(|(claim, _)| record.stage(claim.entry));
            record.before_publication(last.entry);
        }
        self.rings.push_used_together(chains);
        if let Some(record) = &mut self.record {
            record.after_publication(self.rings.next_used);
        }
    }

    fn retreat(&mut self, claim: Claim) {
        match &mut self.record {
            None => self.rings.retreat(claim.span),
            // It stays marked, and is the next one all the same.
            Some(record) => record.leave(claim.entry),
        }
    }

    fn has_available(&self) -> bool {
        self.rings.has_available() || self.record.as_ref().is_some_and(|record| record.left() > 0)
    }

    fn disarm_kick(&mut self, _for_long: bool) {
        self.rings.disarm_kick();
    }

    fn arm_kick(&mut self) -> bool {
        self.rings.arm_kick()
    }

    fn interrupt_wanted(&mut self) -> bool {
        self.rings.interrupt_wanted()
    }

    #[inline]
    fn is_awaited(&self, more: u16) -> bool {
        self.rings.is_awaited(more)
    }

    fn position(&self) -> u32 {
        u32::from(self.rings.next_available)
    }

    #[cold]
    fn is_lost(&self) -> bool {
        self.table.is_lost() || self.rings.is_lost() || self.record.as_ref().is_some_and(SplitRecord::is_lost)
    }
}

impl Split {
    /// Copies a descriptor out of the table, whose entries have 16 bytes aligned to 16.
    #[inline]
    fn descriptor(&self, index: u16) -> Result<Descriptor, Violation> {
        if index >= self.rings.size {
            return Err(Violation::NoSuchDescriptor {
                index,
                entries: u32::from(self.rings.size),
            });
        }
        let offset = index as usize * DESCRIPTOR_SIZE;
        Ok(Layout::decode(
            self.table.load_u64(offset, Relaxed),
            self.table.load_u64(offset + 8, Relaxed),
        ))
    }
}

impl Rings<Area> {
    fn is_lost(&self) -> bool {
        self.available.is_lost() || self.used.is_lost()
    }
}

impl<W: Words> Rings<W> {
    /// Rings of `size` entries, a power of two, going on at `next_available`; where the used ring goes on stands there.
    pub(crate) fn new(available: W, used: W, size: u16, event_idx: bool, next_available: u16) -> Rings<W> {
        let next_used = used.load_u16(INDEX, Relaxed);
        let seen_available = next_available;
        Rings {
            available,
            used,
            size,
            event_idx,
            next_available,
            seen_available,
            next_used,
            outstanding: 0,
            decided: None,
            kicks: None,
        }
    }

    /// The same, with so many chains in flight that a predecessor has taken: the next one is behind them.
    pub(crate) fn with_left(self, chains: u16) -> Rings<W> {
        let next_available = self.next_used.wrapping_add(chains);
        Rings {
            next_available,
            seen_available: next_available,
            outstanding: chains,
            ..self
        }
    }

    /// Index of the next element to publish.
    pub(crate) fn next_used(&self) -> u16 {
        self.next_used
    }

    /// Goes on at the same place, seen through another mapping.
    pub(crate) fn replace_memory(&mut self, available: W, used: W) {
        (self.available, self.used) = (available, used);
    }

    /// The head of the next chain.
    #[inline]
    pub(crate) fn head(&mut self) -> Result<Option<u16>, Violation> {
        if self.next_available == self.seen_available && !self.look()? {
            return Ok(None);
        }
        if self.outstanding == self.size {
            return Err(Violation::TooManyAvailable { size: self.size });
        }
        Ok(Some(
            self.available
                .load_u16(available(self.slot(self.next_available)), Relaxed),
        ))
    }

    #[inline]
    pub(crate) fn advance(&mut self, span: u16) {
        self.next_available = self.next_available.wrapping_add(span);
        self.outstanding += span;
    }

    /// Looks at the driver's index; whether something new is there. The acquire order makes the descriptors of all
    /// chains up to it visible (VIRTIO 1.1 2.6.13.3).
    #[inline]
    fn look(&mut self) -> Result<bool, Violation> {
        let index = self.available.load_u16(INDEX, Acquire);
        let pending = index.wrapping_sub(self.next_available);
        if pending > self.size {
            return Err(Violation::TooManyAvailable { size: self.size });
        }
        self.seen_available = index;
        Ok(pending > 0)
    }

    /// Whether the driver's index has moved on. Whoever then takes the chain looks again, with acquire.
    #[inline]
    pub(crate) fn has_available(&self) -> bool {
        self.available.load_u16(INDEX, Relaxed) != self.next_available
    }

    /// Takes `advance` back.
    fn retreat(&mut self, span: u16) {
        self.next_available = self.next_available.wrapping_sub(span);
        self.outstanding -= span;
    }

    /// Puts one element in the slot of the first of `span` chains, and publishes all of them (VIRTIO 1.1 2.6.9).
    #[inline]
    pub(crate) fn push_used(&mut self, head: u16, written: u32, span: u16) {
        self.put_used(head, written, span);
        self.publish_used();
    }

    /// Publishes an element for each chain by one index.
    fn push_used_together(&mut self, chains: &[(Claim, u32)]) {
        for (claim, written) in chains {
            self.put_used(claim.id, *written, claim.span);
        }
        self.publish_used();
    }

    #[inline]
    fn put_used(&mut self, head: u16, written: u32, span: u16) {
        let element = used(self.slot(self.next_used));
        self.used.store_u32(element, u32::from(head), Relaxed);
        self.used.store_u32(element + 4, written, Relaxed);
        self.next_used = self.next_used.wrapping_add(span);
        self.outstanding -= span;
    }

    /// The release order makes payloads and elements visible first.
    #[inline]
    fn publish_used(&self) {
        self.used.store_u16(INDEX, self.next_used, Release);
    }

    /// Tells the driver that no kick is needed. With `EVENT_IDX` the old event index does, and flags must stay 0
    /// (VIRTIO 1.1 2.6.10.2).
    pub(crate) fn disarm_kick(&mut self) {
        if !self.event_idx && self.kicks != Some(false) {
            self.used.store_u16(FLAGS, NO_NOTIFICATION, Relaxed);
        }
        self.kicks = Some(false);
    }

    /// Asks for a kick at the next chain. False if one has slipped in, for which no kick may come.
    pub(crate) fn arm_kick(&mut self) -> bool {
        if self.event_idx {
            self.used.store_u16(used(self.size), self.next_available, Relaxed);
        } else if self.kicks != Some(true) {
            self.used.store_u16(FLAGS, 0, Relaxed);
        }
        self.kicks = Some(true);
        // The driver stores its index and then looks at what we just stored; we do it the other way round. With a full
        // barrier on both sides, one of the two sees the other.
        W::fence();
        !self.has_available()
    }

    /// Whether the driver is to be interrupted for what was used since the last decision (VIRTIO 1.1 2.6.7.2).
    pub(crate) fn interrupt_wanted(&mut self) -> bool {
        let old = self.decided.replace(self.next_used);
        // A predecessor may have used chains and ended before its interrupt: the first decision is always yes.
        let Some(old) = old else { return true };
        if old == self.next_used {
            return false;
        }
        // The driver stores what it wants to hear and then looks at the used index; see `arm_kick`.
        W::fence();
        if self.event_idx {
            passes(
                self.available.load_u16(available(self.size), Relaxed),
                self.next_used,
                old,
            )
        } else {
            self.available.load_u16(FLAGS, Relaxed) & NO_NOTIFICATION == 0
        }
    }

    /// See [`Ring::is_awaited`]. There is no barrier, so a driver that arms just now is seen by the next decision.
    #[inline]
    pub(crate) fn is_awaited(&self, more: u16) -> bool {
        let Some(old) = self.decided.filter(|_| self.event_idx) else {
            return false;
        };
        let event = self.available.load_u16(available(self.size), Relaxed);
        passes(event, self.next_used.wrapping_add(more), old)
    }

    #[inline]
    fn slot(&self, index: u16) -> u16 {
        index & (self.size - 1)
    }
}
