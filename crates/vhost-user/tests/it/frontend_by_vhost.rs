//! The frontend of the `vhost` crate drives our session.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserInflight, VhostUserMMap};
use vhost::vhost_user::{
    Frontend, FrontendReqHandler, HandlerResult, VhostUserFrontend, VhostUserFrontendReqHandlerMut,
    VhostUserProtocolFeatures,
};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vhost_user::Error;
use vhost_user::channel::{Channel, Wait};
use vhost_user::message::{SHARED_WRITABLE, SharedMapping};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::recorder::{FEATURES, QUEUES, Recorder, SLOTS};
use crate::{same_event, serve};

#[derive(Default)]
struct Changes(Arc<AtomicU32>);

/// Keeps what was mapped; refuses a second mapping of the same place.
#[derive(Default)]
struct Region(Arc<Mutex<Vec<VhostUserMMap>>>);

impl VhostUserFrontendReqHandlerMut for Region {
    fn shmem_map(&mut self, request: &VhostUserMMap, file: &dyn AsRawFd) -> HandlerResult<u64> {
        assert!(file.as_raw_fd() >= 0);
        let mut mapped = self.0.lock().unwrap();
        let (offset, taken) = (request.shm_offset, |old: &VhostUserMMap| old.shm_offset);
        if mapped.iter().any(|old| taken(old) == offset) {
            return Err(rustix::io::Errno::INVAL.into());
        }
        mapped.push(*request);
        Ok(0)
    }

    fn shmem_unmap(&mut self, request: &VhostUserMMap) -> HandlerResult<u64> {
        let (offset, length) = (request.shm_offset, request.len);
        self.0.lock().unwrap().retain(|old| {
            let (old_offset, old_length) = (old.shm_offset, old.len);
            (old_offset, old_length) != (offset, length)
        });
        Ok(0)
    }
}

#[test]
fn the_vhost_crate_maps_what_our_channel_asks_for() {
    let region = Region::default();
    let mapped = Arc::clone(&region.0);
    let mut handler = FrontendReqHandler::new(Arc::new(Mutex::new(region))).unwrap();
    handler.set_reply_ack_flag(true);
    // The handler keeps the end that it names by number.
    let process = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let ours = pidfd_getfd(process, handler.get_tx_raw_fd(), PidfdGetfdFlags::empty()).unwrap();
    let frontend = thread::spawn(move || {
        let mut results = Vec::new();
        for _ in 0..4 {
            results.push(handler.handle_request().is_ok());
        }
        results
    });
    let mut channel = Channel::new(ours);
    let wait = Wait {
        limit: Duration::from_secs(30),
        stop: None,
    };
    let file = File::open("/dev/null").unwrap();
    let mapping = SharedMapping {
        region: 0,
        padding: [0; 7],
        file_offset: 8192,
        offset: 4096,
        length: 12288,
        flags: SHARED_WRITABLE,
    };
    channel.map(&mapping, file.as_fd(), wait).unwrap();
    let seen = mapped.lock().unwrap()[0];
    let numbers = (seen.fd_offset, seen.shm_offset, seen.len, seen.flags, seen.shmid);
    assert_eq!(numbers, (8192, 4096, 12288, 1, 0));
    let again = channel.map(&mapping, file.as_fd(), wait);
    assert!(matches!(again, Err(Error::RefusedByFrontend { .. })), "{again:?}");
    channel.unmap(&mapping, wait).unwrap();
    assert!(mapped.lock().unwrap().is_empty());
    channel.map(&mapping, file.as_fd(), wait).unwrap();
    assert_eq!(frontend.join().unwrap(), [true, false, true, true]);
}

impl VhostUserFrontendReqHandlerMut for Changes {
    fn handle_config_change(&mut self) -> HandlerResult<u64> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(0)
    }
}

fn region(guest_address: u64, file: &File) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: guest_address,
        memory_size: 4096,
        userspace_addr: 7 << 40,
        mmap_offset: 4096,
        mmap_handle: file.as_raw_fd(),
    }
}

