//! A virtual machine with one device: connects, negotiates, starts the queues.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use guestmem::{Memory, RegionConfig, WindowAreas};
use vhost_user::ProtocolFeatures;
use vhost_user::frontend::Frontend;
use vhost_user::message::{Inflight, MemoryRegion, PROTOCOL_FEATURES, VringAddress};
use virtqueue::features::{EVENT_IDX, INDIRECT_DESC, RING_PACKED, VERSION_1};

use crate::ram::{self, Allocator};
use crate::{Error, Queue, Window};

/// What kind of guest to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Queues to start, from the first on.
    pub queues: u16,
    /// Be content with fewer queues where the device has no more.
    pub fewer_queues: bool,
    /// Entries of each.
    pub queue_size: u16,
    /// Packed rings; an error if the device has none.
    pub packed: bool,
    /// Other feature bits to acknowledge where they are offered; VERSION_1 always is.
    pub features: u64,
    /// Protocol features to acknowledge where they are offered. Without CONFIGURE_MEM_SLOTS memory goes over as one table.
    pub protocol_features: ProtocolFeatures,
    /// Chains in indirect tables, if that is among the features.
    pub indirect: bool,
    /// Most bytes of a descriptor: longer buffers are cut.
    pub descriptor_bytes: u32,
    /// Requests that can be on their way in a queue, and the most bytes of one with its reply.
    pub places: u16,
    /// Bytes for a request, its reply and its indirect table.
    pub place_size: u64,
    /// Give the backend a channel for its own requests where it takes one, and reserve the window that its device may have.
    pub window: bool,
    /// Leave the file of the RAM unsealed, so that [`Guest::ram`] can be shortened.
    pub shrinkable: bool,
    /// How long to wait for a reply or an interrupt.
    pub timeout: Duration,
}

impl Default for Options {
    /// Hiprio and one request queue, split, with the features that Linux uses.
    fn default() -> Self {
        Self {
            queues: 2,
            fewer_queues: false,
            queue_size: 128,
            packed: false,
            features: INDIRECT_DESC | EVENT_IDX,
            protocol_features: ProtocolFeatures::all(),
            indirect: true,
            descriptor_bytes: 1 << 16,
            places: 32,
            place_size: 2 << 20,
            window: true,
            shrinkable: false,
            timeout: Duration::from_secs(30),
        }
    }
}

/// A running guest. Dropping it closes the connection, as a VMM that exits does.
#[derive(Debug)]
pub struct Guest {
    frontend: Frontend,
    memory: Memory,
    ram: OwnedFd,
    region: MemoryRegion,
    features: u64,
    negotiated: ProtocolFeatures,
    /// The record of requests in flight, where the device has them tracked.
    inflight: Option<(Inflight, OwnedFd)>,
    timeout: Duration,
    window: Option<Window>,
    /// Files that are mapped as memory.
    files: WindowAreas,
    /// The queues, hiprio or whatever comes first being number 0.
    pub queues: Vec<Queue>,
}

impl Guest {
    /// Connects to the device on the socket `path`, negotiates, and starts all queues.
    pub fn connect(path: &Path, options: &Options) -> Result<Self, Error> {
        let stream = UnixStream::connect(path).map_err(|source| Error::Connect {
            path: path.into(),
            source,
        })?;
        Self::attach(stream, options)
    }

