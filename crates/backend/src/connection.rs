//! The setup of one front end, and the handling of each of its requests.

mod handover;

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use guestmem::{Memory, RegionConfig, WindowAreas};
use rustix::fs::{FileType, fstat};
use tracing::{info, warn};
use vhost_user::ProtocolFeatures;
use vhost_user::backend::Handler;
use vhost_user::channel::Channel;
use vhost_user::message::{Inflight, MemoryRegion, VringAddress};
use virtqueue::features;

use crate::counters::Counters;
use crate::inflight::InflightFile;
use crate::lane::LaneHandle;
use crate::vring::{Surroundings, Vring, VringError};
use crate::window::Windows;
use crate::{ConfigChanges, ConfigRefused, Device, Lanes, Options, QueueStatus, Setup, Status};

/// Maximum number of regions of guest memory: the default number of KVM's memory slots.
const MEMORY_SLOTS: usize = 509;

/// Largest size of a queue (VIRTIO 1.1 2.6, 2.7).
const QUEUE_SIZE_MOST: u16 = 1 << 15;

/// Features that a front end may acknowledge although they were not offered. QEMU 11.1 does so with RING_RESET and
/// resets queues itself.
const IGNORED: u64 = features::TRANSPORT & !features::BINDING;

/// Maximum length of a file with guest memory: no machine has physical addresses of more bits (RISC-V 56, others 52).
/// A longer file is not memory.
const MEMORY_FILE_MOST: u64 = 1 << 56;

/// Protocol features that a window needs: backend requests that carry files, and an answer to each, because a guest
/// must not access a file that is not mapped yet.
const WINDOW_NEEDS: ProtocolFeatures = ProtocolFeatures::REPLY_ACK
    .union(ProtocolFeatures::BACKEND_REQ)
    .union(ProtocolFeatures::BACKEND_SEND_FD)
    .union(ProtocolFeatures::SHMEM);

/// State of a connection. Dropping it stops all lanes.
pub(crate) struct Connection<'d> {
    device: &'d dyn Device,
    options: Options,
    /// The offered features that the guest acknowledged.
    features: u64,
    /// The lanes of the started device.
    lanes: Vec<LaneHandle>,
    /// The device must be started before the next queue, while none runs: it was never started, or its setup has
    /// changed.
    unstarted: bool,
    memory: Memory,
    regions: usize,
    /// Areas in the windows of this device or another: QEMU announces its mappings as if they were guest memory. The
    /// guest may shorten those files at any time, which would cost a region of memory. Therefore they do not count as
    /// memory here. A change of them neither waits for a lane nor delays one.
    windows: WindowAreas,
    vrings: Vec<Vring>,
    /// Where chains in flight are tracked; kept over a pause, until a reset.
    inflight: Option<InflightFile>,
    status: u8,
    negotiated: ProtocolFeatures,
    /// Kept open as long as the connection, because the front end may monitor its other end.
    channel: Option<Channel>,
    /// The windows, which own the channel if there are any.
    window: Option<Arc<Windows>>,
    config_changes: ConfigChanges,
    /// Device and inode of the files with guest memory.
    memory_files: HashSet<(u64, u64)>,
    /// The reason why there is no window was logged.
    explained: bool,
}

