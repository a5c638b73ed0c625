//! A front end that shortens the guest's RAM loses only the queues in it.

use std::os::fd::OwnedFd;

use driver::{Guest, Options};
use rstest::rstest;
use rustix::fs::{fstat, ftruncate};
use virtqueue::Buffer;

use crate::daemon::{Daemon, options};

/// Where the driver has its RAM.
const START: u64 = 1 << 30;

fn shrinkable(packed: bool) -> Options {
    Options {
        shrinkable: true,
        ..options(packed, 2)
    }
}

/// Kicks a queue, which then goes out of service.
fn assert_retires(guest: &Guest, index: usize) {
    guest.queues[index].kick().unwrap();
    assert!(guest.queues[index].wait_for_error().unwrap(), "queue {index} goes on");
}

/// Starts a queue from the beginning, as a guest does that was reset.
fn restart(guest: &mut Guest, index: u16) {
    guest.stop(index).unwrap();
    let memory = guest.memory().clone();
    let queue = &mut guest.queues[usize::from(index)];
    let config = queue.config().clone();
    *queue.ring() = config.drive(&memory).unwrap();
    guest.start(index, config.base).unwrap();
}

fn ram(guest: &Guest) -> (OwnedFd, u64) {
    let file = guest.ram().try_clone_to_owned().unwrap();
    let length = fstat(&file).unwrap().st_size.try_into().unwrap();
    (file, length)
}

#[rstest]
fn shrunk_ram_costs_its_queues_and_the_session_goes_on(#[values(false, true)] packed: bool) {
    let daemon = Daemon::sharing(2);
    let mut client = daemon.connect(&shrinkable(packed));
    client.init();
    client.assert_served();
    let guest = &mut client.guest;
    let (file, length) = ram(guest);
    ftruncate(&file, 0).unwrap();
    for index in 0..3 {
        assert_retires(guest, index);
    }
    // A queue that is started in what is left is retired again. The control plane answers all the while.
    guest.stop(2).unwrap();
    guest.start(2, guest.queues[2].config().base).unwrap();
    assert_retires(guest, 2);
    assert!(guest.frontend().queue_num().unwrap() >= 3);

    // Good memory, and the queues are of use again; the FUSE session is the old one.
    ftruncate(&file, length).unwrap();
    guest.take_memory_away().unwrap();
    guest.give_memory_back().unwrap();
    for index in 0..3 {
        restart(guest, index);
    }
    client.assert_served();
}

#[rstest]
fn after_a_front_end_with_shrunk_ram_the_next_is_served(#[values(false, true)] packed: bool) {
    let daemon = Daemon::sharing(2);
    let mut client = daemon.connect(&shrinkable(packed));
    client.init();
    ftruncate(client.guest.ram(), 0).unwrap();
    assert_retires(&client.guest, 1);
    drop(client);
    let mut next = daemon.connect(&options(packed, 2));
    next.init();
    next.assert_served();
}

/// The ring is still there, the request is not.
#[rstest]
fn a_request_in_lost_ram_is_not_served(#[values(false, true)] packed: bool) {
    let daemon = Daemon::sharing(2);
    let mut client = daemon.connect(&shrinkable(packed));
    client.init();
    let request = client.requests.mkdir(driver::fs::ROOT, b"directory", 0o755);
    let guest = &mut client.guest;
    // The last place of the last queue, behind all rings. Its second page goes, with the end of the name.
    let place = guest.queues[2].take_place().unwrap();
    let request_at = place + 4096 - 50;
    guest.memory().write(request_at, &request.readable).unwrap();
    assert!(place > guest.queues[2].config().device);
    ftruncate(guest.ram(), place + 4096 - START).unwrap();
    let buffer = |address, length| Buffer { address, length };
    let readable = [buffer(request_at, request.readable.len() as u32)];
    let queue = &mut guest.queues[2];
    queue
        .ring()
        .post(&readable, &[buffer(place, request.reply_space)])
        .unwrap();
    assert_retires(guest, 2);
    assert_eq!(std::fs::read_dir(daemon.share()).unwrap().count(), 0);
    // The other queues lie in the same region.
    assert_retires(guest, 1);
}
