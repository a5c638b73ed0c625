//! The front end turns to the device while the device waits for it to map a file: memory that comes and goes, queues that stop.
//! The front end answers the device only when it has its own answer, and the guest notices nothing.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use driver::fs::{ROOT, field_u64};
use rstest::rstest;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost_user::channel::{BackendRequest, BackendRequests};
use vhost_user::message::{MemoryRegion, SharedMapping};

use crate::daemon::{Client, Daemon, options};

const UNIT: u64 = 2 << 20;
const SETUPMAPPING: u32 = 48;

/// A guest with a session, the front end's end of the channel, and a node of 4 MiB.
struct Mapping {
    client: Client,
    channel: BackendRequests,
    node: u64,
    _daemon: Daemon,
}

impl Mapping {
    fn new(packed: bool) -> Self {
        let daemon = Daemon::with_window(8 * UNIT);
        fs::write(daemon.share().join("file"), vec![7; 2 * UNIT as usize]).unwrap();
        let mut client = daemon.connect(&options(packed, 1));
        let (ours, theirs) = UnixStream::pair().unwrap();
        client.guest.frontend().set_backend_channel(theirs.as_fd()).unwrap();
        client.init();
        let node = field_u64(&client.ask(|requests| requests.lookup(ROOT, b"file")).unwrap(), 0);
        Self {
            client,
            channel: BackendRequests::new(ours),
            node,
            _daemon: daemon,
        }
    }

    /// Sends SETUPMAPPING of the file's first 2 MiB, without waiting.
    fn submit(&mut self, offset: u64) {
        let fields = [u64::MAX, 0, UNIT, 2, offset];
        let arguments: Vec<u8> = fields.into_iter().flat_map(u64::to_le_bytes).collect();
        let request = self.client.requests.raw(SETUPMAPPING, self.node, &[&arguments], 16);
        let queue = &mut self.client.guest.queues[1];
        queue.submit(&request.readable, request.reply_space).unwrap();
    }

    /// The errno that the guest gets, 0 for none.
    fn errno(&mut self) -> i32 {
        let (_, written, reply) = self.client.guest.queues[1].wait().unwrap();
        assert_eq!(written, 16);
        -i32::from_le_bytes(reply[4..8].try_into().unwrap())
    }

    /// Waits for SHMEM_MAP, and does something before it is answered.
    fn map(&mut self, before_the_answer: impl FnOnce(&mut Client, OwnedFd)) -> SharedMapping {
        let mut asked = None;
        let client = &mut self.client;
        let serve = |request| match request {
            BackendRequest::Map(mapping, file) => {
                asked = Some(mapping);
                before_the_answer(client, file);
                0
            }
            _ => 1,
        };
        assert!(readable(&self.channel, 30), "the device asks for no mapping");
        assert!(self.channel.serve(serve).unwrap());
        asked.expect("SHMEM_MAP")
    }

    fn assert_nothing_more_is_asked(&self) {
        assert!(!readable(&self.channel, 0), "the mapping is made once");
    }
}

/// Whether the device asks for something within so many seconds.
fn readable(channel: &BackendRequests, seconds: i64) -> bool {
    let limit = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    poll(&mut [PollFd::new(channel, PollFlags::IN)], Some(&limit)).unwrap() > 0
}

fn region(guest_address: u64) -> MemoryRegion {
    MemoryRegion {
        guest_address,
        size: UNIT,
        user_address: guest_address,
        mmap_offset: 0,
    }
}

fn other_memory() -> OwnedFd {
    let file = memfd_create("other", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, UNIT).unwrap();
    file
}

#[rstest]
fn memory_comes_and_goes_while_a_mapping_is_made(#[values(false, true)] packed: bool) {
    let mut mapping = Mapping::new(packed);
    let other = other_memory();
    for round in 0..4 {
        mapping.submit(round * UNIT);
        let asked = mapping.map(|client, _file| {
            let frontend = client.guest.frontend();
            frontend.add_memory_region(region(1 << 40), other.as_fd()).unwrap();
            frontend.add_memory_region(region(1 << 41), other.as_fd()).unwrap();
            frontend.remove_memory_region(region(1 << 40)).unwrap();
            frontend.remove_memory_region(region(1 << 41)).unwrap();
        });
        assert_eq!((asked.offset, asked.length), (round * UNIT, UNIT));
        assert_eq!(mapping.errno(), 0);
    }
    mapping.assert_nothing_more_is_asked();
    mapping.client.assert_served();
}

#[rstest]
fn a_queue_that_stops_while_a_mapping_is_made_resumes_with_it(#[values(false, true)] packed: bool) {
    let mut mapping = Mapping::new(packed);
    for round in 0..4 {
        mapping.submit(round * UNIT);
        mapping.map(|client, _file| {
            let base = client.guest.stop(1).unwrap();
            client.guest.start(1, base).unwrap();
        });
        assert_eq!(mapping.errno(), 0);
    }
    mapping.assert_nothing_more_is_asked();
}

#[rstest]
fn descriptors_change_while_a_mapping_is_made(#[values(false, true)] packed: bool) {
    let mut mapping = Mapping::new(packed);
    mapping.submit(0);
    mapping.map(|client, _file| {
        let frontend = client.guest.frontend();
        frontend.set_vring_err(1, None).unwrap();
        frontend.set_vring_enable(1, false).unwrap();
        frontend.set_vring_enable(1, true).unwrap();
    });
    assert_eq!(mapping.errno(), 0);
    mapping.assert_nothing_more_is_asked();
}

#[rstest]
fn a_mapping_that_is_refused_after_all_is_asked_for_once_more(#[values(false, true)] packed: bool) {
    let mut mapping = Mapping::new(packed);
    let other = other_memory();
    mapping.submit(0);
    assert!(readable(&mapping.channel, 30));
    let client = &mut mapping.client;
    let refuse = |_| {
        let frontend = client.guest.frontend();
        frontend.add_memory_region(region(1 << 40), other.as_fd()).unwrap();
        1
    };
    assert!(mapping.channel.serve(refuse).unwrap());
    // The front end may have refused for what it was doing then.
    mapping.map(|_, _| {});
    assert_eq!(mapping.errno(), 0);
}
