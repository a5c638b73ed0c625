//! The control plane while the rings run: configuration, stop and resume, memory, descriptors, reset.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use driver::Options;
use rstest::rstest;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use vhost_user::ProtocolFeatures;
use vhost_user::channel::{BackendRequest, BackendRequests};
use vhost_user::message::MemoryRegion;

use crate::echo::{ALONE, CONFIG_SIZE, Daemon, PROMPT, options};

#[test]
fn the_configuration_space_is_read_and_written_in_parts_of_any_length() {
    let daemon = Daemon::new();
    let mut client = daemon.connect(&options(false));
    let mut expected: Vec<u8> = (1..=CONFIG_SIZE as u8).collect();
    expected.resize(256, 0);
    let frontend = client.0.frontend();
    for (offset, bytes) in [(0, &b"whole"[..]), (7, b"x"), (3, b""), (2, b"other")] {
        frontend.set_config(offset, bytes).unwrap();
        expected[offset as usize..][..bytes.len()].copy_from_slice(bytes);
    }
    for (offset, bytes) in [(8, &b"x"[..]), (7, b"xy"), (100, b"x"), (0, b"too many of them")] {
        assert!(frontend.set_config(offset, bytes).is_err(), "{bytes:?} at {offset}");
    }
    for (offset, size) in [(0, 256), (0, 1), (3, 4), (15, 1), (12, 20), (200, 40), (16, 240)] {
        let read = frontend.config(offset, size).unwrap();
        assert_eq!(read, expected[offset as usize..][..size as usize], "{size} at {offset}");
    }
}

#[rstest]
fn the_guest_is_told_of_a_change_of_the_configuration_space(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let mut client = daemon.connect(&Options {
        window: false,
        ..options(packed)
    });
    client.0.frontend().set_config(0, b"unheard").unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    client.0.frontend().set_backend_channel(theirs.as_fd()).unwrap();
    client.0.frontend().set_config(0, b"heard").unwrap();
    let mut requests = BackendRequests::new(ours);
    let heard = requests.serve(|request| u64::from(!matches!(request, BackendRequest::ConfigChanged)));
    assert!(heard.unwrap());
    client.assert_served(ALONE);
}

#[rstest]
fn a_device_is_told_of_resets_memory_and_the_end(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let mut client = daemon.connect(&options(packed));
    client.assert_served(ALONE);
    let base = client.0.stop(ALONE).unwrap();
    client.0.start(ALONE, base).unwrap();
    let memories = daemon.seen.memories.load(SeqCst);
    client.0.take_memory_away().unwrap();
    client.0.give_memory_back().unwrap();
    assert_eq!(daemon.seen.memories.load(SeqCst), memories + 2);
    client.0.frontend().reset_device().unwrap();
    assert_eq!(daemon.seen.resets.load(SeqCst), 1);
    client.submit(ALONE, "later");
    client.0.queues[usize::from(ALONE)].kick().unwrap();
    assert!(client.is_idle(ALONE), "all rings are stopped");
    client.0.start(ALONE, base).unwrap();
    assert_eq!(client.wait(ALONE), "later");
    assert_eq!(daemon.seen.starts.load(SeqCst), 2);
    let seen = std::sync::Arc::clone(&daemon.seen);
    drop((client, daemon));
    assert_eq!((seen.resets.load(SeqCst), seen.ends.load(SeqCst)), (1, 1));
}

#[rstest]
fn a_stopped_queue_is_left_alone_and_resumes_where_it_was(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let mut client = daemon.connect(&Options {
        queue_size: 8,
        ..options(packed)
    });
    for round in 0..30 {
        for _ in 0..round % 5 {
            client.assert_served(ALONE);
        }
        let base = client.0.stop(ALONE).unwrap();
        client.submit(ALONE, "later");
        client.0.queues[usize::from(ALONE)].kick().unwrap();
        assert!(client.is_idle(ALONE), "the queue is stopped");
        client.0.start(ALONE, base).unwrap();
        assert_eq!(client.wait(ALONE), "later");
    }
}

#[rstest]
fn a_disabled_queue_waits_until_it_is_enabled(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let mut client = daemon.connect(&options(packed));
    client.0.frontend().set_vring_enable(ALONE.into(), false).unwrap();
    client.submit(ALONE, "later");
    client.0.queues[usize::from(ALONE)].kick().unwrap();
    // Another request of the protocol, so that the lane has certainly looked.
    client.0.frontend().set_vring_enable(ALONE.into(), false).unwrap();
    assert!(client.is_idle(ALONE));
    client.0.frontend().set_vring_enable(ALONE.into(), true).unwrap();
    client.0.queues[usize::from(ALONE)].wait().unwrap();
}

