//! The record of a packed ring: an entry for each descriptor in flight, in lists. Slots of the ring are overwritten by used
//! descriptors of other chains, so entries hold copies.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Relaxed, Release};

use super::{IN_FLIGHT_AT, InflightError, is_written, set_written};
use crate::layout::Descriptor;
use crate::layout::packed::Position;
use crate::words::Words;

/// `QueueRegionPacked` up to its entries, and `DescStatePacked`.
pub(super) const HEADER: usize = 32;
pub(super) const ENTRY: usize = 32;
/// `free_head` and `old_free_head`, two fields of 16 bits handled as one word.
const FREE_HEADS_AT: usize = 12;
/// `used_idx`, `old_used_idx`, `used_wrap_counter`, `old_used_wrap_counter` and two bytes of padding, likewise.
const USED_AT: usize = 16;
const NEXT_AT: usize = 2;
const LAST_AT: usize = 4;
const COUNT_AT: usize = 6;
const COUNTER_AT: usize = 8;
/// Id, flags and length of the descriptor.
const REST_AT: usize = 16;
const ADDRESS_AT: usize = 24;

#[derive(Debug)]
pub(crate) struct PackedRecord<W> {
    record: W,
    /// Nobody has written it before.
    new: bool,
    /// The age of the next chain.
    counter: u64,
    /// The first free entry, from which links lead to the others; a number that is no entry ends the list.
    free_head: u16,
    /// The links of all entries.
    next: Vec<u16>,
    /// For each head, the last entry of its chain.
    last: Vec<u16>,
    used: Position,
    /// Where the next descriptor of the chain that is being copied goes, how many there are, and where the last one is.
    cursor: u16,
    copied: u16,
    end: u16,
    /// Heads of chains that are to be published together with the next one.
    staged: Vec<u16>,
    /// Chains that a predecessor left, the oldest first.
    left: VecDeque<LeftBehind>,
}

/// A chain that a predecessor left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeftBehind {
    /// Its first entry.
    pub(crate) head: u16,
    /// Its number of descriptors.
    pub(crate) count: u16,
}

impl<W: Words> PackedRecord<W> {
    /// Takes up a record of `entries` for a ring of `size`. Where the used ring goes on stands in the record, since front ends do
    /// not know it, unless it is new: then it is `used`. `was_used` looks whether the slot at a position is used, or was.
    pub(crate) fn recover(
        record: W,
        entries: u16,
        size: u16,
        used: Position,
        was_used: impl Fn(Position) -> bool,
    ) -> Result<Self, InflightError> {
        let mut it = Self {
            record,
            new: false,
            counter: 0,
            free_head: 0,
            next: Vec::new(),
            last: vec![0; entries.into()],
            used,
            cursor: 0,
            copied: 0,
            end: 0,
            staged: Vec::new(),
            left: VecDeque::new(),
        };
        if !is_written(&it.record, entries)? {
            it.next = (1..=entries).collect();
            for at in 0..entries {
                it.record.store_u16(entry(at) + IN_FLIGHT_AT, 0, Release);
                it.record.store_u16(entry(at) + NEXT_AT, at + 1, Release);
            }
            it.store_free_heads(0);
            it.store_used(used);
            set_written(&it.record, entries);
            it.new = true;
            return Ok(it);
        }
        it.next = (0..entries)
            .map(|at| it.record.load_u16(entry(at) + NEXT_AT, Relaxed))
            .collect();
        it.settle_last_batch(size, was_used)?;
        let mut known = vec![false; entries.into()];
        it.clear_free_list(&mut known)?;
        it.find_left(size, &mut known)?;
        if known.contains(&false) {
            return Err(InflightError::Inconsistent("list of free entries"));
        }
        Ok(it)
    }

