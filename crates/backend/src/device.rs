//! The device contract: a control plane that answers queries, and lanes that serve the device's queues.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use guestmem::{Memory, Window};
use tracing::debug;
use vhost_user::channel::Channel;

use crate::{Files, Queues, Waker};

/// Maximum number of queues of a lane.
pub(crate) const QUEUES_MOST: usize = 16;

/// Control plane of a device. It outlives its front ends: one value serves one virtual machine after another.
pub trait Device: Send + Sync {
    /// The device's own feature bits: 0 to 23 and from 50 on. This crate offers those of rings and transports.
    fn features(&self) -> u64 {
        0
    }

    /// Number of virtqueues.
    fn queue_count(&self) -> u16;

    /// The whole configuration space. A driver may read any part of it, and beyond its end, where it reads zeros.
    fn config(&self) -> Vec<u8>;

    /// Handles a write of the driver: `bytes` at `offset` of the configuration space. Neither is checked.
    fn set_config(&self, _offset: u32, _bytes: &[u8]) -> Result<(), ConfigRefused> {
        Err(ConfigRefused("the device's configuration space is read-only"))
    }

    /// Shared memory regions (VIRTIO 1.2 2.10): id and size in bytes of each. The size is not 0.
    fn shared_memory(&self) -> Vec<(u8, u64)> {
        Vec::new()
    }

    /// Whether requests outlive the daemon's process (vhost-user's in-flight tracking): a front end that reconnects to another daemon
    /// has it repeat those that were not answered when the first one was killed. Each is answered once, but may be executed twice,
    /// so the device must allow that. The control plane then calls memfd_create(2) and ftruncate(2).
    fn tracks_inflight(&self) -> bool {
        false
    }

    /// Starts the device with the front end's setup, before the first queue: adds a lane for each group of queues
    /// that one thread serves. Queues without a lane are never served.
    ///
    /// The lanes are dropped when the session ends, when the device is reset, and before another start if the setup
    /// changed while no queue ran. A pause of all queues keeps them.
    fn start(&self, setup: &Setup, lanes: &mut Lanes) -> io::Result<()>;

    /// Replaces the guest's memory. All lanes have left the old one.
    fn memory_changed(&self, _memory: &Memory) {}

    /// Handles a reset of the device by the guest. No lane runs meanwhile.
    fn reset(&self);

    /// Handles the end of the front end, and of its windows. No lane runs any more.
    fn end(&self) {
        self.reset();
    }
}

/// Reason why a device refuses a write to its configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigRefused(pub &'static str);

/// The setup with which a device is started.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Feature bits that were offered and acknowledged, including those of the rings.
    pub features: u64,
    /// The guest's memory at the start; [`Device::memory_changed`] reports later changes.
    pub memory: Memory,
    /// Notifies the guest of changes of the configuration space.
    pub config: ConfigChanges,
    pub(crate) windows: Vec<(u8, Arc<dyn Window>)>,
}

impl Setup {
    /// The window of a shared memory region. `None` if the device has no such region, or the front end cannot map
    /// files.
    #[must_use]
    pub fn window(&self, region: u8) -> Option<Arc<dyn Window>> {
        let found = self.windows.iter().find(|(id, _)| *id == region);
        found.map(|(_, window)| Arc::clone(window))
    }
}

/// Notifies the front end, from any thread, of a change of the configuration space.
#[derive(Clone, Debug, Default)]
pub struct ConfigChanges(Arc<Mutex<Option<Channel>>>);

impl ConfigChanges {
    /// Notifies the guest, which then reads the configuration space again. Returns `false` if the front end does not
    /// support notifications.
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

/// The lanes that a device requests.
#[derive(Default)]
pub struct Lanes(pub(crate) Vec<PlannedLane>);

pub(crate) struct PlannedLane {
    pub(crate) queues: Vec<u16>,
    pub(crate) waker: Waker,
    pub(crate) lane: Box<dyn Lane>,
}

impl Lanes {
    /// Adds a lane: one thread serves these queues, at most 16, with the [`Lane`] that `make` returns. The [`Waker`]
    /// passed to `make` wakes the lane from other threads.
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

/// Data path of one or more queues, on its own thread while one of them runs.
pub trait Lane: Send {
    /// Serves queue `index`, which may have chains available, with [`Queues::serve`].
    fn serve(&mut self, index: u16, queues: &mut Queues);

    /// The lane's own files, which wake it.
    fn files(&self) -> Option<&Files> {
        None
    }

    /// Handles a ready file: the one added to [`Lane::files`] under this number. Called again as long as the file is
    /// ready.
    fn ready(&mut self, _file: u64, _queues: &mut Queues) {}

    /// How long the lane may rest after it has served, with kicks off, before it checks for more chains. Requests
    /// that nothing waits for need no prompt answer, and cost less in larger batches. With zero the lane does not
    /// rest, and may poll instead.
    fn rest(&self) -> Duration {
        Duration::ZERO
    }

    /// Completes the kept chains that are finished by now. Called when the lane was woken, also while rings are
    /// disabled.
    fn complete(&mut self, _queues: &mut Queues) {}

    /// Completes all kept chains of queue `index`, and waits for unfinished ones: the ring is about to stop, or to
    /// move to other memory.
    fn settle(&mut self, _index: u16, queues: &mut Queues) {
        self.complete(queues);
    }
}
