//! The record of a split ring: an entry for each descriptor, used by the chain whose head it is.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Relaxed, Release};

use super::{IN_FLIGHT_AT, InflightError, is_written, set_written};
use crate::words::Words;

/// `QueueRegionSplit` up to its entries, and `DescStateSplit`.
pub(super) const HEADER: usize = 16;
pub(super) const ENTRY: usize = 16;
const LAST_BATCH_HEAD_AT: usize = 12;
const USED_INDEX_AT: usize = 14;
const NEXT_AT: usize = 6;
const COUNTER_AT: usize = 8;

#[derive(Debug)]
pub(crate) struct SplitRecord<W> {
    record: W,
    /// Nobody has written it before.
    new: bool,
    /// The age of the next chain.
    counter: u64,
    last_batch_head: u16,
    /// Heads of chains that are to be published together with the next one.
    staged: Vec<u16>,
    /// Heads of chains that a predecessor left, the oldest first.
    left: VecDeque<u16>,
}

impl<W: Words> SplitRecord<W> {
    /// Takes up a record of `entries` for a queue of `size` whose used ring has this index.
    pub(crate) fn recover(record: W, entries: u16, size: u16, used_index: u16) -> Result<Self, InflightError> {
        let mut it = Self {
            record,
            new: false,
            counter: 0,
            last_batch_head: 0,
            staged: Vec::new(),
            left: VecDeque::new(),
        };
        if !is_written(&it.record, entries)? {
            (0..entries).for_each(|head| it.set_in_flight(head, false));
            it.record.store_u16(LAST_BATCH_HEAD_AT, 0, Release);
            it.record.store_u16(USED_INDEX_AT, used_index, Release);
            set_written(&it.record, entries);
            it.new = true;
            return Ok(it);
        }
        it.last_batch_head = it.record.load_u16(LAST_BATCH_HEAD_AT, Relaxed);
        let mut in_flight: Vec<bool> = (0..size).map(|head| it.is_in_flight(head)).collect();
        if in_flight.contains(&true) {
            it.finish_last_batch(used_index, &mut in_flight)?;
        }
        it.record.store_u16(USED_INDEX_AT, used_index, Release);
        let heads = (0..size).filter(|&head| in_flight[usize::from(head)]);
        let counter = |head| it.record.load_u64(entry(head) + COUNTER_AT, Relaxed);
        let mut left: Vec<(u64, u16)> = heads.map(|head| (counter(head), head)).collect();
        left.sort_unstable();
        it.counter = left.last().map_or(0, |(counter, _)| counter.wrapping_add(1));
        it.left = left.into_iter().map(|(_, head)| head).collect();
        Ok(it)
    }

    /// The last batch may be published and still marked: unmarks it.
    fn finish_last_batch(&mut self, used_index: u16, in_flight: &mut [bool]) -> Result<(), InflightError> {
        let batch = used_index.wrapping_sub(self.record.load_u16(USED_INDEX_AT, Relaxed));
        if usize::from(batch) > in_flight.len() {
            return Err(InflightError::Inconsistent("used index"));
        }
        let mut head = self.last_batch_head;
        for _ in 0..batch {
            let marked = in_flight.get_mut(usize::from(head));
            *marked.ok_or(InflightError::Inconsistent("last batch"))? = false;
            self.set_in_flight(head, false);
            head = self.record.load_u16(entry(head) + NEXT_AT, Relaxed);
        }
        Ok(())
    }

    /// Whether there was no predecessor.
    pub(crate) fn is_new(&self) -> bool {
        self.new
    }

    /// Chains that a predecessor left.
    pub(crate) fn left(&self) -> u16 {
        self.left.len() as u16
    }

    /// The head of the next chain that a predecessor left.
    pub(crate) fn oldest_left(&self) -> Option<u16> {
        self.left.front().copied()
    }

    /// The device has taken the oldest chain that was left. False if there is none.
    pub(crate) fn take_left(&mut self) -> bool {
        self.left.pop_front().is_some()
    }

    /// The chain that was taken last was put back: it is the next one again.
    pub(crate) fn leave(&mut self, head: u16) {
        self.left.push_front(head);
    }

    /// Marks a chain that the device is going to see.
    pub(crate) fn mark(&mut self, head: u16) {
        self.record.store_u64(entry(head) + COUNTER_AT, self.counter, Release);
        self.counter = self.counter.wrapping_add(1);
        self.set_in_flight(head, true);
    }

    /// Takes a mark back: the chain was not taken.
    pub(crate) fn unmark(&mut self, head: u16) {
        self.set_in_flight(head, false);
    }

    /// A chain is done, and will be published with the next.
    pub(crate) fn stage(&mut self, head: u16) {
        self.staged.push(head);
    }

    /// Right before the staged chains and this one are published.
    pub(crate) fn before_publication(&mut self, head: u16) {
        self.staged.push(head);
        for &head in &self.staged {
            self.record
                .store_u16(entry(head) + NEXT_AT, self.last_batch_head, Release);
            self.last_batch_head = head;
            self.record.store_u16(LAST_BATCH_HEAD_AT, head, Release);
        }
    }

    /// Right after they are published, with the used index that published them.
    pub(crate) fn after_publication(&mut self, used_index: u16) {
        for index in 0..self.staged.len() {
            self.set_in_flight(self.staged[index], false);
        }
        self.staged.clear();
        self.record.store_u16(USED_INDEX_AT, used_index, Release);
    }

    fn is_in_flight(&self, head: u16) -> bool {
        self.record.load_u16(entry(head) + IN_FLIGHT_AT, Relaxed) & 0xff != 0
    }

    fn set_in_flight(&self, head: u16, in_flight: bool) {
        self.record
            .store_u16(entry(head) + IN_FLIGHT_AT, in_flight.into(), Release);
    }
}

impl SplitRecord<guestmem::Area> {
    pub(crate) fn is_lost(&self) -> bool {
        self.record.is_lost()
    }
}

/// Offset of an entry.
fn entry(head: u16) -> usize {
    HEADER + ENTRY * usize::from(head)
}
