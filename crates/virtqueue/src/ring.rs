//! Code shared by both formats: the loop over available chains, and the order of completions.

use std::ops::ControlFlow;

use crate::Violation;
use crate::chain::{Buffers, Chain, Claim, Ending, Outcome, Pending, Ticket};
use crate::order::Order;
use crate::queue::{InFlight, Served, Work};
use guestmem::{Memory, Reader, Writer, is_any_memory_lost};

/// What the two ring formats disagree about. Everything else is written once, in [`Core`].
pub(crate) trait Ring {
    /// Collects the buffers of the next chain, which stays the next one until `advance`. None if the ring is empty. With in-flight
    /// tracking the chain is marked, and those that a predecessor left come first.
    fn peek(&mut self, buffers: &mut Buffers) -> Result<Option<Claim>, Violation>;
    fn advance(&mut self, claim: Claim);
    /// The chain that was next stays so.
    fn put_back(&mut self, claim: Claim);
    /// A chain is done that the next `push_used` publishes along with its own.
    fn stage(&mut self, claim: Claim);
    /// Publishes that the next `span` (the sum over all chains meant) are used, `claim` being the last of them.
    fn push_used(&mut self, claim: Claim, written: u32);
    /// Publishes several chains at once: the driver sees all of them or none. There is at least one.
    fn push_used_together(&mut self, chains: &[(Claim, u32)]);
    /// Takes back `advance`, for the chain that was taken last.
    fn retreat(&mut self, claim: Claim);
    /// Whether `peek` has something to look at.
    fn has_available(&self) -> bool;
    /// Tells the driver that no kick is needed, `for_long`: for more chains than the ring has entries.
    fn disarm_kick(&mut self, for_long: bool);
    /// False: a chain slipped in, look again.
    fn arm_kick(&mut self) -> bool;
    fn interrupt_wanted(&mut self) -> bool;
    /// Whether the driver waits for what was used since the last decision, or for the next `more` (chains, or slots of a packed
    /// ring). A no may be out of date and decides nothing.
    fn is_awaited(&self, more: u16) -> bool;
    /// The number of `GET_VRING_BASE`.
    fn position(&self) -> u32;
    /// Whether a part of the ring lies in memory that is lost.
    fn is_lost(&self) -> bool;
}

/// A running queue of one format.
#[derive(Debug)]
pub(crate) struct Core<R> {
    pub(crate) ring: R,
    buffers: Buffers,
    /// This queue's number in the process.
    number: u64,
    /// Chains taken off the ring so far.
    taken: u64,
    /// Bytes that they had to read, and bytes written to them.
    bytes: u64,
    /// Chains kept and not completed yet.
    in_flight: u32,
    /// With `IN_ORDER`, the chains that wait for an earlier one.
    order: Option<Order>,
    retired: bool,
    /// Kicks are not asked for, even where the ring is empty.
    pub(crate) polled: bool,
}

impl<R: Ring> Core<R> {
    pub(crate) fn new(ring: R, memory: &Memory, number: u64, in_order: bool) -> Core<R> {
        let order = in_order.then(Order::default);
        Core {
            ring,
            buffers: Buffers::new(memory),
            number,
            taken: 0,
            bytes: 0,
            in_flight: 0,
            order,
            retired: false,
            polled: false,
        }
    }

