//! Completions in the order in which chains were made available, as `IN_ORDER` requires (VIRTIO 1.1 2.6.9, 2.7.8).

use std::collections::VecDeque;

use crate::chain::Claim;
use crate::ring::Ring;

/// The chains that are taken and not published, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// Sequence number of the first of `waiting`.
    first: u64,
    waiting: VecDeque<Waiting>,
    /// Finished chains that one used entry will publish.
    batch: Option<Claim>,
    /// Bytes written to the last of them.
    batch_written: u32,
}

#[derive(Debug)]
struct Waiting {
    claim: Claim,
    space: usize,
    /// None while the device is at it.
    written: Option<u32>,
}

impl Order {
    /// Takes in the next chain off the ring, with `space` bytes to write.
    pub(crate) fn admit(&mut self, claim: Claim, space: usize) {
        self.waiting.push_back(Waiting {
            claim,
            space,
            written: None,
        });
    }

    /// Takes the last chain out again, which is not finished.
    pub(crate) fn retract(&mut self) {
        self.waiting.pop_back();
    }

    /// The device has finished chain `sequence`: it and those behind it that waited are published when everything
    /// older is.
    pub(crate) fn finish(&mut self, sequence: u64, written: u32, ring: &mut impl Ring) {
        let index = sequence
            .checked_sub(self.first)
            .and_then(|ahead| usize::try_from(ahead).ok());
        if let Some(waiting) = index.and_then(|index| self.waiting.get_mut(index)) {
            waiting.written = Some(written);
        }
        while let Some(&Waiting {
            claim,
            space,
            written: Some(written),
        }) = self.waiting.front()
        {
            self.waiting.pop_front();
            self.first += 1;
            let before = self.batch.take().map_or(0, |batch| {
                ring.stage(batch);
                batch.span
            });
            let span = before + claim.span;
            self.batch = Some(Claim { span, ..claim });
            self.batch_written = written;
            // A chain that is skipped in a batch counts as written to the last byte, so one that is not ends its batch.
            if written as usize != space {
                self.flush(ring);
            }
        }
    }

    /// How far publishing what is finished would move the ring's positions.
    pub(crate) fn held(&self) -> u16 {
        self.batch.map_or(0, |batch| batch.span)
    }

    /// Publishes what is finished.
    pub(crate) fn flush(&mut self, ring: &mut impl Ring) {
        if let Some(batch) = self.batch.take() {
            ring.push_used(batch, self.batch_written);
        }
    }
}
