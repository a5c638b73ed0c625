//! Front ends other than our own: each test sends messages that were observed from one of them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use driver::Options;
use driver::fs::{self, ROOT, Request, Requests};
use guestmem::Memory;
use rstest::rstest;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use vhost_user::frontend::Frontend;
use vhost_user::message::{FLAG_NEED_REPLY, FLAG_REPLY, MemoryRegion, PROTOCOL_FEATURES, VringAddress, VringState};
use vhost_user::socket::{Socket, Timeout};
use vhost_user::{ProtocolFeatures, RequestCode};
use virtqueue::features::{EVENT_IDX, INDIRECT_DESC, RING_PACKED, RING_RESET, VERSION_1};
use virtqueue::{Buffer, DriverQueue, QueueConfig};
use zerocopy::IntoBytes;

use crate::daemon::{Client, Daemon, options};

const LIMIT: Duration = Duration::from_secs(30);

fn is_readable(descriptor: impl AsFd, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).unwrap();
    poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&limit)).unwrap() > 0
}

/// The non-blocking pipe that User-Mode Linux is interrupted by: reading end and writing end.
fn call_pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap()
}

/// Waits for an interrupt, and takes all that have come.
fn take_calls(pipe: &OwnedFd) -> usize {
    assert!(is_readable(pipe, LIMIT), "no interrupt");
    let mut bytes = [0; 4096];
    let length = rustix::io::read(pipe, &mut bytes).unwrap();
    let (calls, rest) = bytes[..length].as_chunks::<8>();
    assert!(rest.is_empty(), "{length} bytes");
    assert!(calls.iter().all(|call| u64::from_ne_bytes(*call) == 1));
    calls.len()
}

/// The front end of User-Mode Linux 6.1: what it sends, and in what order.
struct UserMode {
    socket: Socket,
    acknowledged: bool,
}

impl UserMode {
    const REPLY_ACK: u64 = 1 << 3;

    fn ask(&mut self, code: RequestCode, payload: &[&[u8]]) -> Vec<u8> {
        self.send(code, payload, &[]);
        self.receive(code)
    }