    pub(crate) fn serve(
        &mut self,
        budget: u32,
        mut after_each: impl FnMut(&mut Self) -> ControlFlow<()>,
        mut each: impl FnMut(Chain<'_>) -> Outcome,
    ) -> Result<Served, Violation> {
        if self.retired {
            return Ok(Served {
                interrupt: false,
                more: false,
                put_back: false,
            });
        }
        self.ring.disarm_kick(self.polled);
        let mut left = budget;
        let served = loop {
            if left == 0 {
                break Ok((true, false));
            }
            // A second look costs budget too: a driver that moves its index to and fro must not hold us here.
            left -= 1;
            let next = self.ring.peek(&mut self.buffers);
            // Then it is of zeros that no driver has written.
            if is_any_memory_lost() && self.ring.is_lost() {
                break Err(Violation::MemoryLost);
            }
            match next {
                Ok(Some(claim)) => {
                    if !self.hand_out(claim, &mut each) {
                        break Ok((false, true));
                    }
                    if after_each(self).is_break() {
                        break Ok((true, false));
                    }
                }
                Ok(None) if self.polled || self.ring.arm_kick() => break Ok((false, false)),
                Ok(None) => self.ring.disarm_kick(self.polled),
                Err(violation) => break Err(violation),
            }
        };
        let served = served.and_then(|(more, put_back)| {
            let interrupt = self.interrupt_wanted();
            // The last look at an empty ring, or at whether to interrupt, may have been the first to find it gone.
            if is_any_memory_lost() && self.ring.is_lost() {
                return Err(Violation::MemoryLost);
            }
            Ok(Served {
                interrupt,
                more,
                put_back,
            })
        });
        self.retired = served.is_err();
        served
    }

    /// False if the chain was put back.
    #[inline]
    fn hand_out(&mut self, claim: Claim, each: &mut impl FnMut(Chain<'_>) -> Outcome) -> bool {
        let ticket = Ticket {
            queue: self.number,
            sequence: self.taken,
            claim,
        };
        let buffers = &self.buffers;
        let (reader, writer) = (Reader::new(&buffers.readable), Writer::new(&buffers.writable));
        let Outcome(ending) = each(Chain {
            reader,
            writer,
            buffers,
            ticket,
        });
        if matches!(ending, Ending::PutBack) {
            self.ring.put_back(claim);
            return false;
        }
        self.ring.advance(claim);
        self.taken += 1;
        self.bytes = self.bytes.wrapping_add(self.buffers.readable.total() as u64);
        let space = self.buffers.writable.total();
        if let Some(order) = &mut self.order {
            order.admit(claim, space);
        }
        match ending {
            Ending::Done(written) => self.finish(&ticket, written, space),
            Ending::Kept | Ending::PutBack => self.in_flight += 1,
        }
        true
    }

    pub(crate) fn complete(&mut self, pending: &Pending, written: u32) {
        if pending.ticket.queue != self.number {
            return;
        }
        self.in_flight -= 1;
        if !self.retired {
            self.finish(&pending.ticket, written, pending.space());
        }
    }

    /// Completes chains that the driver must find used all at once.
    pub(crate) fn complete_together(&mut self, chains: &[(Pending, u32)]) {
        if self.order.is_some() {
            // The order holds back chains that are written to the last byte until one is not.
            chains
                .iter()
                .for_each(|(pending, written)| self.complete(pending, *written));
            return;
        }
        let mut used = Vec::with_capacity(chains.len());
        for (pending, written) in chains.iter().filter(|(pending, _)| pending.ticket.queue == self.number) {
            self.in_flight -= 1;
            let written = limit(*written, pending.space());
            self.bytes = self.bytes.wrapping_add(written.into());
            used.push((pending.ticket.claim, written));
        }
        if !self.retired && !used.is_empty() {
            self.ring.push_used_together(&used);
        }
    }

    /// Puts back the chains that were taken last, and asks for a kick at the chain behind them. False if one is there already.
    pub(crate) fn put_back(&mut self, kept: &[Pending]) -> bool {
        let empty = self.retired || self.ring.arm_kick();
        for pending in kept.iter().rev() {
            let Ticket { queue, sequence, claim } = pending.ticket;
            if queue != self.number {
                continue;
            }
            debug_assert_eq!(sequence + 1, self.taken, "only the chains taken last can be put back");
            self.taken -= 1;
            self.in_flight -= 1;
            self.bytes = self.bytes.wrapping_sub(pending.load() as u64);
            self.ring.retreat(claim);
            if let Some(order) = &mut self.order {
                order.retract();
            }
        }
        empty
    }

    pub(crate) fn interrupt_wanted(&mut self) -> bool {
        if let Some(order) = &mut self.order {
            order.flush(&mut self.ring);
        }
        self.ring.interrupt_wanted()
    }

    /// Whether the driver waits for something that is done. A no may be out of date.
    #[inline]
    pub(crate) fn is_awaited(&self) -> bool {
        let held = self.order.as_ref().map_or(0, Order::held);
        self.ring.is_awaited(held)
    }

    pub(crate) fn position(&self) -> Result<u32, InFlight> {
        match self.in_flight {
            0 => Ok(self.ring.position()),
            chains => Err(InFlight { chains }),
        }
    }

    pub(crate) fn work(&self) -> Work {
        Work {
            chains: self.taken,
            bytes: self.bytes,
        }
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    pub(crate) fn has_available(&self) -> bool {
        !self.retired && self.ring.has_available()
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired
    }

    pub(crate) fn replace_memory(&mut self, memory: &Memory) {
        self.buffers = Buffers::new(memory);
    }

    /// The driver must never believe in bytes that are not there (VIRTIO 1.1 2.6.8.2), hence the limit of `space`.
    #[inline]
    fn finish(&mut self, ticket: &Ticket, written: u32, space: usize) {
        let written = limit(written, space);
        self.bytes = self.bytes.wrapping_add(written.into());
        match &mut self.order {
            None => self.ring.push_used(ticket.claim, written),
            Some(order) => order.finish(ticket.sequence, written, &mut self.ring),
        }
    }
}

fn limit(written: u32, space: usize) -> u32 {
    u32::try_from(space).map_or(written, |space| written.min(space))
}