    /// The same over a connection that there is already.
    pub fn attach(stream: UnixStream, options: &Options) -> Result<Self, Error> {
        let mut frontend = Frontend::new(stream, Some(options.timeout));
        let features = negotiate(&mut frontend, options)?;
        let negotiated = frontend.protocol_features()? & options.protocol_features;
        frontend.set_protocol_features(negotiated)?;
        let mut count = options.queues;
        if negotiated.contains(ProtocolFeatures::MQ) {
            let offered = frontend.queue_num()?;
            if offered < count.into() && !options.fewer_queues {
                return Err(Error::Queues { wanted: count, offered });
            }
            count = count.min(u16::try_from(offered).unwrap_or(u16::MAX));
        }
        let window = if options.window {
            open_window(&mut frontend, negotiated)?
        } else {
            None
        };
        frontend.set_owner()?;
        frontend.set_features(features | PROTOCOL_FEATURES)?;

        let mut layout = Allocator::new();
        let plans: Vec<_> = (0..count)
            .map(|index| Queue::plan(index, options, features, &mut layout))
            .collect();
        let (memory, ram) = if options.shrinkable {
            ram::shrinkable(layout.used())?
        } else {
            Memory::memfd("guest-ram", layout.used(), ram::START)?
        };
        let files = WindowAreas::default();
        let memory = memory.with_windows(&files);
        let queues = plans
            .into_iter()
            .map(|plan| Queue::new(plan, options, &memory))
            .collect::<Result<Vec<_>, Error>>()?;

        let region = MemoryRegion {
            guest_address: ram::START,
            size: layout.used(),
            user_address: ram::START,
            mmap_offset: 0,
        };
        let mut guest = Self {
            frontend,
            memory,
            ram,
            region,
            features,
            negotiated,
            inflight: None,
            timeout: options.timeout,
            window,
            files,
            queues,
        };
        if negotiated.contains(ProtocolFeatures::INFLIGHT_SHMFD) {
            guest.inflight = guest.frontend.inflight(count, options.queue_size)?;
        }
        guest.share_memory()?;
        guest.track_inflight()?;
        for index in 0..count {
            guest.start(index, guest.queues[usize::from(index)].config.base)?;
        }
        Ok(guest)
    }

    /// Continues over another connection, with a backend that knows nothing of this guest: as QEMU does when it reconnects. Requests
    /// that are not answered yet are answered by the new backend, if the device has them tracked. There is no window any more.
    pub fn reconnect(&mut self, stream: UnixStream) -> Result<(), Error> {
        let mut frontend = Frontend::new(stream, Some(self.timeout));
        let missing = (self.features | PROTOCOL_FEATURES) & !frontend.features()?;
        if missing != 0 {
            return Err(Error::Features { missing });
        }
        self.negotiated &= frontend.protocol_features()?;
        frontend.set_protocol_features(self.negotiated)?;
        frontend.set_owner()?;
        frontend.set_features(self.features | PROTOCOL_FEATURES)?;
        (self.frontend, self.window) = (frontend, None);
        self.share_memory()?;
        self.track_inflight()?;
        for index in 0..self.queues.len() as u16 {
            self.start(index, self.base_after_a_crash(index)?)?;
        }
        Ok(())
    }

    /// Where QEMU resumes a queue whose backend has ended without a word: a split ring at its used index, and a packed ring, whose
    /// position nobody knows, where it started.
    fn base_after_a_crash(&self, index: u16) -> Result<u32, Error> {
        let config = self.queues[usize::from(index)].config();
        if config.packed {
            return Ok(config.base);
        }
        let mut used = [0; 2];
        self.memory.read(config.device + 2, &mut used)?;
        Ok(u16::from_le_bytes(used).into())
    }

    /// The record of requests in flight, and its file.
    pub fn inflight(&self) -> Option<(Inflight, BorrowedFd<'_>)> {
        let (inflight, file) = self.inflight.as_ref()?;
        Some((*inflight, file.as_fd()))
    }

    fn track_inflight(&mut self) -> Result<(), Error> {
        if let Some((inflight, file)) = &self.inflight {
            self.frontend.set_inflight(*inflight, file.as_fd())?;
        }
        Ok(())
    }