#[test]
fn the_frontend_of_the_vhost_crate_drives_our_session() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let recorder = Recorder {
        tracks_inflight: true,
        ..Recorder::default()
    };
    let backend = thread::spawn(move || serve(ours, recorder));
    let mut frontend = Frontend::from_stream(theirs, QUEUES);

    let features = frontend.get_features().unwrap();
    assert_eq!(features, FEATURES | 1 << 30);
    frontend.set_owner().unwrap();
    frontend.set_features(features).unwrap();
    let protocol = frontend.get_protocol_features().unwrap();
    frontend.set_protocol_features(protocol).unwrap();
    // From here on, every request waits for its acknowledgement.
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    assert!(protocol.contains(VhostUserProtocolFeatures::REPLY_ACK));

    assert_eq!(frontend.get_queue_num().unwrap(), QUEUES);
    assert_eq!(frontend.get_max_mem_slots().unwrap(), SLOTS);
    let file = File::open("/dev/null").unwrap();
    frontend
        .set_mem_table(&[region(0, &file), region(4096, &file)])
        .unwrap();
    frontend.add_mem_region(&region(8192, &file)).unwrap();
    frontend.remove_mem_region(&region(0, &file)).unwrap();
    assert!(frontend.remove_mem_region(&region(0, &file)).is_err());

    let asked = VhostUserInflight::new(0, 0, 2, 256);
    let (inflight, record) = frontend.get_inflight_fd(&asked).unwrap();
    let numbers = (inflight.mmap_size, inflight.num_queues, inflight.queue_size);
    assert_eq!(numbers, (4096, 2, 256));
    frontend.set_inflight_fd(&inflight, record.as_raw_fd()).unwrap();

    let [kick, call, err] = [(); 3].map(|()| EventFd::new(EFD_NONBLOCK).unwrap());
    frontend.set_vring_num(1, 256).unwrap();
    let addresses = VringConfigData {
        queue_max_size: 256,
        queue_size: 256,
        flags: 0,
        desc_table_addr: 0x1000,
        used_ring_addr: 0x3000,
        avail_ring_addr: 0x2000,
        log_addr: None,
    };
    frontend.set_vring_addr(1, &addresses).unwrap();
    frontend.set_vring_base(1, 513).unwrap();
    frontend.set_vring_kick(1, &kick).unwrap();
    frontend.set_vring_call(1, &call).unwrap();
    frontend.set_vring_err(1, &err).unwrap();
    frontend.set_vring_enable(1, true).unwrap();
    assert_eq!(frontend.get_vring_base(1).unwrap(), 513);

    let flags = VhostUserConfigFlags::WRITABLE;
    frontend.set_config(38, flags, &[1, 2]).unwrap();
    let (_, config) = frontend.get_config(36, 4, flags, &[0; 4]).unwrap();
    assert_eq!(config, [36, 37, 1, 2]);
    // Beyond the 40 bytes that there are, the reply has none: this frontend waits for them for ever, so it is not asked.

    let changes = Changes::default();
    let seen = Arc::clone(&changes.0);
    let mut channel = FrontendReqHandler::new(Arc::new(Mutex::new(changes))).unwrap();
    frontend.set_backend_request_fd(&channel.get_tx_raw_fd()).unwrap();
    frontend.reset_device().unwrap();
    drop(frontend);

    let recorded = backend.join().unwrap();
    assert_eq!(recorded.features, Some((FEATURES, false)));
    assert_eq!(
        recorded
            .regions
            .iter()
            .map(|region| region.guest_address)
            .collect::<Vec<_>>(),
        [4096, 8192]
    );
    let vring = &recorded.vrings[&1];
    let address = vring.address.unwrap();
    assert_eq!(
        (address.descriptor, address.available, address.used),
        (0x1000, 0x2000, 0x3000)
    );
    assert_eq!((vring.size, vring.base, vring.enabled), (256, 513, true));
    for (what, sent) in [("kick", &kick), ("call", &call), ("err", &err)] {
        sent.write(1).unwrap();
        let received = recorded.events[&(what, 1)].as_ref().unwrap();
        assert!(
            rustix::io::read(received, &mut [0; 8]).is_ok(),
            "{what} is another eventfd"
        );
    }
    assert_eq!(recorded.resets, 1);
    let (inflight, back) = recorded.inflight.unwrap();
    assert_eq!((inflight.mmap_size, inflight.num_queues, inflight.queue_size), numbers);
    assert!(same_event(record, back));

    recorded.channel.unwrap().config_changed().unwrap();
    channel.handle_request().unwrap();
    assert_eq!(seen.load(Ordering::Relaxed), 1);
}
