//! The device contract: a control plane that answers queries, and lanes that serve the device's queues.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use guestmem::{Memory, Window};
use tracing::debug;
use vhost_user::channel::Channel;

use crate::{Files, Queues, Waker};

/// The most queues of a lane.
pub(crate) const QUEUES_MOST: usize = 16;

/// Control plane of a device. It outlives its front ends: one value serves one virtual machine after the other.
pub trait Device: Send + Sync {
    /// Feature bits of the device's own: 0 to 23 and from 50 on. This crate offers those of rings and transports.
    fn features(&self) -> u64 {
        0
    }

    /// Number of virtqueues.
    fn queue_count(&self) -> u16;

    /// The configuration space, whole. A driver may read any part of it, and beyond its end, where it finds zeros.
    fn config(&self) -> Vec<u8>;

    /// The driver writes `bytes` at `offset` of the configuration space. Neither fits it for certain.
    fn set_config(&self, _offset: u32, _bytes: &[u8]) -> Result<(), ConfigRefused> {
        Err(ConfigRefused("the device's configuration space is read-only"))
    }

    /// Shared memory regions (VIRTIO 1.2 2.10): the id of each and its bytes, not 0.
    fn shared_memory(&self) -> Vec<(u8, u64)> {
        Vec::new()
    }

    /// Starts with what the front end has set up, ahead of the first queue: adds a lane for each group of queues that is to be
    /// served by one thread. Queues without a lane are never served.
    ///
    /// The lanes are dropped when the session ends, when the device is reset, and ahead of another start, if what was set up has
    /// changed while no queue ran. A pause of all queues keeps them.
    fn start(&self, setup: &Setup, lanes: &mut Lanes) -> io::Result<()>;

    /// The guest's memory is another one from now on. All lanes have left the old one.
    fn memory_changed(&self, _memory: &Memory) {}

    /// The guest reset the device. No lane runs meanwhile.
    fn reset(&self);

    /// The front end went away, and its windows with it. No lane runs any more.
    fn end(&self) {
        self.reset();
    }
}

/// Why a device takes no such bytes of configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigRefused(pub &'static str);

/// What a device is started with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Feature bits that were offered and acknowledged, with those of the rings.
    pub features: u64,
    /// The guest's memory so far; [`Device::memory_changed`] has what becomes of it.
    pub memory: Memory,
    /// Tells the guest of changes of the configuration space.
    pub config: ConfigChanges,
    pub(crate) windows: Vec<(u8, Arc<dyn Window>)>,
}

impl Setup {
    /// The window of a shared memory region. `None`: the device has no such region, or the front end cannot map files.
    #[must_use]
    pub fn window(&self, region: u8) -> Option<Arc<dyn Window>> {
        let found = self.windows.iter().find(|(id, _)| *id == region);
        found.map(|(_, window)| Arc::clone(window))
    }
}

/// Tells the front end, from any thread, that the configuration space has changed.
#[derive(Clone, Debug, Default)]
pub struct ConfigChanges(Arc<Mutex<Option<Channel>>>);

impl ConfigChanges {
    /// The guest is told, and reads it again. `false`: the front end has no way to be told.
    pub fn announce(&self) -> bool {
        let channel = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(channel) = &*channel else { return false };
        let told = channel.config_changed();
        if let Err(error) = &told {
            debug!(%error, "cannot notify the front end of a configuration change");
        }
        told.is_ok()
    }

    pub(crate) fn tell_by(&self, channel: Channel) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(channel);
    }

    pub(crate) fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// The lanes that a device wants.
#[derive(Default)]
pub struct Lanes(pub(crate) Vec<PlannedLane>);

pub(crate) struct PlannedLane {
    pub(crate) queues: Vec<u16>,
    pub(crate) waker: Waker,
    pub(crate) lane: Box<dyn Lane>,
}

impl Lanes {
    /// Has one thread serve these queues, 16 at most, by what `make` gives. `waker` is for whoever has news for the lane.
    pub fn add<L: Lane + 'static>(&mut self, queues: &[u16], make: impl FnOnce(&Waker) -> L) -> io::Result<()> {
        if queues.len() > QUEUES_MOST {
            return Err(io::Error::other("too many queues for one lane"));
        }
        let waker = Waker::new()?;
        let lane = Box::new(make(&waker));
        self.0.push(PlannedLane {
            queues: queues.to_vec(),
            waker,
            lane,
        });
        Ok(())
    }
}

/// Data path of one or several queues, on a thread of its own while one of them runs.
pub trait Lane: Send {
    /// Queue `index` may have something to serve: hands its chains out by [`Queues::serve`].
    fn serve(&mut self, index: u16, queues: &mut Queues);

    /// Files of the lane's own, which wake it.
    fn files(&self) -> Option<&Files> {
        None
    }

    /// What was added to [`Lane::files`] under this number is ready. It is said again until it is ready no more.
    fn ready(&mut self, _file: u64, _queues: &mut Queues) {}

    /// How long the lane may rest after it has served, with kicks off, before it looks for more: what nobody waits for needs no prompt
    /// answer, and comes cheaper many at a time. Zero: it does not rest, and may poll instead.
    fn rest(&self) -> Duration {
        Duration::ZERO
    }

    /// Completes the chains that were kept and are finished by now. Called when the lane was woken, also while rings are disabled.
    fn complete(&mut self, _queues: &mut Queues) {}

    /// Completes all chains of queue `index` that were kept, and waits for those that are not finished: the ring is about to stop, or
    /// to move to other memory.
    fn settle(&mut self, _index: u16, queues: &mut Queues) {
        self.complete(queues);
    }
}