/// QEMU announces what the window of one device shows to all devices of the guest, while that device waits for a mapping.
#[test]
fn files_longer_than_any_memory_are_no_memory_of_the_guest() {
    let daemon = Daemon::new();
    let mut client = daemon.connect(&options(false));
    let view = File::from(memfd_create("view", MemfdFlags::CLOEXEC).unwrap());
    view.set_len((i64::MAX as u64) & !((2 << 20) - 1)).unwrap();
    let region = |index: u64| MemoryRegion {
        guest_address: (1 << 40) + (index << 21),
        size: 2 << 20,
        user_address: (1 << 46) + (index << 21),
        mmap_offset: 0,
    };
    let more_than_slots = client.0.frontend().max_memory_slots().unwrap() + 1;
    for index in 0..more_than_slots {
        let frontend = client.0.frontend();
        frontend.add_memory_region(region(index), view.as_fd()).unwrap();
    }
    client.assert_served(ALONE);
    for index in 0..more_than_slots {
        client.0.frontend().remove_memory_region(region(index)).unwrap();
    }
    client.assert_served(ALONE);
}

#[rstest]
fn memory_goes_over_as_one_table_too(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let protocol_features = ProtocolFeatures::all() - ProtocolFeatures::CONFIGURE_MEM_SLOTS;
    let mut client = daemon.connect(&Options {
        protocol_features,
        ..options(packed)
    });
    client.assert_served(ALONE);
}

#[rstest]
fn a_guest_without_acknowledgements_is_served(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let mut client = daemon.connect(&Options {
        protocol_features: ProtocolFeatures::empty(),
        ..options(packed)
    });
    client.assert_served(ALONE);
}

#[rstest]
fn memory_changes_under_a_running_queue(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let mut client = daemon.connect(&options(packed));
    let more = rustix::fs::memfd_create("more", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&more, 1 << 20).unwrap();
    let region = |guest_address| MemoryRegion {
        guest_address,
        size: 1 << 20,
        user_address: guest_address,
        mmap_offset: 0,
    };
    for guest_address in [0, 1 << 40] {
        client
            .0
            .frontend()
            .add_memory_region(region(guest_address), more.as_fd())
            .unwrap();
        client.assert_served(ALONE);
    }
    let twice = client.0.frontend().add_memory_region(region(0), more.as_fd());
    assert!(twice.is_err(), "overlaps itself");
    client.0.frontend().remove_memory_region(region(0)).unwrap();
    client.assert_served(ALONE);

    // Front ends take regions away and put them back when they rearrange them; the ring waits for its own.
    client.0.take_memory_away().unwrap();
    client.submit(ALONE, "later");
    client.0.queues[usize::from(ALONE)].kick().unwrap();
    client.0.frontend().set_vring_enable(ALONE.into(), true).unwrap();
    assert!(client.is_idle(ALONE), "the ring is not in memory");
    client.0.give_memory_back().unwrap();
    client.0.queues[usize::from(ALONE)].wait().unwrap();
}

#[test]
fn a_new_call_descriptor_is_signalled_once_lest_an_interrupt_was_lost() {
    let daemon = Daemon::new();
    let mut client = daemon.connect(&options(false));
    // The first batch of a ring may end with an interrupt of its own: the lane is past it when it obeys a command.
    client.assert_served(ALONE);
    client.0.frontend().set_vring_enable(ALONE.into(), true).unwrap();
    let call = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    client
        .0
        .frontend()
        .set_vring_call(ALONE as u8, Some(call.as_fd()))
        .unwrap();
    let mut counter = [0; 8];
    rustix::io::read(&call, &mut counter).unwrap();
    assert_eq!(u64::from_ne_bytes(counter), 1);
}

#[test]
fn a_ring_without_kick_descriptor_is_refused() {
    let daemon = Daemon::new();
    let mut client = daemon.connect(&options(false));
    assert!(client.0.frontend().set_vring_kick(ALONE as u8, None).is_err());
}

#[test]
fn a_kick_descriptor_that_is_always_readable_costs_its_queue_only() {
    let daemon = Daemon::new();
    let mut client = daemon.connect(&options(false));
    let endless = File::open("/dev/null").unwrap();
    client
        .0
        .frontend()
        .set_vring_kick(PROMPT as u8, Some(endless.as_fd()))
        .unwrap();
    assert!(client.0.queues[usize::from(PROMPT)].wait_for_error().unwrap());
    client.assert_served(ALONE);
}

#[test]
fn a_full_pipe_as_call_descriptor_blocks_nobody() {
    let daemon = Daemon::new();
    let mut client = daemon.connect(&options(false));
    let (_reader, writer) = rustix::pipe::pipe().unwrap();
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    while poll(&mut [PollFd::new(&writer, PollFlags::OUT)], Some(&now)).unwrap() > 0 {
        rustix::io::write(&writer, &[0; 4096]).unwrap();
    }
    client
        .0
        .frontend()
        .set_vring_call(PROMPT as u8, Some(writer.as_fd()))
        .unwrap();
    client.submit(PROMPT, "unheard");
    // No interrupt tells of the answer. A stop could come before the kick, so the answer comes first.
    let mut tries = 0..30_000;
    while client.0.queues[usize::from(PROMPT)].poll().unwrap().is_none() {
        assert!(tries.next().is_some(), "the request is never answered");
        std::thread::sleep(Duration::from_millis(1));
    }
    // A lane that blocked in its write would never acknowledge this.
    client.0.stop(PROMPT).unwrap();
}
