//! A device that only records its calls.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use vhost_user::ProtocolFeatures;
use vhost_user::backend::Handler;
use vhost_user::channel::Channel;
use vhost_user::message::{Inflight, MemoryRegion, VringAddress};

pub(crate) const FEATURES: u64 = 1 << 28 | 1 << 32 | 1 << 34;
pub(crate) const QUEUES: u64 = 2;
pub(crate) const SLOTS: u64 = 509;

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Vring {
    pub(crate) size: u16,
    pub(crate) address: Option<VringAddress>,
    pub(crate) base: u32,
    pub(crate) enabled: bool,
}

#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) features: Option<(u64, bool)>,
    pub(crate) owned: bool,
    pub(crate) regions: Vec<MemoryRegion>,
    pub(crate) region_files: Vec<OwnedFd>,
    pub(crate) vrings: HashMap<u32, Vring>,
    pub(crate) events: HashMap<(&'static str, u32), Option<OwnedFd>>,
    pub(crate) config: Vec<u8>,
    pub(crate) channel: Option<Channel>,
    pub(crate) status: u8,
    pub(crate) resets: u32,
    pub(crate) protocol_features: ProtocolFeatures,
    pub(crate) shared_memory: Vec<u64>,
    pub(crate) tracks_inflight: bool,
    pub(crate) inflight: Option<(Inflight, OwnedFd)>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            features: None,
            owned: false,
            regions: Vec::new(),
            region_files: Vec::new(),
            vrings: HashMap::new(),
            events: HashMap::new(),
            config: (0..40).collect(),
            channel: None,
            status: 0,
            resets: 0,
            protocol_features: ProtocolFeatures::empty(),
            shared_memory: Vec::new(),
            tracks_inflight: false,
            inflight: None,
        }
    }
}

impl Recorder {
    fn vring(&mut self, index: u32) -> Result<&mut Vring, String> {
        if u64::from(index) >= QUEUES {
            return Err(format!("no queue {index}"));
        }
        Ok(self.vrings.entry(index).or_default())
    }

    fn event(&mut self, what: &'static str, index: u32, file: Option<OwnedFd>) -> Result<(), String> {
        self.vring(index)?;
        self.events.insert((what, index), file);
        Ok(())
    }
}

impl Handler for Recorder {
    type Error = String;

    fn features(&mut self) -> u64 {
        FEATURES
    }

    fn set_protocol_features(&mut self, features: ProtocolFeatures) {
        self.protocol_features = features;
    }

    fn shared_memory(&mut self) -> Vec<u64> {
        self.shared_memory.clone()
    }

    fn tracks_inflight(&mut self) -> bool {
        self.tracks_inflight
    }

    fn inflight(&mut self, queues: u16, queue_size: u16) -> Result<(Inflight, OwnedFd), String> {
        if u64::from(queues) > QUEUES {
            return Err(format!("no {queues} queues"));
        }
        let inflight = Inflight {
            mmap_size: 4096,
            mmap_offset: 0,
            num_queues: queues,
            queue_size,
            padding: 0,
        };
        Ok((inflight, crate::event()))
    }

    fn set_inflight(&mut self, inflight: Inflight, file: OwnedFd) -> Result<(), String> {
        self.inflight = Some((inflight, file));
        Ok(())
    }

    fn set_features(&mut self, features: u64, rings_start_enabled: bool) -> Result<(), String> {
        if features & !FEATURES != 0 {
            return Err(format!("features {features:#x} were not offered"));
        }
        self.features = Some((features, rings_start_enabled));
        Ok(())
    }

    fn queue_num(&mut self) -> u64 {
        QUEUES
    }

    fn set_owner(&mut self) -> Result<(), String> {
        self.owned = true;
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<(), String> {
        self.owned = false;
        Ok(())
    }

    fn set_memory_table(&mut self, regions: Vec<(MemoryRegion, OwnedFd)>) -> Result<(), String> {
        (self.regions, self.region_files) = regions.into_iter().unzip();
        Ok(())
    }

    fn max_memory_slots(&mut self) -> u64 {
        SLOTS
    }

    fn add_memory_region(&mut self, region: MemoryRegion, file: OwnedFd) -> Result<(), String> {
        self.regions.push(region);
        self.region_files.push(file);
        Ok(())
    }

    fn remove_memory_region(&mut self, region: MemoryRegion) -> Result<(), String> {
        let position = self
            .regions
            .iter()
            .position(|known| known.guest_address == region.guest_address);
        self.regions.remove(position.ok_or("no such region")?);
        Ok(())
    }

    fn set_vring_num(&mut self, index: u32, size: u16) -> Result<(), String> {
        self.vring(index)?.size = size;
        Ok(())
    }

    fn set_vring_address(&mut self, address: VringAddress) -> Result<(), String> {
        self.vring(address.index)?.address = Some(address);
        Ok(())
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<(), String> {
        self.vring(index)?.base = base;
        Ok(())
    }

    fn vring_base(&mut self, index: u32) -> Result<u32, String> {
        Ok(self.vring(index)?.base)
    }

    fn set_vring_kick(&mut self, index: u32, file: Option<OwnedFd>) -> Result<(), String> {
        self.event("kick", index, file)
    }

    fn set_vring_call(&mut self, index: u32, file: Option<OwnedFd>) -> Result<(), String> {
        self.event("call", index, file)
    }

    fn set_vring_err(&mut self, index: u32, file: Option<OwnedFd>) -> Result<(), String> {
        self.event("err", index, file)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<(), String> {
        self.vring(index)?.enabled = enable;
        Ok(())
    }

    fn config(&mut self, offset: u32, size: u32) -> Result<Vec<u8>, String> {
        let range = offset as usize..(offset + size) as usize;
        self.config
            .get(range)
            .map(<[u8]>::to_vec)
            .ok_or_else(|| "beyond the configuration space".into())
    }

    fn set_config(&mut self, offset: u32, bytes: &[u8]) -> Result<(), String> {
        let range = offset as usize..offset as usize + bytes.len();
        self.config
            .get_mut(range)
            .ok_or("beyond the configuration space")?
            .copy_from_slice(bytes);
        Ok(())
    }

    fn set_channel(&mut self, channel: Channel) -> Result<(), String> {
        self.channel = Some(channel);
        Ok(())
    }

    fn set_status(&mut self, status: u8) -> Result<(), String> {
        self.status = status;
        Ok(())
    }

    fn status(&mut self) -> u8 {
        self.status
    }

    fn reset_device(&mut self) -> Result<(), String> {
        self.resets += 1;
        Ok(())
    }
}