    /// The last batch may be published and not committed, or begun and not published.
    fn settle_last_batch(&mut self, size: u16, was_used: impl Fn(Position) -> bool) -> Result<(), InflightError> {
        let heads = self.record.load_u32(FREE_HEADS_AT, Relaxed);
        let (free_head, old_free_head) = (heads as u16, (heads >> 16) as u16);
        let word = self.record.load_u64(USED_AT, Relaxed);
        let position = |slot: u64, wrap: u64| Position {
            slot: slot as u16,
            wrap: wrap & 0xff != 0,
        };
        let (used, old_used) = (position(word, word >> 32), position(word >> 16, word >> 40));
        if used.slot >= size || old_used.slot >= size {
            return Err(InflightError::Inconsistent("used position"));
        }
        // The wrap counters too: a chain of all slots leads back to the same one.
        let published = used != old_used && was_used(old_used);
        (self.free_head, self.used) = if published {
            (free_head, used)
        } else {
            (old_free_head, old_used)
        };
        self.store_free_heads(self.free_head);
        self.store_used(self.used);
        Ok(())
    }

    /// Unmarks free entries: of a chain that was just published, or not fetched to its end.
    fn clear_free_list(&self, known: &mut [bool]) -> Result<(), InflightError> {
        let mut at = self.free_head;
        while let Some(known) = known.get_mut(usize::from(at)) {
            if std::mem::replace(known, true) {
                return Err(InflightError::Inconsistent("list of free entries"));
            }
            self.record.store_u16(entry(at) + IN_FLIGHT_AT, 0, Release);
            at = self.next[usize::from(at)];
        }
        Ok(())
    }

    fn find_left(&mut self, size: u16, known: &mut [bool]) -> Result<(), InflightError> {
        const CHAIN: InflightError = InflightError::Inconsistent("chain in flight");
        let mut left: Vec<(u64, LeftBehind)> = Vec::new();
        let mut slots = 0_usize;
        for head in 0..self.last.len() as u16 {
            let field = |offset| self.record.load_u16(entry(head) + offset, Relaxed);
            if known[usize::from(head)] || field(IN_FLIGHT_AT) & 0xff == 0 {
                continue;
            }
            let (count, last) = (field(COUNT_AT), field(LAST_AT));
            let (mut at, mut end) = (head, None);
            for _ in 0..count {
                if std::mem::replace(known.get_mut(usize::from(at)).ok_or(CHAIN)?, true) {
                    return Err(CHAIN);
                }
                end = Some(at);
                at = self.next[usize::from(at)];
            }
            if end != Some(last) {
                return Err(CHAIN);
            }
            slots += usize::from(count);
            self.last[usize::from(head)] = last;
            let counter = self.record.load_u64(entry(head) + COUNTER_AT, Relaxed);
            left.push((counter, LeftBehind { head, count }));
        }
        if slots > usize::from(size) {
            return Err(InflightError::Inconsistent("number of slots in flight"));
        }
        left.sort_unstable_by_key(|(counter, _)| *counter);
        self.counter = left.last().map_or(0, |(counter, _)| counter.wrapping_add(1));
        self.left = left.into_iter().map(|(_, left)| left).collect();
        Ok(())
    }

    /// Whether there was no predecessor.
    pub(crate) fn is_new(&self) -> bool {
        self.new
    }

    /// Where the used ring goes on.
    pub(crate) fn used(&self) -> Position {
        self.used
    }

    /// Slots of the chains that a predecessor left; at most as many as the ring has.
    pub(crate) fn slots_left(&self) -> u16 {
        self.left.iter().map(|left| left.count).sum()
    }

    /// The next chain that a predecessor left.
    pub(crate) fn oldest_left(&self) -> Option<LeftBehind> {
        self.left.front().copied()
    }

    /// The device has taken the oldest chain that was left. False if there is none.
    pub(crate) fn take_left(&mut self) -> bool {
        self.left.pop_front().is_some()
    }

    /// The chain that was taken last was put back: it is the next one again.
    pub(crate) fn leave(&mut self, chain: LeftBehind) {
        self.left.push_front(chain);
    }

    /// The copied descriptors of a chain that a predecessor left.
    pub(crate) fn descriptors(&self, chain: LeftBehind) -> impl Iterator<Item = Descriptor> {
        let mut at = chain.head;
        (0..chain.count).map(move |_| {
            let rest = self.record.load_u64(entry(at) + REST_AT, Relaxed);
            let descriptor = Descriptor {
                address: self.record.load_u64(entry(at) + ADDRESS_AT, Relaxed),
                length: (rest >> 32) as u32,
                flags: (rest >> 16) as u16,
                link: rest as u16,
            };
            at = self.next[usize::from(at)];
            descriptor
        })
    }

