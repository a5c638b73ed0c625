//! The control plane while the rings run: configuration, stop and resume, memory, descriptors, reset.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::Duration;

use driver::Options;
use driver::fs::ROOT;
use rstest::rstest;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use vhost_user::ProtocolFeatures;
use vhost_user::message::MemoryRegion;

use crate::daemon::{Client, Daemon, options};

fn submit_getattr(client: &mut Client) {
    let request = client.requests.getattr(ROOT);
    client.guest.queues[1]
        .submit(&request.readable, request.reply_space)
        .unwrap();
}

fn idle(client: &mut Client) -> bool {
    client.guest.queues[1].poll().unwrap().is_none()
}

#[test]
fn the_configuration_space_has_tag_and_queues() {
    let daemon = Daemon::sharing(4);
    let mut client = daemon.connect(&options(false, 4));
    let config = client.guest.device_config(256).unwrap();
    assert_eq!(&config[..6], b"share\0");
    assert_eq!(config[36..40], 4_u32.to_le_bytes());
    assert!(config[5..36].iter().chain(&config[40..]).all(|byte| *byte == 0));
    assert!(
        client.guest.frontend().set_config(0, b"other").is_err(),
        "the driver must not write it"
    );
    assert_eq!(client.guest.frontend().queue_num().unwrap(), 5);
}

#[rstest]
fn a_stopped_queue_is_left_alone_and_resumes_where_it_was(#[values(false, true)] packed: bool) {
    let daemon = Daemon::sharing(1);
    let mut client = daemon.connect(&Options {
        queue_size: 8,
        ..options(packed, 1)
    });
    client.init();
    for round in 0..30 {
        for _ in 0..round % 5 {
            client.assert_served();
        }
        let base = client.guest.stop(1).unwrap();
        submit_getattr(&mut client);
        client.guest.queues[1].kick().unwrap();
        assert!(idle(&mut client), "the queue is stopped");
        client.guest.start(1, base).unwrap();
        let (_, written, _) = client.guest.queues[1].wait().unwrap();
        assert_eq!(written, 120);
    }
}

#[rstest]
fn a_disabled_queue_waits_until_it_is_enabled(#[values(false, true)] packed: bool) {
    let daemon = Daemon::sharing(1);
    let mut client = daemon.connect(&options(packed, 1));
    client.init();
    client.guest.frontend().set_vring_enable(1, false).unwrap();
    submit_getattr(&mut client);
    client.guest.queues[1].kick().unwrap();
    // Another request of the protocol, so that the lane has certainly looked.
    client.guest.frontend().set_vring_enable(1, false).unwrap();
    assert!(idle(&mut client));
    client.guest.frontend().set_vring_enable(1, true).unwrap();
    client.guest.queues[1].wait().unwrap();
}

/// QEMU announces what one share's window shows to all devices of the guest, while that share waits for a mapping.
#[test]
fn views_of_another_share_are_no_memory_of_the_guest() {
    let daemon = Daemon::sharing(1);
    let mut client = daemon.connect(&options(false, 1));
    client.init();
    let view = File::from(memfd_create("view", MemfdFlags::CLOEXEC).unwrap());
    view.set_len(guestmem::VIEW_LENGTH).unwrap();
    let region = |index: u64| MemoryRegion {
        guest_address: (1 << 40) + (index << 21),
        size: 2 << 20,
        user_address: (1 << 46) + (index << 21),
        mmap_offset: 0,
    };
    let more_than_slots = client.guest.frontend().max_memory_slots().unwrap() + 1;
    for index in 0..more_than_slots {
        let frontend = client.guest.frontend();
        frontend.add_memory_region(region(index), view.as_fd()).unwrap();
    }
    client.assert_served();
    for index in 0..more_than_slots {
        client.guest.frontend().remove_memory_region(region(index)).unwrap();
    }
    client.assert_served();
}

#[rstest]
fn memory_goes_over_as_one_table_too(#[values(false, true)] packed: bool) {
    let daemon = Daemon::sharing(1);
    let protocol_features = ProtocolFeatures::all() - ProtocolFeatures::CONFIGURE_MEM_SLOTS;
    let mut client = daemon.connect(&Options {
        protocol_features,
        ..options(packed, 1)
    });
    client.init();
    client.assert_served();
}

#[rstest]
fn a_guest_without_acknowledgements_is_served(#[values(false, true)] packed: bool) {
    let daemon = Daemon::sharing(1);
    let mut client = daemon.connect(&Options {
        protocol_features: ProtocolFeatures::empty(),
        ..options(packed, 1)
    });
    client.init();
    client.assert_served();
}

