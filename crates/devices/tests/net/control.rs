//! The control queue (VIRTIO 1.1 5.1.6.5).

use devices::net::features::{CTRL_MAC_ADDR, CTRL_VQ, MQ, MRG_RXBUF};
use rstest::rstest;

use crate::driver::{Client, Daemon, PLAIN, frame, network, options};

const CONTROL: usize = 2;

/// Pairs of the device.
const PAIRS: u16 = 3;
const CONTROL_OF_PAIRS: usize = 2 * PAIRS as usize;

fn several(packed: bool) -> ::driver::Options {
    ::driver::Options {
        queues: 2 * PAIRS + 1,
        ..options(packed, CTRL_VQ | MQ | MRG_RXBUF)
    }
}

fn set_pairs(client: &mut Client, count: u16) -> bool {
    client.command(CONTROL_OF_PAIRS, 4, 0, &count.to_le_bytes())
}

/// The address is in the configuration before the command is used.
#[rstest]
fn the_mac_address_is_what_the_driver_set_until_reset(#[values(false, true)] packed: bool) {
    let (daemon, _network) = Daemon::with_network(PLAIN);
    let mut client = daemon.connect(&options(packed, CTRL_VQ | CTRL_MAC_ADDR));
    let new = [2, 9, 8, 7, 6, 5];
    assert!(client.command(CONTROL, 1, 1, &new));
    assert_eq!(client.0.device_config(6).unwrap(), new);
    assert!(!client.command(CONTROL, 1, 1, &new[..5]));
    assert!(!client.command(CONTROL, 1, 1, &[0; 7]));
    assert_eq!(client.0.device_config(6).unwrap(), new);
    drop(client);
    let mut next = daemon.connect(&options(packed, CTRL_VQ));
    assert_eq!(next.0.device_config(6).unwrap(), PLAIN.mac);
    assert!(!next.command(CONTROL, 1, 1, &new), "not negotiated");
}

#[rstest]
fn unknown_short_and_long_commands_are_refused(#[values(false, true)] packed: bool) {
    let (daemon, _network) = Daemon::with_network(PLAIN);
    let mut client = daemon.connect(&options(packed, CTRL_VQ));
    for (class, command) in [(0, 0), (2, 0), (3, 0), (4, 0), (5, 0), (255, 255)] {
        assert!(!client.command(CONTROL, class, command, &[0; 8]));
    }
    assert!(!client.command(CONTROL, 1, 1, &[0; 20_000]));
    let queue = &mut client.0.queues[CONTROL];
    assert_eq!(queue.call(&[1], 1).unwrap(), (1, vec![1]), "without a command");
    assert_eq!(queue.call(&[], 1).unwrap(), (1, vec![1]), "without a class");
    assert_eq!(
        queue.call(&[1, 1, 2, 0, 0, 0, 0, 9], 0).unwrap(),
        (0, Vec::new()),
        "without an answer"
    );
}

/// Queues of pairs that are not in use get no frame, from the moment on at which the command is used.
#[rstest]
fn as_many_pairs_are_used_as_the_driver_says(#[values(false, true)] packed: bool) {
    let (ports, mut networks): (Vec<_>, Vec<_>) = (0..PAIRS).map(|_| network()).unzip();
    let daemon = Daemon::new(ports, PLAIN);
    let mut client = daemon.connect(&several(packed));
    assert_eq!(client.0.device_config(12).unwrap()[8..10], [3, 0]);
    for wrong in [0, PAIRS + 1, 0x8000] {
        assert!(!set_pairs(&mut client, wrong));
    }
    for (pair, network) in networks.iter_mut().enumerate() {
        for _ in 0..2 {
            client.0.queues[2 * pair].submit(&[], 200).unwrap();
        }
        network.send(&frame(pair as u8, 100));
    }
    let received = |client: &mut Client, pair: usize| client.0.queues[2 * pair].wait().unwrap().2.split_off(12);
    assert_eq!(received(&mut client, 0), frame(0, 100));
    assert_eq!(daemon.count(|counts| &counts.received), 1);
    assert!(set_pairs(&mut client, PAIRS));
    for (pair, network) in networks.iter_mut().enumerate().skip(1) {
        assert_eq!(received(&mut client, pair), frame(pair as u8, 100));
        let chain = [&[0; 12][..], &frame(9, 60)].concat();
        client.0.queues[2 * pair + 1].call(&chain, 0).unwrap();
        assert_eq!(network.receive(), frame(9, 60));
    }
    assert!(set_pairs(&mut client, 1));
    networks[1].send(&frame(1, 100));
    networks[0].send(&frame(0, 100));
    assert_eq!(received(&mut client, 0), frame(0, 100));
    assert_eq!(client.0.queues[2].poll().unwrap(), None);
    let chain = [&[0; 12][..], &frame(9, 60)].concat();
    client.0.queues[3].call(&chain, 0).unwrap();
    daemon.await_count(|counts| &counts.refused, 1);
}

/// As with QEMU, which keeps the control queue to itself.
#[rstest]
fn without_the_control_queue_a_pair_is_used_from_the_first_frame_on(#[values(false, true)] packed: bool) {
    let (ports, mut networks): (Vec<_>, Vec<_>) = (0..PAIRS).map(|_| network()).unzip();
    let daemon = Daemon::new(ports, PLAIN);
    let mut client = daemon.connect(&::driver::Options {
        queues: 2 * PAIRS,
        ..several(packed)
    });
    let chain = [&[0; 12][..], &frame(9, 60)].concat();
    client.0.queues[3].call(&chain, 0).unwrap();
    assert_eq!(networks[1].receive(), frame(9, 60));
    client.0.queues[2].submit(&[], 200).unwrap();
    networks[1].send(&frame(1, 100));
    assert_eq!(client.0.queues[2].wait().unwrap().2.split_off(12), frame(1, 100));
}
