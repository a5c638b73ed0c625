//! A driver that breaks the rules loses only its request or its queue.

use std::process::Command;

use devices::rng::REQUEST_MAX;
use guestmem::Memory;
use rstest::rstest;
use virtqueue::{Buffer, QueueConfig};

use crate::arbitrary;
use crate::driver::{Origin, PLACE, options};
use crate::numbers::Numbers;

const INDIRECT: u16 = 4;

/// The bytes may have been seen in part, so that nobody else gets them.
#[rstest]
fn bytes_for_a_buffer_outside_of_memory_are_dropped(#[values(false, true)] packed: bool) {
    let origin = Origin::file(b"seen? only mine");
    let daemon = origin.serve();
    let mut client = daemon.connect(&options(packed));
    let queue = &mut client.0.queues[0];
    let place = queue.take_place().unwrap();
    let buffers = [(place, 2), (1 << 50, 4)].map(|(address, length)| Buffer { address, length });
    let ticket = queue.ring().post(&[], &buffers).unwrap();
    queue.kick().unwrap();
    assert_eq!(queue.wait().unwrap(), (ticket, 0, Vec::new()));
    assert_eq!(client.ask(100), b"only mine");
}

#[rstest]
fn a_chain_of_gigabytes_gets_no_more_than_another(#[values(false, true)] packed: bool) {
    let origin = Origin::file(&[7; 2 * REQUEST_MAX]);
    let daemon = origin.serve();
    let mut client = daemon.connect(&options(packed));
    let queue = &mut client.0.queues[0];
    let place = queue.take_place().unwrap();
    let buffer = Buffer {
        address: place,
        length: PLACE as u32,
    };
    let ticket = queue.ring().post(&[], &[buffer; 100]).unwrap();
    queue.kick().unwrap();
    let (answered, written, _) = queue.wait().unwrap();
    assert_eq!((answered, written), (ticket, REQUEST_MAX as u32));
}

/// Makes a table outside of memory available in the first position of the ring, as nobody could through the driver half.
fn break_ring(config: &QueueConfig, memory: &Memory) {
    let (flags, last) = if config.packed {
        (0, INDIRECT | 1 << 7)
    } else {
        (INDIRECT, 0)
    };
    let words = [(0, 1 << 50), (8, 16 | u64::from(flags) << 32 | u64::from(last) << 48)];
    for (offset, word) in words {
        memory
            .write(config.descriptor + offset, &u64::to_le_bytes(word))
            .unwrap();
    }
    if !config.packed {
        memory.write(config.driver, &[0, 0, 1, 0, 0, 0]).unwrap();
    }
}

#[rstest]
fn a_broken_ring_is_the_end_of_its_queue_and_the_next_guest_is_served(#[values(false, true)] packed: bool) {
    let origin = Origin::file(b"for the next");
    let daemon = origin.serve();
    let mut client = daemon.connect(&options(packed));
    let config = client.0.queues[0].config().clone();
    break_ring(&config, client.0.memory());
    client.0.queues[0].kick().unwrap();
    assert!(client.0.queues[0].wait_for_error().unwrap());
    assert_eq!(client.0.device_config(4).unwrap(), [0; 4], "the session goes on");
    drop(client);
    assert_eq!(daemon.connect(&options(packed)).ask(100), b"for the next");
}

/// A waiting chain is taken off the ring anew each time.
#[rstest]
fn a_chain_that_breaks_while_it_waits_retires_the_queue(#[values(false, true)] packed: bool) {
    let origin = Origin::fifo();
    let daemon = origin.serve();
    let mut client = daemon.connect(&options(packed));
    client.submit(100);
    client.assert_waits();
    let config = client.0.queues[0].config().clone();
    break_ring(&config, client.0.memory());
    std::io::Write::write_all(&mut origin.writer(), b"later").unwrap();
    assert!(client.0.queues[0].wait_for_error().unwrap());
    drop(client);
    assert_eq!(daemon.connect(&options(packed)).ask(100), b"later");
}

/// The body counts descriptors and threads of its process, so that it must be alone there.
#[test]
fn no_driver_breaks_the_device() {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "hostile::pseudo_random_drivers", "--ignored"])
        .status();
    assert!(status.unwrap().success());
}

#[test]
#[ignore = "another test starts it in a process of its own"]
fn pseudo_random_drivers() {
    let mut numbers = Numbers(1);
    let (mut answered, mut retired, mut refused) = (0, 0, 0);
    for _ in 0..100 {
        let words = numbers.next() % 60;
        let input = numbers.bytes(words);
        let outcome = arbitrary::run(&input);
        answered += outcome.answered;
        retired += outcome.retired;
        refused += outcome.refused;
    }
    assert!(
        answered > 10 && retired > 10 && refused < 10,
        "the drivers are too random to show anything: {answered} answered, {retired} retired, {refused} refused"
    );
}
