//! The request handler of the `vhost` crate answers our frontend.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight, VhostUserLog,
    VhostUserMemoryRegion, VhostUserShMemConfig, VhostUserSharedMsg, VhostUserSingleMemoryRegion,
    VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{
    Backend, BackendReqHandler, Error, GpuBackend, Result, VhostUserBackendReqHandlerMut, VhostUserProtocolFeatures,
};
use vhost_user::ProtocolFeatures;
use vhost_user::frontend::Frontend;
use vhost_user::message::{MemoryRegion, PROTOCOL_FEATURES, VringAddress};

use crate::{event, same_event};

const FEATURES: u64 = 1 << 32 | PROTOCOL_FEATURES;

/// Keeps what the crate made of our messages.
#[derive(Default)]
struct Device {
    features: u64,
    protocol_features: u64,
    owned: bool,
    regions: Vec<u64>,
    size: u32,
    addresses: [u64; 3],
    base: u32,
    enabled: bool,
    events: Vec<(u8, Option<File>)>,
    config: Vec<u8>,
    channel: Option<Backend>,
    resets: u32,
    inflight: Option<(VhostUserInflight, File)>,
}

fn only_ring_1(index: u32) -> Result<()> {
    if index == 1 { Ok(()) } else { Err(Error::InvalidParam) }
}

impl VhostUserBackendReqHandlerMut for Device {
    fn set_owner(&mut self) -> Result<()> {
        self.owned = true;
        Ok(())
    }
    fn reset_owner(&mut self) -> Result<()> {
        self.owned = false;
        Ok(())
    }
    fn reset_device(&mut self) -> Result<()> {
        self.resets += 1;
        Ok(())
    }
    fn get_features(&mut self) -> Result<u64> {
        Ok(FEATURES)
    }
    fn set_features(&mut self, features: u64) -> Result<()> {
        self.features = features;
        Ok(())
    }
    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _: Option<bool>,
    ) -> Result<Option<Vec<u64>>> {
        assert_eq!(regions.len(), files.len());
        self.regions = regions.iter().map(|region| region.guest_phys_addr).collect();
        Ok(None)
    }
    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        self.size = num;
        only_ring_1(index)
    }
    fn set_vring_addr(
        &mut self,
        index: u32,
        _: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        self.addresses = [descriptor, used, available];
        only_ring_1(index)
    }
    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        self.base = base;
        only_ring_1(index)
    }
    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        Ok(VhostUserVringState::new(index, self.base))
    }
    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.events.push((index, fd));
        Ok(())
    }
    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.events.push((index, fd));
        Ok(())
    }
    fn set_vring_err(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.events.push((index, fd));
        Ok(())
    }
    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::from_bits_truncate(
            ProtocolFeatures::all().bits(),
        ))
    }
    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        self.protocol_features = features;
        Ok(())
    }
    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(2)
    }
    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.enabled = enable;
        only_ring_1(index)
    }
    fn get_config(&mut self, offset: u32, size: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        let range = offset as usize..(offset + size) as usize;
        self.config.get(range).map(<[u8]>::to_vec).ok_or(Error::InvalidParam)
    }
    fn set_config(&mut self, offset: u32, bytes: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        self.config[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
    fn set_backend_req_fd(&mut self, backend: Backend) {
        self.channel = Some(backend);
    }
    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(32)
    }
    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        _: File,
        _: Option<bool>,
    ) -> Result<Option<u64>> {
        self.regions.push(region.guest_phys_addr);
        Ok(None)
    }
    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let address = region.guest_phys_addr;
        let position = self.regions.iter().position(|known| *known == address);
        self.regions.remove(position.ok_or(Error::InvalidParam)?);
        Ok(())
    }

    fn get_inflight_fd(&mut self, asked: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        let inflight = VhostUserInflight::new(4096, 0, asked.num_queues, asked.queue_size);
        Ok((inflight, event().into()))
    }

    fn set_inflight_fd(&mut self, inflight: &VhostUserInflight, file: File) -> Result<()> {
        self.inflight = Some((*inflight, file));
        Ok(())
    }

    // Our frontend has no such messages.
    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        Err(Error::InvalidParam)
    }
    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        Err(Error::InvalidParam)
    }
    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        Err(Error::InvalidParam)
    }
    fn check_device_state(&mut self) -> Result<()> {
        Err(Error::InvalidParam)
    }
    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(Error::InvalidParam)
    }
    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Result<()> {
        Err(Error::InvalidParam)
    }
}