    /// The VIRTIO feature bits in use.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Guest memory, for what no proper guest would write there.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The file of guest memory, from its first byte on.
    pub fn ram(&self) -> BorrowedFd<'_> {
        self.ram.as_fd()
    }

    /// The window, 0 bytes of it if the device has none. `None` if it was not asked for, or the backend takes no channel.
    pub fn window(&self) -> Option<&Window> {
        self.window.as_ref()
    }

    /// The connection, for messages of the test's own.
    pub fn frontend(&mut self) -> &mut Frontend {
        &mut self.frontend
    }

    /// The first `size` bytes of the device's configuration space.
    pub fn device_config(&mut self, size: u32) -> Result<Vec<u8>, Error> {
        Ok(self.frontend.config(0, size)?)
    }

    /// Stops a queue (GET_VRING_BASE) and returns where to resume it.
    pub fn stop(&mut self, index: u16) -> Result<u32, Error> {
        Ok(self.frontend.vring_base(index.into())?)
    }

    /// Starts a queue at position `base`, enabled.
    pub fn start(&mut self, index: u16, base: u32) -> Result<(), Error> {
        let queue = &self.queues[usize::from(index)];
        let config = queue.config();
        let number = u32::from(index);
        // The protocol has one byte for the ring's index in messages with a file.
        let byte = u8::try_from(index).map_err(|_| Error::Queues {
            wanted: index,
            offered: 256,
        })?;
        let frontend = &mut self.frontend;
        frontend.set_vring_call(byte, Some(queue.call.as_fd()))?;
        frontend.set_vring_err(byte, Some(queue.error.as_fd()))?;
        frontend.set_vring_num(number, config.size.into())?;
        frontend.set_vring_base(number, base)?;
        // Memory is announced with user addresses that equal guest addresses.
        frontend.set_vring_address(VringAddress {
            index: number,
            flags: 0,
            descriptor: config.descriptor,
            used: config.device,
            available: config.driver,
            log: 0,
        })?;
        frontend.set_vring_kick(byte, Some(queue.kick.as_fd()))?;
        frontend.set_vring_enable(number, true)?;
        Ok(())
    }

    /// Removes the RAM from the device's memory, as front ends do that rearrange it. Needs CONFIGURE_MEM_SLOTS.
    pub fn take_memory_away(&mut self) -> Result<(), Error> {
        Ok(self.frontend.remove_memory_region(self.region)?)
    }

    /// Adds the RAM again.
    pub fn give_memory_back(&mut self) -> Result<(), Error> {
        Ok(self.frontend.add_memory_region(self.region, self.ram.as_fd())?)
    }

    /// Makes the first `size` bytes of `file` memory of the guest, for buffers and indirect tables, as a VMM does with files in the window
    /// of some device. Needs CONFIGURE_MEM_SLOTS.
    pub fn map_file(&mut self, guest_address: u64, size: u64, file: File) -> Result<(), Error> {
        let region = file_region(guest_address, size);
        self.frontend.add_memory_region(region, file.as_fd())?;
        Ok(self.files.add(RegionConfig {
            guest_address,
            size,
            user_address: region.user_address,
            file: file.into(),
            file_offset: region.mmap_offset,
        })?)
    }

    /// Ends [`map_file`](Self::map_file).
    pub fn unmap_file(&mut self, guest_address: u64, size: u64) -> Result<(), Error> {
        let region = file_region(guest_address, size);
        self.files.remove(guest_address, size, region.user_address);
        Ok(self.frontend.remove_memory_region(region)?)
    }

    fn share_memory(&mut self) -> Result<(), Error> {
        if self.negotiated.contains(ProtocolFeatures::CONFIGURE_MEM_SLOTS) {
            return self.give_memory_back();
        }
        Ok(self.frontend.set_memory_table(&[(self.region, self.ram.as_fd())])?)
    }
}

fn file_region(guest_address: u64, size: u64) -> MemoryRegion {
    MemoryRegion {
        guest_address,
        size,
        user_address: guest_address,
        mmap_offset: 0,
    }
}

/// Gives the backend its channel, as far as both can do it, and reserves the memory that it asks for.
fn open_window(frontend: &mut Frontend, negotiated: ProtocolFeatures) -> Result<Option<Window>, Error> {
    if !negotiated.contains(ProtocolFeatures::BACKEND_REQ) {
        return Ok(None);
    }
    let size = if negotiated.contains(ProtocolFeatures::SHMEM) {
        frontend.shared_memory()?.first().copied().unwrap_or(0)
    } else {
        0
    };
    let (window, channel) = Window::new(size)?;
    frontend.set_backend_channel(channel.as_fd())?;
    Ok(Some(window))
}

impl AsFd for Guest {
    /// The connection, which hangs up when the device goes away.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.frontend.as_fd()
    }
}

fn negotiate(frontend: &mut Frontend, options: &Options) -> Result<u64, Error> {
    let offered = frontend.features()?;
    let required = VERSION_1 | if options.packed { RING_PACKED } else { 0 };
    let missing = (required | PROTOCOL_FEATURES) & !offered;
    if missing != 0 {
        return Err(Error::Features { missing });
    }
    Ok(required | options.features & offered)
}