#[rstest]
fn memory_changes_under_a_running_queue(#[values(false, true)] packed: bool) {
    let daemon = Daemon::sharing(1);
    let mut client = daemon.connect(&options(packed, 1));
    client.init();
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
            .guest
            .frontend()
            .add_memory_region(region(guest_address), more.as_fd())
            .unwrap();
        client.assert_served();
    }
    let twice = client.guest.frontend().add_memory_region(region(0), more.as_fd());
    assert!(twice.is_err(), "overlaps itself");
    client.guest.frontend().remove_memory_region(region(0)).unwrap();
    client.assert_served();

    // Front ends take regions away and put them back when they rearrange them; the ring waits for its own.
    client.guest.take_memory_away().unwrap();
    submit_getattr(&mut client);
    client.guest.queues[1].kick().unwrap();
    client.guest.frontend().set_vring_enable(1, true).unwrap();
    assert!(idle(&mut client), "the ring is not in memory");
    client.guest.give_memory_back().unwrap();
    client.guest.queues[1].wait().unwrap();
}

#[test]
fn a_new_call_descriptor_is_signalled_once_lest_an_interrupt_was_lost() {
    let daemon = Daemon::sharing(1);
    let mut client = daemon.connect(&options(false, 1));
    client.init();
    let call = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    client.guest.frontend().set_vring_call(1, Some(call.as_fd())).unwrap();
    let mut counter = [0; 8];
    rustix::io::read(&call, &mut counter).unwrap();
    assert_eq!(u64::from_ne_bytes(counter), 1);
}

#[rstest]
fn a_reset_device_stops_and_starts_anew(#[values(false, true)] packed: bool) {
    let daemon = Daemon::sharing(1);
    let mut client = daemon.connect(&options(packed, 1));
    client.init();
    client.assert_served();
    // Only to learn the position: the ring runs when the reset comes.
    let base = client.guest.stop(1).unwrap();
    client.guest.start(1, base).unwrap();
    client.guest.frontend().set_status(8).unwrap();
    client.guest.frontend().reset_device().unwrap();
    assert_eq!(client.guest.frontend().status().unwrap(), 0);
    submit_getattr(&mut client);
    client.guest.queues[1].kick().unwrap();
    assert!(idle(&mut client), "all rings are stopped");
    client.guest.start(1, base).unwrap();
    let (_, written, _) = client.guest.queues[1].wait().unwrap();
    assert_eq!(written, 16, "an error: the session is gone");
    client.init();
    client.assert_served();
}

#[test]
fn a_ring_without_kick_descriptor_is_refused() {
    let daemon = Daemon::sharing(1);
    let mut client = daemon.connect(&options(false, 1));
    assert!(client.guest.frontend().set_vring_kick(1, None).is_err());
}

#[test]
fn a_kick_descriptor_that_is_always_readable_costs_its_queue_only() {
    let daemon = Daemon::sharing(2);
    let mut client = daemon.connect(&options(false, 2));
    client.init();
    let endless = File::open("/dev/null").unwrap();
    client
        .guest
        .frontend()
        .set_vring_kick(2, Some(endless.as_fd()))
        .unwrap();
    assert!(client.guest.queues[2].wait_for_error().unwrap());
    client.assert_served();
}

#[test]
fn a_full_pipe_as_call_descriptor_blocks_nobody() {
    let daemon = Daemon::sharing(2);
    let mut client = daemon.connect(&options(false, 2));
    client.init();
    let (_reader, writer) = rustix::pipe::pipe().unwrap();
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    while poll(&mut [PollFd::new(&writer, PollFlags::OUT)], Some(&now)).unwrap() > 0 {
        rustix::io::write(&writer, &[0; 4096]).unwrap();
    }
    client.guest.frontend().set_vring_call(2, Some(writer.as_fd())).unwrap();
    let request = client.requests.getattr(ROOT);
    client.guest.queues[2]
        .submit(&request.readable, request.reply_space)
        .unwrap();
    // No interrupt tells of the answer. A stop could come before the kick, so the answer comes first.
    let mut tries = 0..30_000;
    while client.guest.queues[2].poll().unwrap().is_none() {
        assert!(tries.next().is_some(), "the request is never answered");
        std::thread::sleep(Duration::from_millis(1));
    }
    // A lane that blocked in its write would never acknowledge this.
    client.guest.stop(2).unwrap();
}