    /// Starts the copy of another chain.
    pub(crate) fn begin(&mut self) {
        (self.cursor, self.copied) = (self.free_head, 0);
    }

    /// Copies its next descriptor. There is an entry for each slot of the ring; a chain of more is refused later.
    pub(crate) fn copy(&mut self, descriptor: &Descriptor) {
        let at = self.cursor;
        let Some(next) = self.next.get(usize::from(at)) else {
            return;
        };
        let rest = u64::from(descriptor.link) | u64::from(descriptor.flags) << 16 | u64::from(descriptor.length) << 32;
        self.record.store_u64(entry(at) + REST_AT, rest, Release);
        self.record
            .store_u64(entry(at) + ADDRESS_AT, descriptor.address, Release);
        (self.end, self.cursor) = (at, *next);
        self.copied += 1;
    }

    /// Marks the copied chain, which the device is going to see. Gives its first entry.
    pub(crate) fn mark(&mut self) -> u16 {
        let head = self.free_head;
        if let Some(last) = self.last.get_mut(usize::from(head)) {
            *last = self.end;
        } else {
            return head;
        }
        self.record.store_u16(entry(head) + LAST_AT, self.end, Release);
        self.record.store_u16(entry(head) + COUNT_AT, self.copied, Release);
        self.record.store_u64(entry(head) + COUNTER_AT, self.counter, Release);
        self.counter = self.counter.wrapping_add(1);
        self.record.store_u16(entry(head) + IN_FLIGHT_AT, 1, Release);
        // Up to here, the entries are free ones for a successor.
        self.free_head = self.cursor;
        self.store_free_heads(self.cursor);
        head
    }

    /// Takes the mark of the chain marked last back: it was not taken.
    pub(crate) fn unmark(&mut self, head: u16) {
        self.free_head = head;
        self.store_free_heads(head);
        self.record.store_u16(entry(head) + IN_FLIGHT_AT, 0, Release);
    }

    /// A chain is done, and will be published with the next.
    pub(crate) fn stage(&mut self, head: u16) {
        self.staged.push(head);
    }

    /// Right before the staged chains and this one are published, which moves the used position to `used`.
    pub(crate) fn before_publication(&mut self, head: u16, used: Position) {
        self.staged.push(head);
        let old_free_head = self.free_head;
        for &head in &self.staged {
            let last = self.last[usize::from(head)];
            self.next[usize::from(last)] = self.free_head;
            self.record.store_u16(entry(last) + NEXT_AT, self.free_head, Release);
            self.free_head = head;
        }
        let heads = u32::from(self.free_head) | u32::from(old_free_head) << 16;
        self.record.store_u32(FREE_HEADS_AT, heads, Release);
        self.record.store_u64(USED_AT, used_word(used, self.used), Release);
        self.used = used;
    }

    /// Right after they are published.
    pub(crate) fn after_publication(&mut self) {
        for &head in &self.staged {
            self.record.store_u16(entry(head) + IN_FLIGHT_AT, 0, Release);
        }
        self.staged.clear();
        self.store_free_heads(self.free_head);
        self.store_used(self.used);
    }

    fn store_free_heads(&self, head: u16) {
        let heads = u32::from(head) | u32::from(head) << 16;
        self.record.store_u32(FREE_HEADS_AT, heads, Release);
    }

    fn store_used(&self, used: Position) {
        self.record.store_u64(USED_AT, used_word(used, used), Release);
    }
}

impl PackedRecord<guestmem::Area> {
    pub(crate) fn is_lost(&self) -> bool {
        self.record.is_lost()
    }
}

fn used_word(used: Position, old: Position) -> u64 {
    u64::from(used.slot) | u64::from(old.slot) << 16 | u64::from(used.wrap) << 32 | u64::from(old.wrap) << 40
}

/// Offset of an entry.
fn entry(at: u16) -> usize {
    HEADER + ENTRY * usize::from(at)
}