#[test]
fn the_handler_of_the_vhost_crate_answers_our_frontend() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let device = Arc::new(Mutex::new(Device {
        config: (0..40).collect(),
        ..Device::default()
    }));
    let mut handler = BackendReqHandler::from_stream(theirs, Arc::clone(&device));
    let backend = thread::spawn(move || {
        // The crate reports a refused request as an error after it has answered it.
        while !matches!(
            handler.handle_request(),
            Err(Error::Disconnected | Error::PartialMessage)
        ) {}
    });
    let mut frontend = Frontend::new(ours, Some(Duration::from_secs(30)));

    assert_eq!(frontend.features().unwrap(), FEATURES);
    let protocol = frontend.protocol_features().unwrap();
    // The crate knows the messages of the device status, but does not dispatch them.
    let wanted = ProtocolFeatures::all() - ProtocolFeatures::STATUS;
    assert!(protocol.contains(wanted));
    frontend.set_protocol_features(wanted).unwrap();
    assert_eq!(frontend.queue_num().unwrap(), 2);
    assert_eq!(frontend.max_memory_slots().unwrap(), 32);
    frontend.set_owner().unwrap();
    frontend.set_features(FEATURES).unwrap();

    let file = File::open("/dev/null").unwrap();
    let region = |guest_address| MemoryRegion {
        guest_address,
        size: 4096,
        user_address: 7 << 40,
        mmap_offset: 4096,
    };
    frontend
        .set_memory_table(&[(region(0), file.as_fd()), (region(4096), file.as_fd())])
        .unwrap();
    frontend.add_memory_region(region(8192), file.as_fd()).unwrap();
    frontend.remove_memory_region(region(0)).unwrap();
    assert!(frontend.remove_memory_region(region(0)).is_err());

    let (inflight, record) = frontend.inflight(2, 128).unwrap().unwrap();
    assert_eq!(
        (inflight.mmap_size, inflight.num_queues, inflight.queue_size),
        (4096, 2, 128)
    );
    frontend.set_inflight(inflight, record.as_fd()).unwrap();

    let [kick, call, err] = [event(), event(), event()];
    frontend.set_vring_num(1, 128).unwrap();
    let address = VringAddress {
        index: 1,
        flags: 0,
        descriptor: 0x1000,
        used: 0x3000,
        available: 0x2000,
        log: 0,
    };
    frontend.set_vring_address(address).unwrap();
    frontend.set_vring_base(1, 0x8000_8000).unwrap();
    frontend.set_vring_kick(1, Some(kick.as_fd())).unwrap();
    frontend.set_vring_call(1, Some(call.as_fd())).unwrap();
    frontend.set_vring_err(1, Some(err.as_fd())).unwrap();
    frontend.set_vring_call(0, None).unwrap();
    frontend.set_vring_enable(1, true).unwrap();
    assert!(frontend.set_vring_num(0, 128).is_err());
    frontend.set_vring_num(1, 256).unwrap();
    assert_eq!(frontend.vring_base(1).unwrap(), 0x8000_8000);

    frontend.set_config(38, &[1, 2]).unwrap();
    assert_eq!(frontend.config(36, 4).unwrap(), [36, 37, 1, 2]);
    assert!(frontend.config(38, 4).is_err());
    let (_channel, theirs) = UnixStream::pair().unwrap();
    frontend.set_backend_channel(theirs.as_fd()).unwrap();
    frontend.reset_device().unwrap();
    drop(frontend);
    backend.join().unwrap();

    let device = device.lock().unwrap();
    assert_eq!((device.features, device.protocol_features), (FEATURES, wanted.bits()));
    assert!(device.owned && device.enabled && device.channel.is_some());
    assert_eq!(device.regions, [4096, 8192]);
    assert_eq!((device.size, device.base, device.resets), (256, 0x8000_8000, 1));
    assert_eq!(device.addresses, [0x1000, 0x3000, 0x2000]);
    let (inflight, back) = device.inflight.as_ref().unwrap();
    assert_eq!(
        (inflight.mmap_size, inflight.num_queues, inflight.queue_size),
        (4096, 2, 128)
    );
    assert!(same_event(record, back));
    let [(1, Some(got_kick)), (1, Some(got_call)), (1, Some(got_err)), (0, None)] = &device.events[..] else {
        panic!("{:?}", device.events);
    };
    assert!(same_event(&kick, got_kick) && same_event(&call, got_call) && same_event(&err, got_err));
}