/// Reason why a request is refused. The connection continues.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("there is no queue {index}: the device has {count}")]
    NoSuchQueue { index: u32, count: usize },
    #[error("features {0:#x} were not offered")]
    NotOffered(u64),
    #[error("more than {MEMORY_SLOTS} regions of memory")]
    TooManyRegions,
    #[error(transparent)]
    Memory(#[from] guestmem::Error),
    #[error("queue {index}: {source}")]
    Vring { index: u32, source: VringError },
    #[error(transparent)]
    Config(#[from] ConfigRefused),
    #[error("no record of chains in flight for {queues} queues of {size}: the device has {count}")]
    InflightNumbers { queues: u16, size: u16, count: usize },
    #[error("the record of chains in flight is in use: GET_VRING_BASE stops the rings")]
    InflightInUse,
    #[error("cannot {action} the record of chains in flight: {source}")]
    Inflight {
        action: &'static str,
        source: guestmem::Error,
    },
    #[error("cannot start the device: {0}")]
    Start(#[source] std::io::Error),
    #[error("cannot prepare the channel: {0}")]
    Channel(#[source] rustix::io::Errno),
}

impl<'d> Connection<'d> {
    pub(crate) fn new(device: &'d dyn Device, options: Options) -> Self {
        let windows = WindowAreas::default();
        Self {
            device,
            options,
            features: 0,
            lanes: Vec::new(),
            unstarted: true,
            memory: Memory::empty().with_windows(&windows),
            regions: 0,
            windows,
            vrings: (0..device.queue_count()).map(|_| Vring::default()).collect(),
            inflight: None,
            status: 0,
            negotiated: ProtocolFeatures::empty(),
            channel: None,
            window: None,
            config_changes: ConfigChanges::default(),
            memory_files: HashSet::new(),
            explained: false,
        }
    }

    pub(crate) fn status_of_queues(&self) -> Status {
        let queue = |vring: &Vring| QueueStatus {
            running: vring.is_running(),
            counts: vring.counters().now(),
        };
        Status {
            features: self.features,
            queues: self.vrings.iter().map(queue).collect(),
        }
    }

    pub(crate) fn counters(&self) -> Arc<[Arc<Counters>]> {
        self.vrings.iter().map(Vring::counters).collect()
    }

    fn vring(&mut self, index: u32) -> Result<&mut Vring, Refusal> {
        let count = self.vrings.len();
        self.vrings
            .get_mut(index as usize)
            .ok_or(Refusal::NoSuchQueue { index, count })
    }

    fn on_vring(&mut self, index: u32, act: impl FnOnce(&mut Vring) -> Result<(), VringError>) -> Result<(), Refusal> {
        self.hurried(|connection| act(connection.vring(index)?).map_err(|source| Refusal::Vring { index, source }))
    }

    /// Runs an operation that waits for lanes. The front end waits for it in turn, and cannot answer a lane
    /// meanwhile. Therefore a lane that is about to change the window puts its chain back, and takes it up again
    /// afterwards.
    fn hurried<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> T {
        let Some(window) = self.window.clone() else {
            return act(self);
        };
        let result = window.in_a_hurry(|| act(self));
        self.vrings.iter().for_each(Vring::look_again);
        result
    }

    /// When this returns, all lanes have left the old memory.
    fn use_memory(&mut self, memory: Memory, regions: usize) {
        self.hurried(|connection| connection.vrings.iter().for_each(|vring| vring.set_memory(&memory)));
        (self.memory, self.regions) = (memory, regions);
        if !self.unstarted {
            self.device.memory_changed(&self.memory);
        }
    }

    /// Starts the device if necessary.
    fn start_device(&mut self) -> Result<(), Refusal> {
        let dead = self.lanes.iter().any(LaneHandle::is_dead);
        if !(self.unstarted || dead) || self.vrings.iter().any(Vring::is_running) {
            return Ok(());
        }
        self.lanes.clear();
        let setup = Setup {
            features: self.features,
            memory: self.memory.clone(),
            config: self.config_changes.clone(),
            windows: self
                .window
                .as_ref()
                .map_or_else(Vec::new, |windows| windows.by_region()),
        };
        let mut lanes = Lanes::default();
        self.device.start(&setup, &mut lanes).map_err(Refusal::Start)?;
        let lanes = lanes
            .0
            .into_iter()
            .map(|planned| LaneHandle::new(planned, self.options.clone()));
        self.lanes = lanes.collect();
        self.unstarted = false;
        Ok(())
    }

    /// Whether a region is a file in a window, of this device or another: QEMU announces each mapping to every
    /// device.
    ///
    /// Files in other devices' windows cannot always be distinguished from memory. While queues run, a named file
    /// that was not memory before counts as a window file. Real memory stays accessible that way too, only more
    /// slowly.
    fn is_in_window(&mut self, file: &OwnedFd) -> bool {
        let Ok(stat) = fstat(file) else { return false };
        if u64::try_from(stat.st_size).is_ok_and(|size| size > MEMORY_FILE_MOST)
            || self.window.as_ref().is_some_and(|window| window.shows(file))
        {
            return true;
        }
        let identity = (stat.st_dev, stat.st_ino);
        // A memfd has no name, and neither has a file that a front end makes in a directory for memory.
        let named = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink > 0;
        if named && !self.memory_files.contains(&identity) && self.vrings.iter().any(Vring::is_running) {
            return true;
        }
        self.memory_files.insert(identity);
        false
    }

    /// Logs once why a device with a window runs without it.
    fn explain_no_window(&mut self) {
        if self.device.shared_memory().is_empty() || self.window.is_some() || self.explained {
            return;
        }
        self.explained = true;
        let missing = WINDOW_NEEDS - self.negotiated;
        if missing.is_empty() {
            warn!("no shared memory: the front end set up no channel for backend requests (SET_BACKEND_REQ_FD)");
        } else {
            warn!("no shared memory: the front end does not support protocol features {missing:?}");
        }
    }
}

impl Drop for Connection<'_> {
    /// The front end cannot answer any more, so lanes that wait for it end first.
    fn drop(&mut self) {
        self.hurried(|connection| {
            connection.vrings.clear();
            connection.lanes.clear();
        });
        if let Some(window) = &self.window {
            window.close();
        }
        self.config_changes.end();
        self.device.end();
    }
}

impl Handler for Connection<'_> {
    type Error = Refusal;

    fn features(&mut self) -> u64 {
        let rings = if self.options.packed {
            features::IMPLEMENTED
        } else {
            features::IMPLEMENTED & !features::RING_PACKED
        };
        self.device.features() & !features::TRANSPORT | rings
    }

    fn set_protocol_features(&mut self, features: ProtocolFeatures) {
        self.negotiated = features;
    }

    fn shared_memory(&mut self) -> Vec<u64> {
        let mut sizes = Vec::new();
        for (id, size) in self.device.shared_memory() {
            let id = usize::from(id);
            sizes.resize(sizes.len().max(id + 1), 0);
            sizes[id] = size;
        }
        sizes
    }

    fn tracks_inflight(&mut self) -> bool {
        self.device.tracks_inflight()
    }

    fn inflight(&mut self, queues: u16, queue_size: u16) -> Result<(Inflight, OwnedFd), Refusal> {
        let count = self.vrings.len();
        if queues == 0 || usize::from(queues) > count || !(1..=QUEUE_SIZE_MOST).contains(&queue_size) {
            let size = queue_size;
            return Err(Refusal::InflightNumbers { queues, size, count });
        }
        InflightFile::create(queues, queue_size).map_err(|source| Refusal::Inflight { action: "make", source })
    }

    fn set_inflight(&mut self, inflight: Inflight, file: OwnedFd) -> Result<(), Refusal> {
        if self.vrings.iter().any(Vring::is_running) {
            return Err(Refusal::InflightInUse);
        }
        let mapped = InflightFile::map(inflight, file).map_err(|source| Refusal::Inflight { action: "map", source })?;
        self.inflight = Some(mapped);
        Ok(())
    }

    fn set_features(&mut self, features: u64, rings_start_enabled: bool) -> Result<(), Refusal> {
        let offered = self.features();
        let unknown = features & !offered;
        if unknown & !IGNORED != 0 {
            return Err(Refusal::NotOffered(unknown & !IGNORED));
        }
        if unknown != 0 {
            info!("ignoring features {unknown:#x}: the front end acknowledged them, but they were not offered");
        }
        let acknowledged = features & offered;
        self.unstarted |= acknowledged != self.features;
        self.features = acknowledged;
        if rings_start_enabled {
            self.hurried(|connection| connection.vrings.iter_mut().for_each(|vring| vring.enable(true)));
        }
        Ok(())
    }

    fn queue_num(&mut self) -> u64 {
        self.vrings.len() as u64
    }

    fn set_owner(&mut self) -> Result<(), Refusal> {
        // A socket has one front end at a time, so there is no other to exclude.
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<(), Refusal> {
        self.hurried(|connection| connection.vrings.iter_mut().for_each(|vring| vring.enable(false)));
        Ok(())
    }

    fn set_memory_table(&mut self, regions: Vec<(MemoryRegion, OwnedFd)>) -> Result<(), Refusal> {
        self.windows.clear();
        let (windows, memory): (Vec<_>, Vec<_>) = regions.into_iter().partition(|(_, file)| self.is_in_window(file));
        for (region, file) in windows {
            self.windows.add(region_config(&region, file))?;
        }
        let memory: Vec<_> = memory
            .into_iter()
            .map(|(region, file)| region_config(&region, file))
            .collect();
        let count = memory.len();
        self.use_memory(Memory::map(memory)?.with_windows(&self.windows), count);
        Ok(())
    }

    fn max_memory_slots(&mut self) -> u64 {
        MEMORY_SLOTS as u64
    }

    fn add_memory_region(&mut self, region: MemoryRegion, file: OwnedFd) -> Result<(), Refusal> {
        if self.is_in_window(&file) {
            return Ok(self.windows.add(region_config(&region, file))?);
        }
        if self.regions >= MEMORY_SLOTS {
            return Err(Refusal::TooManyRegions);
        }
        self.use_memory(self.memory.with_region(region_config(&region, file))?, self.regions + 1);
        Ok(())
    }

    fn remove_memory_region(&mut self, region: MemoryRegion) -> Result<(), Refusal> {
        let MemoryRegion {
            guest_address,
            size,
            user_address,
            ..
        } = region;
        if self.windows.remove(guest_address, size, user_address) {
            return Ok(());
        }
        let rest = self.memory.without_region(guest_address, size, user_address)?;
        self.use_memory(rest, self.regions - 1);
        Ok(())
    }

    fn set_vring_num(&mut self, index: u32, size: u16) -> Result<(), Refusal> {
        self.on_vring(index, |vring| vring.set_size(size))
    }

    fn set_vring_address(&mut self, address: VringAddress) -> Result<(), Refusal> {
        self.on_vring(address.index, |vring| vring.set_address(address))
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<(), Refusal> {
        self.on_vring(index, |vring| vring.set_base(base))
    }

    fn vring_base(&mut self, index: u32) -> Result<u32, Refusal> {
        self.hurried(|connection| Ok(connection.vring(index)?.stop(index as u16)))
    }

    fn set_vring_kick(&mut self, index: u32, file: Option<OwnedFd>) -> Result<(), Refusal> {
        self.explain_no_window();
        // A running ring continues with the new descriptor.
        self.vring_base(index)?;
        self.start_device()?;
        self.hurried(|connection| {
            let Self {
                vrings,
                lanes,
                memory,
                inflight,
                ..
            } = connection;
            let around = Surroundings {
                index: index as u16,
                memory,
                features: connection.features,
                inflight: inflight.as_ref(),
            };
            let lane = lanes.iter_mut().find(|lane| lane.has(around.index));
            let vring = &mut vrings[index as usize];
            let started = vring.start(file, lane, &around);
            started.map_err(|source| Refusal::Vring { index, source })
        })
    }

    fn set_vring_call(&mut self, index: u32, file: Option<OwnedFd>) -> Result<(), Refusal> {
        self.on_vring(index, |vring| vring.set_call(file))
    }

    fn set_vring_err(&mut self, index: u32, file: Option<OwnedFd>) -> Result<(), Refusal> {
        self.on_vring(index, |vring| vring.set_error(file))
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<(), Refusal> {
        self.on_vring(index, |vring| {
            vring.enable(enable);
            Ok(())
        })
    }

    /// The session pads the device's own fields with zeros, because front ends read all fields that they know (QEMU
    /// 11.1 reads 20 bytes of a GPU that has 16).
    fn config(&mut self, offset: u32, _size: u32) -> Result<Vec<u8>, Refusal> {
        let mut config = self.device.config();
        config.drain(..config.len().min(offset as usize));
        Ok(config)
    }

    fn set_config(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Refusal> {
        Ok(self.device.set_config(offset, bytes)?)
    }

    fn set_channel(&mut self, channel: Channel) -> Result<(), Refusal> {
        let own = channel.try_clone().map_err(Refusal::Channel)?;
        self.config_changes.tell_by(own);
        if let Some(window) = &self.window {
            window.use_channel(channel);
            return Ok(());
        }
        let regions = self.device.shared_memory();
        if regions.is_empty() || !self.negotiated.contains(WINDOW_NEEDS) {
            self.channel = Some(channel);
            return Ok(());
        }
        let window = Windows::new(&regions, channel).map_err(Refusal::Channel)?;
        info!(?regions, "the guest has shared memory");
        self.window = Some(Arc::new(window));
        self.unstarted = true;
        Ok(())
    }

    /// Status 0 is not a reset here: QEMU also sends it when the virtual machine is paused, and the guest later
    /// continues with its state. RESET_DEVICE, a new INIT or the end of the connection announces a reset.
    fn set_status(&mut self, status: u8) -> Result<(), Refusal> {
        self.status = status;
        Ok(())
    }

    fn status(&mut self) -> u8 {
        self.status
    }

    fn reset_device(&mut self) -> Result<(), Refusal> {
        self.hurried(|connection| {
            for (index, vring) in (0..).zip(&mut connection.vrings) {
                vring.reset(index);
            }
            // The front end has dropped its mappings, and is sent no unmap for them.
            if let Some(window) = &connection.window {
                window.forget();
            }
            connection.inflight = None;
            connection.lanes.clear();
            connection.unstarted = true;
            connection.device.reset();
        });
        self.status = 0;
        Ok(())
    }
}

fn region_config(region: &MemoryRegion, file: OwnedFd) -> RegionConfig {
    RegionConfig {
        guest_address: region.guest_address,
        size: region.size,
        user_address: region.user_address,
        file,
        file_offset: region.mmap_offset,
    }
}

#[cfg(test)]
mod tests;
