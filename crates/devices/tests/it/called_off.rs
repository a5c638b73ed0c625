//! A front end that sends requests while the device waits for it to map a file: memory that comes and goes, queues
//! that stop. The front end answers the device only after its own requests are answered, and the guest notices
//! nothing.

use std::os::fd::{AsFd, OwnedFd};

use rstest::rstest;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost_user::message::MemoryRegion;

use crate::mapping::{Mapping, UNIT, readable};

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
        mapping.submit_setup(round * UNIT);
        let asked = mapping.answer_map(|client, _, _| {
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
        mapping.submit_setup(round * UNIT);
        mapping.answer_map(|client, _, _| {
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
    mapping.submit_setup(0);
    mapping.answer_map(|client, _, _| {
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
    mapping.submit_setup(0);
    assert!(readable(&mapping.channel, 30));
    let client = &mut mapping.client;
    let refuse = |_| {
        let frontend = client.guest.frontend();
        frontend.add_memory_region(region(1 << 40), other.as_fd()).unwrap();
        1
    };
    assert!(mapping.channel.serve(refuse).unwrap());
    // The front end may have refused for what it was doing then.
    mapping.answer_map(|_, _, _| {});
    assert_eq!(mapping.errno(), 0);
}
