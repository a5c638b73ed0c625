//! A running queue of either format.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use guestmem::Memory;

use crate::chain::{Chain, Outcome, Pending};
use crate::packed::Packed;
use crate::ring::Core;
use crate::split::Split;
use crate::{ConfigError, QueueConfig, Violation};

/// The device half of a started queue. Devices never see which format it is.
///
/// A driver that breaks the rules loses its queue and nothing else: the first [`Violation`] is returned once, and from
/// then on the queue is empty. Only [`QueueConfig::start`] makes a queue, also after that.
#[derive(Debug)]
pub struct Queue {
    config: QueueConfig,
    format: Format,
}

/// The outer match on this happens once a batch and not once a chain.
#[derive(Debug)]
pub(crate) enum Format {
    Split(Core<Split>),
    Packed(Core<Packed>),
}

/// What remains to be done after a batch.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[must_use = "the driver waits for its interrupt"]
pub struct Served {
    /// Interrupt the driver.
    pub interrupt: bool,
    /// The budget is used up, or the batch was ended: call `serve` again without waiting for a kick, for none will come.
    pub more: bool,
    /// A chain was put back: `serve` can go on only once whatever the device lacks is there.
    pub put_back: bool,
}

/// What a queue has done since it was started.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Chains taken off the ring.
    pub chains: u64,
    /// Bytes that they had to read, and bytes written to them.
    pub bytes: u64,
}

/// What happens although the batch is not done: a driver that waits for what is done is interrupted, and the batch may be ended.
pub struct Early<'a> {
    /// When the batch starts.
    pub start: Instant,
    /// Once it is set, the batch ends behind the chain at work.
    pub end: &'a AtomicBool,
    /// How long a batch may keep it waiting, from its start or the last interrupt; looked at after each chain.
    pub after: Duration,
    /// Interrupts it.
    pub interrupt: &'a mut dyn FnMut(),
}

/// Why there is no position to resume from yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{chains} chains are still in flight")]
pub struct InFlight {
    /// Chains kept and not completed.
    pub chains: u32,
}

macro_rules! core {
    ($queue:expr, $core:ident => $what:expr) => {
        match $queue {
            Format::Split($core) => $what,
            Format::Packed($core) => $what,
        }
    };
}

impl Queue {
    pub(crate) fn new(config: QueueConfig, format: Format) -> Queue {
        Queue { config, format }
    }

    /// Hands up to `budget` available chains to `each`, one after the other.
    ///
    /// On return the ring is empty and kicks are asked for (but see [`Queue::set_polled`]), unless the budget was used up ([`Served::more`]) or a chain
    /// was put back, which waits for the next call. A chain that is done is published at once, except that `IN_ORDER`
    /// publishes some together, on return at the latest. After a [`Violation`] ask [`Queue::interrupt_wanted`] for the
    /// chains that were done before it.
    pub fn serve(&mut self, budget: u32, each: impl FnMut(Chain<'_>) -> Outcome) -> Result<Served, Violation> {
        core!(&mut self.format, core => core.serve(budget, |_| ControlFlow::Continue(()), each))
    }

    /// The same, and interrupts the driver in the middle of the batch as well, as `early` says, so that both are at work at once.
    /// [`Served::interrupt`] is about the rest. Or ends the batch there.
    ///
    /// It takes `EVENT_IDX`, with which a driver tells what it waits for, and gets no more until it asks for more: by flags alone it
    /// would get one interrupt after the other until it has come to say that it needs none.
    pub fn serve_early(
        &mut self,
        budget: u32,
        early: Early<'_>,
        each: impl FnMut(Chain<'_>) -> Outcome,
    ) -> Result<Served, Violation> {
        let Early {
            start: mut since,
            end,
            after,
            interrupt,
        } = early;
        core!(&mut self.format, core => {
            let look = |core: &mut Core<_>| {
                if end.load(Ordering::Relaxed) {
                    return ControlFlow::Break(());
                }
                if !core.is_awaited() {
                    return ControlFlow::Continue(());
                }
                let now = Instant::now();
                if now.duration_since(since) >= after {
                    since = now;
                    if core.interrupt_wanted() {
                        interrupt();
                    }
                }
                ControlFlow::Continue(())
            };
            core.serve(budget, look, each)
        })
    }

    /// Completes a chain that was kept, with the first `written` bytes of its writable part written. Then ask
    /// [`Queue::interrupt_wanted`], once for all that are completed together.
    ///
    /// A chain of another queue, or of this one before it was stopped and started, is dropped: its driver no longer
    /// waits for it. The same goes for chains of a retired queue.
    pub fn complete(&mut self, kept: Pending, written: u32) {
        core!(&mut self.format, core => core.complete(&kept, written));
    }

    /// Completes kept chains so that the driver finds all of them used or none, as the buffers of one received packet
    /// must be (VIRTIO 1.1 5.1.6.4.2). All but the last are written to the last byte. See [`Queue::complete`] for the
    /// rest.
    pub fn complete_together(&mut self, kept: &[(Pending, u32)]) {
        core!(&mut self.format, core => core.complete_together(kept));
    }

    /// Puts back kept chains, which are the ones taken last, in their order, and none of them is done: they are the next again. A kick is asked
    /// for, which comes with the next chain behind them; `false` if there is one by now.
    pub fn put_back(&mut self, kept: &[Pending]) -> bool {
        core!(&mut self.format, core => core.put_back(kept))
    }

    /// Publishes what is complete, and tells whether to interrupt the driver for it. The first answer after the start is
    /// yes in any case, since a predecessor may have ended between publishing and interrupting.
    pub fn interrupt_wanted(&mut self) -> bool {
        core!(&mut self.format, core => core.interrupt_wanted())
    }

    /// The number for `GET_VRING_BASE`, from which a successor goes on. Chains in flight have no place in it: complete
    /// them first. Those of the in-flight record that wait to be handed out again stay there.
    pub fn position(&self) -> Result<u32, InFlight> {
        core!(&self.format, core => core.position())
    }

    /// What was done so far.
    pub fn work(&self) -> Work {
        core!(&self.format, core => core.work())
    }

    /// Chains kept and not completed.
    pub fn in_flight(&self) -> u32 {
        core!(&self.format, core => core.in_flight())
    }

    /// Sets whether the driver is spared its kicks: then [`Queue::serve`] returns from an empty ring without asking for any, and
    /// the caller looks for chains with [`Queue::has_available`]. Off at first. Turned off, the next `serve` asks for kicks again.
    pub fn set_polled(&mut self, polled: bool) {
        core!(&mut self.format, core => core.polled = polled);
    }

    /// Whether a chain is there to be served, one that was put back included. Costs one look at guest memory.
    pub fn has_available(&self) -> bool {
        core!(&self.format, core => core.has_available())
    }

    /// Whether a [`Violation`] has ended this queue.
    pub fn is_retired(&self) -> bool {
        core!(&self.format, core => core.is_retired())
    }

    /// Goes on in a new memory table, with the rings at the same guest addresses. Chains in flight keep the old one.
    /// After an error the queue is as before.
    pub fn replace_memory(&mut self, memory: &Memory) -> Result<(), ConfigError> {
        let areas = self.config.areas(memory)?;
        match &mut self.format {
            Format::Split(core) => {
                let [table, available, used] = areas;
                core.ring.table = table;
                core.ring.rings.replace_memory(available, used);
                core.replace_memory(memory);
            }
            Format::Packed(core) => {
                core.ring.ring.replace_memory(areas);
                core.replace_memory(memory);
            }
        }
        Ok(())
    }
}