    fn tell(&mut self, code: RequestCode, payload: &[&[u8]], files: &[BorrowedFd<'_>]) {
        self.send(code, payload, files);
        if self.acknowledged {
            assert_eq!(self.receive(code), 0_u64.as_bytes(), "{code} is refused");
        }
    }

    fn send(&mut self, code: RequestCode, payload: &[&[u8]], files: &[BorrowedFd<'_>]) {
        let flags = if self.acknowledged { FLAG_NEED_REPLY } else { 0 };
        self.socket.send(code as u32, flags, payload, files).unwrap();
    }

    fn receive(&mut self, code: RequestCode) -> Vec<u8> {
        let reply = self.socket.receive(Timeout(Some(LIMIT))).unwrap();
        let reply = reply.unwrap_or_else(|| panic!("the connection ended at {code}"));
        assert_eq!(
            (reply.header.request, reply.header.flags),
            (code as u32, 1 | FLAG_REPLY)
        );
        reply.payload
    }

    fn number(&mut self, code: RequestCode) -> u64 {
        u64::from_ne_bytes(self.ask(code, &[]).try_into().unwrap())
    }

    fn state(&mut self, code: RequestCode, index: u32, num: u32) {
        self.tell(code, &[VringState { index, num }.as_bytes()], &[]);
    }

    /// The first bytes of configuration space, as many as the last field that is read ends at.
    fn config(&mut self, size: u32) -> Vec<u8> {
        let header = [0, size, 0];
        let reply = self.ask(RequestCode::GetConfig, &[header.as_bytes(), &vec![0; size as usize]]);
        let (answered, bytes) = reply.split_at(12);
        assert_eq!((answered, bytes.len()), (header.as_bytes(), size as usize));
        bytes.to_vec()
    }
}

/// A queue of the guest.
struct GuestQueue {
    config: QueueConfig,
    ring: DriverQueue,
    kick: OwnedFd,
    interrupts: OwnedFd,
    call: OwnedFd,
}

/// Where the kernel's image ends, which is not announced.
const RAM: u64 = 0x6100_0000;
const RAM_SIZE: u64 = 1 << 20;
const BUFFERS: u64 = RAM + 0x8_0000;

impl GuestQueue {
    fn new(index: u64, packed: bool, memory: &Memory) -> Self {
        let start = RAM + 0x4000 * index;
        let config = QueueConfig {
            packed,
            size: 256,
            descriptor: start,
            driver: start + 0x1000,
            device: start + 0x2000,
            base: QueueConfig::fresh_base(packed),
            indirect: true,
            event_idx: true,
            in_order: false,
            chain_limit: QueueConfig::CHAIN_LIMIT,
        };
        let ring = config.drive(memory).unwrap();
        let kick = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let (interrupts, call) = call_pipe();
        Self {
            config,
            ring,
            kick,
            interrupts,
            call,
        }
    }

    fn address(&self, index: u32) -> VringAddress {
        VringAddress {
            index,
            flags: 0,
            descriptor: self.config.descriptor,
            used: self.config.device,
            available: self.config.driver,
            log: u64::MAX,
        }
    }

    fn ask(&mut self, memory: &Memory, request: &Request) -> Result<Vec<u8>, i32> {
        memory.write(BUFFERS, &request.readable).unwrap();
        let buffer = |address, length| [Buffer { address, length }];
        let readable = buffer(BUFFERS, request.readable.len() as u32);
        let writable = buffer(BUFFERS + 0x1000, request.reply_space);
        let token = self.ring.post(&readable, &writable).unwrap();
        if self.ring.kick_wanted() {
            rustix::io::write(&self.kick, &1_u64.to_ne_bytes()).unwrap();
        }
        let (used, written) = loop {
            if let Some(used) = self.ring.reap().unwrap() {
                break used;
            }
            if self.ring.arm_interrupt() {
                take_calls(&self.interrupts);
            }
        };
        assert_eq!(used, token);
        let mut reply = vec![0; written as usize];
        memory.read(BUFFERS + 0x1000, &mut reply).unwrap();
        fs::reply(request, written, &reply).unwrap().map(<[u8]>::to_vec)
    }
}

#[rstest]
fn the_handshake_of_user_mode_linux_ends_in_requests_that_are_served(#[values(false, true)] packed: bool) {
    let daemon = Daemon::sharing(1);
    let mut vmm = UserMode {
        socket: Socket::new(UnixStream::connect(daemon.socket()).unwrap()),
        acknowledged: false,
    };
    vmm.tell(RequestCode::SetOwner, &[], &[]);
    let features = 0x1_7000_0000 | if packed { RING_PACKED } else { 0 };
    assert_eq!(vmm.number(RequestCode::GetFeatures) & features, features);
    assert_eq!(vmm.number(RequestCode::GetProtocolFeatures) & 0x228, 0x228);
    vmm.tell(RequestCode::SetProtocolFeatures, &[0x228_u64.as_bytes()], &[]);
    vmm.acknowledged = 0x228 & UserMode::REPLY_ACK != 0;
    // One way: an answer could not come back.
    let (requests, channel) = call_pipe();
    vmm.tell(RequestCode::SetBackendReqFd, &[], &[channel.as_fd()]);
    drop(channel);
    vmm.tell(RequestCode::SetFeatures, &[features.as_bytes()], &[]);

    let mut expected = b"share".to_vec();
    expected.resize(36, 0);
    expected.extend(1_u32.to_le_bytes());
    for size in (1..=36).chain([40]) {
        assert_eq!(vmm.config(size), expected[..size as usize]);
    }

    let (memory, file) = Memory::memfd("user-mode", RAM_SIZE, RAM).unwrap();
    let region = MemoryRegion {
        guest_address: RAM,
        size: RAM_SIZE,
        user_address: RAM,
        mmap_offset: 0,
    };
    // Room for two regions, of which there is one.
    let table = [[1_u32, 0].as_bytes(), region.as_bytes(), &[0; 32]].concat();
    assert_eq!(table.len(), 72);
    vmm.tell(RequestCode::SetMemoryTable, &[&table], &[file.as_fd()]);

    let mut queues = [0, 1].map(|index| GuestQueue::new(index, packed, &memory));
    for (index, queue) in (0_u32..).zip(&queues) {
        let number = u64::from(index);
        vmm.tell(RequestCode::SetVringCall, &[number.as_bytes()], &[queue.call.as_fd()]);
        vmm.state(RequestCode::SetVringNum, index, 256);
        vmm.state(RequestCode::SetVringBase, index, 0);
        vmm.tell(RequestCode::SetVringAddress, &[queue.address(index).as_bytes()], &[]);
    }
    for (index, queue) in (0_u32..).zip(&queues) {
        let number = u64::from(index);
        vmm.tell(RequestCode::SetVringKick, &[number.as_bytes()], &[queue.kick.as_fd()]);
        vmm.state(RequestCode::SetVringEnable, index, 1);
    }

    let mut fuse = Requests::new(rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let init = fuse.init(45, 0);
    assert!(queues[1].ask(&memory, &init).is_ok());
    // More than two laps of the ring.
    for _ in 0..300 {
        let attributes = fuse.getattr(ROOT);
        assert_eq!(queues[1].ask(&memory, &attributes).unwrap().len(), 104);
    }
    assert!(!is_readable(&requests, Duration::ZERO), "a request that nobody expects");

    for index in [1, 0] {
        vmm.state(RequestCode::SetVringEnable, index, 0);
    }
    vmm.number(RequestCode::GetFeatures);
    drop(vmm);
    let mut next = daemon.connect(&options(packed, 1));
    next.init();
    next.assert_served();
}

#[test]
fn the_configuration_space_is_read_in_every_size_and_ends_in_zeros() {
    let daemon = Daemon::sharing(3);
    let mut client = daemon.connect(&options(false, 1));
    let mut expected = b"share".to_vec();
    expected.resize(36, 0);
    expected.extend(3_u32.to_le_bytes());
    expected.resize(512, 0);
    let mut check = |offset: u32, size: u32| {
        let bytes = client.guest.frontend().config(offset, size).unwrap();
        let range = offset as usize..(offset + size) as usize;
        assert_eq!(bytes, expected[range], "{size} bytes at {offset}");
    };
    for offset in [0, 1, 35, 36, 39, 40, 41, 255] {
        (1..=256).for_each(|size| check(offset, size));
    }
    for size in [1, 2, 4, 36, 256] {
        (0..256).for_each(|offset| check(offset, size));
    }
}

#[rstest]
fn a_fresh_ring_may_be_announced_with_position_0(#[values(false, true)] packed: bool) {
    let daemon = Daemon::sharing(1);
    let mut client = daemon.connect(&Options {
        queue_size: 8,
        ..options(packed, 1)
    });
    let base = client.guest.stop(1).unwrap();
    assert_eq!(base, QueueConfig::fresh_base(packed), "nothing was served");
    client.guest.start(1, 0).unwrap();
    client.init();
    for _ in 0..20 {
        client.assert_served();
    }
}

#[rstest]
fn a_ring_goes_on_at_position_0_of_its_second_lap(
    #[values(false, true)] packed: bool,
    #[values(false, true)] indirect: bool,
    #[values(0, 1, 4)] waiting: usize,
) {
    let daemon = Daemon::sharing(1);
    let mut client = daemon.connect(&Options {
        queue_size: 8,
        indirect,
        ..options(packed, 1)
    });
    client.init();
    // A request has two descriptors, request and reply, or one for the table of both.
    for _ in 1..if indirect { 8 } else { 4 } {
        client.assert_served();
    }
    let base = client.guest.stop(1).unwrap();
    if packed {
        assert_eq!(base, 0, "slot 0, and both wrap counters are 0");
    }
    for _ in 0..waiting {
        let request = client.requests.getattr(ROOT);
        let queue = &mut client.guest.queues[1];
        queue.submit(&request.readable, request.reply_space).unwrap();
    }
    client.guest.start(1, base).unwrap();
    for _ in 0..waiting {
        let (_, written, _) = client.guest.queues[1].wait().unwrap();
        assert_eq!(written, 120);
    }
    client.assert_served();
}

/// Has a request served whose answer comes with an interrupt on `calls`.
fn ask_with_calls(client: &mut Client, calls: &OwnedFd) {
    let request = client.requests.getattr(ROOT);
    let queue = &mut client.guest.queues[1];
    queue.submit(&request.readable, request.reply_space).unwrap();
    while queue.poll().unwrap().is_none() {
        if queue.ring().arm_interrupt() {
            take_calls(calls);
        }
    }
}

#[rstest]
fn an_interrupt_is_8_bytes_in_a_pipe(#[values(false, true)] packed: bool, #[values(false, true)] blocking: bool) {
    let daemon = Daemon::sharing(1);
    let mut client = daemon.connect(&options(packed, 1));
    client.init();
    let (calls, call) = if blocking {
        pipe_with(PipeFlags::CLOEXEC).unwrap()
    } else {
        call_pipe()
    };
    client.guest.frontend().set_vring_call(1, Some(call.as_fd())).unwrap();
    assert_eq!(take_calls(&calls), 1, "an interrupt may have been lost before");
    for _ in 0..20 {
        ask_with_calls(&mut client, &calls);
    }
}

#[rstest]
fn a_call_pipe_that_nobody_reads_costs_interrupts_only(#[values(false, true)] packed: bool) {
    let daemon = Daemon::sharing(1);
    let mut client = daemon.connect(&options(packed, 1));
    client.init();
    let (calls, call) = call_pipe();
    drop(calls);
    client.guest.frontend().set_vring_call(1, Some(call.as_fd())).unwrap();
    for _ in 0..20 {
        let request = client.requests.getattr(ROOT);
        let queue = &mut client.guest.queues[1];
        queue.submit(&request.readable, request.reply_space).unwrap();
        let mut tries = 0..30_000;
        while queue.poll().unwrap().is_none() {
            assert!(tries.next().is_some(), "the request is never answered");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    // Another descriptor works again.
    let (calls, call) = call_pipe();
    client.guest.frontend().set_vring_call(1, Some(call.as_fd())).unwrap();
    ask_with_calls(&mut client, &calls);
}

/// QEMU's net device: queues are enabled before anything else is known of them, and again after each reset of the guest.
#[rstest]
fn queues_may_be_enabled_before_anything_else_is_known(#[values(false, true)] packed: bool) {
    let daemon = Daemon::sharing(1);
    let features = INDIRECT_DESC | EVENT_IDX | VERSION_1 | if packed { RING_PACKED } else { 0 };
    let protocol = ProtocolFeatures::REPLY_ACK | ProtocolFeatures::RESET_DEVICE;
    let mut frontend = Frontend::new(UnixStream::connect(daemon.socket()).unwrap(), Some(LIMIT));
    frontend.features().unwrap();
    frontend.set_protocol_features(protocol).unwrap();
    frontend.set_owner().unwrap();
    for reset in [Reset::None, Reset::ByBase, Reset::ByMessage, Reset::ByBase] {
        match reset {
            Reset::None => {}
            Reset::ByBase => {
                for index in 0..2 {
                    frontend.set_vring_enable(index, false).unwrap();
                    frontend.vring_base(index).unwrap();
                }
            }
            Reset::ByMessage => frontend.reset_device().unwrap(),
        }
        for index in 0..2 {
            frontend.set_vring_enable(index, true).unwrap();
        }
        frontend.set_features(features | PROTOCOL_FEATURES).unwrap();

        let (memory, file) = Memory::memfd("net", RAM_SIZE, RAM).unwrap();
        let region = MemoryRegion {
            guest_address: RAM,
            size: RAM_SIZE,
            user_address: RAM,
            mmap_offset: 0,
        };
        frontend.set_memory_table(&[(region, file.as_fd())]).unwrap();
        let mut queues = [0, 1].map(|index| GuestQueue::new(index, packed, &memory));
        for (index, queue) in (0_u8..).zip(&queues) {
            let number = u32::from(index);
            frontend.set_vring_num(number, 256).unwrap();
            frontend.set_vring_base(number, queue.config.base).unwrap();
            frontend.set_vring_address(queue.address(number)).unwrap();
            frontend.set_vring_call(index, Some(queue.call.as_fd())).unwrap();
            frontend.set_vring_kick(index, Some(queue.kick.as_fd())).unwrap();
        }
        let mut fuse = Requests::new(rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let init = fuse.init(45, 0);
        assert!(queues[1].ask(&memory, &init).is_ok());
    }
}

#[derive(Clone, Copy)]
enum Reset {
    None,
    ByBase,
    ByMessage,
}

/// QEMU 11.1's GPU acknowledges RING_RESET to a device that has never heard of it.
#[rstest]
fn transport_features_may_be_acknowledged_that_were_not_offered(#[values(false, true)] packed: bool) {
    let daemon = Daemon::sharing(1);
    let mut client = daemon.connect(&options(packed, 1));
    let features = client.guest.features();
    assert_eq!(
        client.guest.frontend().features().unwrap() & RING_RESET,
        0,
        "not offered"
    );
    let base = client.guest.stop(1).unwrap();
    let acknowledged = features | RING_RESET | PROTOCOL_FEATURES;
    client.guest.frontend().set_features(acknowledged).unwrap();
    client.guest.start(1, base).unwrap();
    client.init();
    client.assert_served();
    let strange = features | 1 << 3 | PROTOCOL_FEATURES;
    assert!(client.guest.frontend().set_features(strange).is_err());
    client.assert_served();
}
