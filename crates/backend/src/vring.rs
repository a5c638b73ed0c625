//! One virtqueue as the front end configures it: its state before, while and after its lane runs.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use guestmem::{Memory, OutOfMemory};
use tracing::{debug, warn};
use vhost_user::message::VringAddress;
use virtqueue::{ConfigError, Queue, QueueConfig, features};

use crate::counters::Counters;
use crate::event::{Event, never_blocking};
use crate::inflight::InflightFile;
use crate::lane::{LaneHandle, Port};
use crate::queues::Ring;
use crate::saved::SavedQueue;

/// The state of one virtqueue. SIZE, BASE and ADDRESS may come in any order; KICK starts the ring.
#[derive(Default)]
pub(crate) struct Vring {
    size: u16,
    /// The base from SET_VRING_BASE or from the last stop.
    base: Option<u32>,
    address: Option<VringAddress>,
    call: Option<Arc<Event>>,
    error: Option<Arc<Event>>,
    enabled: bool,
    lane: Option<Port>,
    counters: Arc<Counters>,
}

/// Reason why a ring cannot be configured or started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VringError {
    #[error("the ring is running: GET_VRING_BASE stops it")]
    Running,
    #[error("the ring's addresses are not set")]
    NoAddress,
    #[error("the ring has no kick descriptor, and busy polling is not implemented")]
    NoKick,
    #[error("the ring's {part} at {address:#x} is not in the memory table")]
    NotInMemory { part: &'static str, address: u64 },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the record of chains in flight ends before the part of this queue")]
    NoRecord(#[source] OutOfMemory),
    #[error("cannot prepare the descriptor: {0}")]
    Descriptor(#[source] rustix::io::Errno),
    #[error("the device has no lane for this queue")]
    NoLane,
    #[error("cannot start a thread for the ring: {0}")]
    Thread(#[source] std::io::Error),
}

/// The parts of the connection that a ring needs to start.
pub(crate) struct Surroundings<'a> {
    pub(crate) index: u16,
    pub(crate) memory: &'a Memory,
    pub(crate) features: u64,
    /// Where chains in flight are tracked, if they are.
    pub(crate) inflight: Option<&'a InflightFile>,
}

impl Surroundings<'_> {
    fn start(&self, config: &QueueConfig) -> Result<Queue, VringError> {
        let record = self.inflight.map(|file| file.of_queue(config.packed, self.index));
        match record.transpose().map_err(VringError::NoRecord)? {
            Some(Some(record)) => Ok(config.start_tracked(self.memory, record)?),
            Some(None) => {
                warn!(
                    queue = self.index,
                    "the front end tracks no chains in flight of this queue"
                );
                Ok(config.start(self.memory)?)
            }
            None => Ok(config.start(self.memory)?),
        }
    }
}

impl Vring {
    pub(crate) fn set_size(&mut self, size: u16) -> Result<(), VringError> {
        self.idle()?.size = size;
        Ok(())
    }

    pub(crate) fn set_address(&mut self, address: VringAddress) -> Result<(), VringError> {
        self.idle()?.address = Some(address);
        Ok(())
    }

    pub(crate) fn set_base(&mut self, base: u32) -> Result<(), VringError> {
        self.idle()?.base = Some(base);
        Ok(())
    }

    pub(crate) fn set_call(&mut self, file: Option<OwnedFd>) -> Result<(), VringError> {
        self.call = event(file)?;
        if let Some(lane) = &self.lane {
            lane.set_call(self.call.clone());
        }
        Ok(())
    }

    pub(crate) fn set_error(&mut self, file: Option<OwnedFd>) -> Result<(), VringError> {
        self.error = event(file)?;
        if let Some(lane) = &self.lane {
            lane.set_error(self.error.clone());
        }
        Ok(())
    }

    pub(crate) fn enable(&mut self, enabled: bool) {
        self.enabled = enabled;
        if let Some(lane) = &self.lane {
            lane.enable(enabled);
        }
    }

    pub(crate) fn set_memory(&self, memory: &Memory) {
        if let Some(lane) = &self.lane {
            lane.set_memory(memory);
        }
    }

    /// The counters of the queue, including earlier runs.
    pub(crate) fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.lane.is_some()
    }

    pub(crate) fn look_again(&self) {
        if let Some(lane) = &self.lane {
            lane.look_again();
        }
    }

    /// Starts the stopped ring with this kick descriptor.
    pub(crate) fn start(
        &mut self,
        kick: Option<OwnedFd>,
        lane: Option<&mut LaneHandle>,
        around: &Surroundings<'_>,
    ) -> Result<(), VringError> {
        let kick = kick.ok_or(VringError::NoKick)?;
        never_blocking(&kick).map_err(VringError::Descriptor)?;
        let config = self.config(around)?;
        let queue = around.start(&config)?;
        debug!(queue = around.index, ?config, "the ring starts");
        let lane = lane.ok_or(VringError::NoLane)?;
        let counters = Arc::clone(&self.counters);
        let mut ring = Ring::new(around.index, queue, around.memory.clone(), kick, counters);
        (ring.call, ring.error) = (self.call.clone(), self.error.clone());
        ring.enabled = self.enabled;
        self.lane = Some(lane.start(ring).map_err(VringError::Thread)?);
        Ok(())
    }

    /// Stops the ring if it runs. Returns the base with which SET_VRING_BASE would resume it.
    pub(crate) fn stop(&mut self, index: u16) -> u32 {
        if let Some(lane) = self.lane.take() {
            match lane.stop().map(|ring| ring.queue.position()) {
                Some(Ok(position)) => self.base = Some(position),
                Some(Err(error)) => warn!(queue = index, "the position of this queue is lost: {error}"),
                None => warn!(queue = index, "the lane of this queue panicked; its position is lost"),
            }
        }
        self.base.unwrap_or(0)
    }

    /// Stops the ring and returns the state needed to resume it.
    pub(crate) fn save(&mut self, index: u16) -> SavedQueue {
        let kick = self.lane.take().and_then(|lane| {
            let ring = lane.stop();
            match ring.as_ref().map(|ring| ring.queue.position()) {
                Some(Ok(position)) => self.base = Some(position),
                _ => warn!(queue = index, "the position of this queue is lost"),
            }
            Some(ring?.kick)
        });
        let file = |event: Option<Arc<Event>>| event.and_then(Arc::into_inner).map(Event::into_descriptor);
        SavedQueue {
            size: self.size,
            base: self.base,
            address: self.address,
            enabled: self.enabled,
            kick,
            call: file(self.call.take()),
            error: file(self.error.take()),
        }
    }

    /// Restores a saved queue. Returns the kick descriptor if the ring was running.
    pub(crate) fn restore(&mut self, saved: SavedQueue) -> Result<Option<OwnedFd>, VringError> {
        self.idle()?;
        (self.size, self.base, self.address) = (saved.size, saved.base, saved.address);
        self.enabled = saved.enabled;
        (self.call, self.error) = (event(saved.call)?, event(saved.error)?);
        Ok(saved.kick)
    }

    /// Resets the ring to its initial state, except for the descriptors, which front ends send only once.
    pub(crate) fn reset(&mut self, index: u16) {
        self.stop(index);
        *self = Self {
            call: self.call.take(),
            error: self.error.take(),
            counters: Arc::clone(&self.counters),
            ..Self::default()
        };
    }

    fn idle(&mut self) -> Result<&mut Self, VringError> {
        if self.lane.is_some() {
            Err(VringError::Running)
        } else {
            Ok(self)
        }
    }

    fn config(&self, around: &Surroundings<'_>) -> Result<QueueConfig, VringError> {
        let address = self.address.ok_or(VringError::NoAddress)?;
        let guest = |part, address| {
            around
                .memory
                .guest_address_of(address)
                .ok_or(VringError::NotInMemory { part, address })
        };
        let has = |bit| around.features & bit != 0;
        let packed = has(features::RING_PACKED);
        Ok(QueueConfig {
            packed,
            size: self.size,
            descriptor: guest("descriptor area", address.descriptor)?,
            driver: guest("driver area", address.available)?,
            device: guest("device area", address.used)?,
            base: self.base.unwrap_or(QueueConfig::fresh_base(packed)),
            indirect: has(features::INDIRECT_DESC),
            event_idx: has(features::EVENT_IDX),
            in_order: has(features::IN_ORDER),
            chain_limit: QueueConfig::CHAIN_LIMIT,
        })
    }
}

fn event(file: Option<OwnedFd>) -> Result<Option<Arc<Event>>, VringError> {
    let event = file.map(Event::new).transpose().map_err(VringError::Descriptor)?;
    Ok(event.map(Arc::new))
}
