//! A driver that breaks the rules loses its frame or its queue, and nothing else.

use devices::net::FRAME_MAX;
use devices::net::features::{CTRL_VQ, MRG_RXBUF};
use rstest::rstest;
use virtqueue::Buffer;

use crate::arbitrary;
use crate::driver::{Client, Daemon, HEADER, Network, PLAIN, RECEIVE, SEND, frame, options};
use crate::numbers::Numbers;

fn assert_goes_on(client: &mut Client, network: &mut Network) {
    client.send(&frame(42, 60));
    assert_eq!(network.receive(), frame(42, 60));
}

/// Posts a chain as it is, and waits for it.
fn post(client: &mut Client, queue: usize, readable: &[Buffer], writable: &[Buffer]) -> u32 {
    let queue = &mut client.0.queues[queue];
    queue.ring().post(readable, writable).unwrap();
    queue.kick().unwrap();
    queue.wait().unwrap().1
}

/// VIRTIO 1.1 5.1.6.2: headers that point outside, offloads that were not negotiated, frames that are none.
#[rstest]
fn frames_that_break_the_rules_are_dropped(#[values(false, true)] packed: bool) {
    let (daemon, mut network) = Daemon::with_network(PLAIN);
    let mut client = daemon.connect(&options(packed, 0));
    let checksum = [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0];
    let outside = [1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0];
    let segments = [1, 1, 54, 0, 0xe8, 3, 34, 0, 16, 0, 0, 0];
    let no_size = [1, 1, 54, 0, 0, 0, 34, 0, 16, 0, 0, 0];
    let unknown = [0, 0x7f, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    for header in [checksum, outside, segments, no_size, unknown] {
        client.send_with(header, &frame(1, 200));
    }
    client.send(&[]);
    client.send(&frame(1, 13));
    client.send(&frame(1, FRAME_MAX + 1));
    let queue = &mut client.0.queues[SEND];
    assert_eq!(queue.call(&[0; HEADER - 1], 0).unwrap(), (0, Vec::new()));
    assert_eq!(queue.call(&[0], 0).unwrap(), (0, Vec::new()));
    assert_goes_on(&mut client, &mut network);
    daemon.await_count(|counts| &counts.malformed, 10);
}

#[rstest]
fn frames_outside_of_memory_are_dropped(#[values(false, true)] packed: bool) {
    let (daemon, mut network) = Daemon::with_network(PLAIN);
    let mut client = daemon.connect(&options(packed, 0));
    let place = client.0.queues[SEND].take_place().unwrap();
    let inside = Buffer {
        address: place,
        length: 40,
    };
    let outside = Buffer {
        address: 1 << 50,
        length: 40,
    };
    for chain in [[inside, outside], [outside, inside], [outside, outside]] {
        assert_eq!(post(&mut client, SEND, &chain, &[]), 0);
    }
    assert_goes_on(&mut client, &mut network);
    assert_eq!(daemon.count(|counts| &counts.sent), 1);
}

/// Gigabytes are no frame.
#[rstest]
fn huge_chains_are_dropped(#[values(false, true)] packed: bool) {
    let (daemon, mut network) = Daemon::with_network(PLAIN);
    let mut client = daemon.connect(&options(packed, 0));
    let place = client.0.queues[SEND].take_place().unwrap();
    let buffer = Buffer {
        address: place,
        length: 64 << 10,
    };
    assert_eq!(post(&mut client, SEND, &[buffer; 100], &[]), 0);
    assert_goes_on(&mut client, &mut network);
    daemon.await_count(|counts| &counts.malformed, 1);
}

/// VIRTIO 1.1 5.1.6.3.1: buffers take the header at least.
#[rstest]
fn receive_buffers_without_space_for_a_header_get_nothing(
    #[values(false, true)] packed: bool,
    #[values(0, MRG_RXBUF)] features: u64,
) {
    let (daemon, mut network) = Daemon::with_network(PLAIN);
    let mut client = daemon.connect(&options(packed, features));
    network.send(&frame(1, 60));
    for space in [0, 1, 11] {
        client.0.queues[RECEIVE].submit(b"x", space).unwrap();
        assert_eq!(client.chain(), []);
    }
    client.offer(72);
    assert_eq!(client.receive().1, [frame(1, 60)]);
    assert_goes_on(&mut client, &mut network);
    drop(daemon);
}

/// A chain of a frame that cannot be reached takes the frame with it.
#[rstest]
fn receive_buffers_outside_of_memory_cost_the_frame(
    #[values(false, true)] packed: bool,
    #[values(0, 1)] position: usize,
) {
    let (daemon, mut network) = Daemon::with_network(PLAIN);
    let mut client = daemon.connect(&options(packed, MRG_RXBUF));
    offer_outside(&mut client, position);
    network.send(&frame(1, 150));
    for _ in 0..2 {
        assert_eq!(client.0.queues[RECEIVE].wait().unwrap().1, 0);
    }
    assert_eq!(daemon.count(|counts| &counts.unplaced), 1);
    assert_goes_on(&mut client, &mut network);
}

/// Without mergeable buffers the next chain gets it.
#[rstest]
fn a_receive_buffer_outside_of_memory_is_passed_over(#[values(false, true)] packed: bool) {
    let (daemon, mut network) = Daemon::with_network(PLAIN);
    let mut client = daemon.connect(&options(packed, 0));
    offer_outside(&mut client, 0);
    network.send(&frame(1, 80));
    assert_eq!(client.0.queues[RECEIVE].wait().unwrap().1, 0);
    assert_eq!(client.0.queues[RECEIVE].wait().unwrap().1, 92);
    assert_goes_on(&mut client, &mut network);
    drop(daemon);
}

/// Offers two chains of 100 bytes, one of them outside of memory.
fn offer_outside(client: &mut Client, position: usize) {
    let queue = &mut client.0.queues[RECEIVE];
    let place = queue.take_place().unwrap();
    let mut buffers = [Buffer {
        address: place,
        length: 100,
    }; 2];
    buffers[position].address = 1 << 50;
    for buffer in buffers {
        queue.ring().post(&[], &[buffer]).unwrap();
    }
    queue.kick().unwrap();
}

#[rstest]
fn a_command_outside_of_memory_is_not_done(#[values(false, true)] packed: bool) {
    let (daemon, mut network) = Daemon::with_network(PLAIN);
    let mut client = daemon.connect(&options(packed, CTRL_VQ));
    let place = client.0.queues[2].take_place().unwrap();
    let inside = Buffer {
        address: place,
        length: 2,
    };
    let outside = Buffer {
        address: 1 << 50,
        length: 6,
    };
    let answer = Buffer {
        address: place + 100,
        length: 1,
    };
    assert_eq!(post(&mut client, 2, &[inside, outside], &[answer]), 1);
    assert_eq!(post(&mut client, 2, &[inside], &[outside]), 0);
    assert_eq!(client.0.device_config(6).unwrap(), PLAIN.mac);
    assert_goes_on(&mut client, &mut network);
    drop(daemon);
}

#[test]
fn no_pseudo_random_driver_breaks_the_device() {
    let mut numbers = Numbers(1);
    let (mut incoming, mut outgoing) = (0, 0);
    for _ in 0..200 {
        let words = numbers.next() % 60;
        let input = numbers.bytes(words);
        let (more_in, more_out) = arbitrary::run(&input);
        incoming += more_in;
        outgoing += more_out;
    }
    assert!(
        incoming > 50 && outgoing > 50,
        "too random: {incoming} in, {outgoing} out"
    );
}
