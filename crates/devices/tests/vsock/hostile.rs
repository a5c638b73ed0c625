//! A driver that breaks the rules loses its connection, its packet or its queue.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

use rstest::rstest;
use virtqueue::Buffer;

use crate::arbitrary;
use crate::driver::*;
use crate::numbers::Numbers;

fn connected(daemon: &Daemon, packed: bool) -> (Client, Flow, UnixStream) {
    let listener = daemon.listen(5000);
    let mut client = daemon.connect(&options(packed));
    client.give_buffers(8);
    let flow = client.open(STREAM, 1, 5000);
    let (host, _) = listener.accept().unwrap();
    std::fs::remove_file(daemon.path_of(5000)).unwrap();
    (client, flow, host)
}

/// VS-1, VS-7, VS-10: each of these is the end of a connection.
#[rstest]
fn a_wrong_packet_ends_its_connection(#[values(false, true)] packed: bool, #[values(0, 1, 2, 3, 4, 5, 6)] which: u8) {
    let daemon = Daemon::new();
    let (mut client, mut flow, mut host) = connected(&daemon, packed);
    let packet = |operation, length| flow.packet(operation, 0, length);
    let (wrong, payload): (_, &[u8]) = match which {
        // Lengths that lie.
        0 => (packet(RW, 5), b"four"),
        1 => (packet(RW, 3), b"four"),
        2 => (packet(RW, u32::MAX), b""),
        // No operation, or not now.
        3 => (packet(0, 0), b""),
        4 => (packet(99, 0), b""),
        5 => (packet(RESPONSE, 0), b""),
        // The guest knows nothing of the first.
        _ => (packet(REQUEST, 0), b""),
    };
    client.send(&wrong, payload);
    client.expect(&mut flow, RST);
    assert_eq!(host.read(&mut [0; 1]).unwrap(), 0);
    client.send(&flow.packet(RW, 0, 1), b"x");
    client.expect(&mut flow, RST);
}

#[rstest]
fn another_type_on_a_connection_is_its_end(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let (mut client, mut flow, mut host) = connected(&daemon, packed);
    let mut packet = flow.packet(RW, 0, 1);
    packet.kind = SEQPACKET;
    client.send(&packet, b"x");
    client.expect(&mut flow, RST);
    assert_eq!(host.read(&mut [0; 1]).unwrap(), 0);
}

#[rstest]
fn data_behind_the_guests_end_is_the_end(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let (mut client, mut flow, _host) = connected(&daemon, packed);
    client.send(&flow.packet(SHUTDOWN, NO_SEND, 0), &[]);
    client.send(&flow.packet(RW, 0, 1), b"x");
    client.expect(&mut flow, RST);
}

/// VS-6.
#[rstest]
fn more_than_the_credit_ends_the_connection(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let (mut client, mut flow, _host) = connected(&daemon, packed);
    let piece = vec![0; 64 << 10];
    // More than the device and any socket of the host hold.
    for _ in 0..64 {
        client.send(&flow.packet(RW, 0, piece.len() as u32), &piece);
    }
    client.expect(&mut flow, RST);
}

/// VS-1: not by the name of another guest, and nobody but the host is there.
#[rstest]
fn other_cids_are_out_of_reach(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let listener = daemon.listen(5000);
    let mut client = daemon.connect(&options(packed));
    client.give_buffers(8);
    for cid in [0, 1, HOST, GUEST + 1, u64::MAX, GUEST | 1 << 32] {
        let mut packet = Flow::new(STREAM, 1, 5000).packet(REQUEST, 0, 0);
        packet.source.0 = cid;
        client.send(&packet, &[]);
    }
    client.assert_quiet();
    for cid in [0, 1, GUEST, u64::MAX, HOST | 1 << 32] {
        let mut packet = Flow::new(STREAM, 1, 5000).packet(REQUEST, 0, 0);
        packet.destination.0 = cid;
        client.send(&packet, &[]);
        let (_, _, bytes) = client.guest.queues[0].wait().unwrap();
        client.give_buffers(1);
        assert_eq!(bytes[..8], cid.to_le_bytes(), "it answers");
        assert_eq!(bytes[30], RST as u8);
    }
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err());
}

/// The two sides would not stop.
#[rstest]
fn a_reset_is_not_answered(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let mut client = daemon.connect(&options(packed));
    client.give_buffers(8);
    client.send(&Flow::new(STREAM, 1, 1).packet(RST, 0, 0), &[]);
    client.assert_quiet();
}

#[rstest]
fn packets_without_a_whole_header_are_dropped(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let (mut client, mut flow, _host) = connected(&daemon, packed);
    let header = flow.packet(CREDIT_REQUEST, 0, 0).bytes();
    for length in [0, 1, HEADER - 1] {
        let queue = &mut client.guest.queues[1];
        let (written, _) = queue.call(&header[..length], 16).unwrap();
        assert_eq!(written, 0);
    }
    client.send(&flow.packet(CREDIT_REQUEST, 0, 0), &[]);
    client.expect(&mut flow, CREDIT_UPDATE);
}

/// Buffers that hold no packet come back empty, and lose no data.
#[rstest]
fn rx_buffers_that_are_too_small_lose_nothing(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let listener = daemon.listen(5000);
    let mut client = daemon.connect(&options(packed));
    client.give_buffers(1);
    let mut flow = client.open(STREAM, 1, 5000);
    let (mut host, _) = listener.accept().unwrap();
    let base = client.guest.stop(0).unwrap();
    host.write_all(b"whole").unwrap();
    client.guest.start(0, base).unwrap();
    assert_eq!(client.read(&mut flow, 5), b"whole");
    // The buffer that `read` gave takes no more than this.
    host.write_all(b"next").unwrap();
    let (_, _, bytes) = client.guest.queues[0].wait().unwrap();
    assert_eq!(&bytes[HEADER..], b"next");
    for space in [10, HEADER as u32] {
        client.guest.queues[0].submit(&[], space).unwrap();
    }
    let place = client.guest.queues[0].take_place().unwrap();
    let buffers = [(place, HEADER as u32), (1 << 50, 100)].map(|(address, length)| Buffer { address, length });
    client.guest.queues[0].ring().post(&[], &buffers).unwrap();
    client.guest.queues[0].kick().unwrap();
    host.write_all(b"last").unwrap();
    for _ in 0..3 {
        assert_eq!(client.guest.queues[0].wait().unwrap().1, 0);
    }
    client.give_buffers(1);
    let (_, _, bytes) = client.guest.queues[0].wait().unwrap();
    assert_eq!(&bytes[HEADER..], b"last");
}

#[rstest]
fn a_payload_outside_of_memory_ends_the_connection(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let (mut client, mut flow, mut host) = connected(&daemon, packed);
    let queue = &mut client.guest.queues[1];
    let place = queue.take_place().unwrap();
    let buffers = [(place, HEADER as u32), (1 << 50, 100)].map(|(address, length)| Buffer { address, length });
    client
        .guest
        .memory()
        .write(place, &flow.packet(RW, 0, 100).bytes())
        .unwrap();
    let queue = &mut client.guest.queues[1];
    queue.ring().post(&buffers, &[]).unwrap();
    queue.kick().unwrap();
    queue.wait().unwrap();
    client.expect(&mut flow, RST);
    assert_eq!(host.read(&mut [0; 1]).unwrap(), 0);
}

/// Credit does not count them.
#[rstest]
fn empty_messages_have_a_bound(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let listener = daemon.listen_for_messages(9);
    let mut client = daemon.connect(&options(packed));
    client.give_buffers(8);
    let mut flow = client.open(SEQPACKET, 1, 9);
    let _host = accept_messages(&listener);
    // More than a socket holds and may wait.
    for _ in 0..2000 {
        client.send(&flow.packet(RW, EOM, 0), &[]);
    }
    client.expect(&mut flow, RST);
}

/// A program that is killed after each request, by the thousand.
#[rstest]
fn a_flood_of_requests_is_bounded(#[values(false, true)] packed: bool) {
    let daemon = Daemon::with_connections(100);
    let _listener = daemon.listen(5000);
    let mut client = daemon.connect(&options(packed));
    client.give_buffers(32);
    let (mut stood, mut refused) = (0, 0);
    for port in 0..1000 {
        let mut flow = Flow::new(STREAM, port, 5000);
        client.send(&flow.packet(REQUEST, 0, 0), &[]);
        match client.receive_of(&mut flow).0.operation {
            RESPONSE => stood += 1,
            RST => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert!(
        stood > 0 && stood <= 100 && stood + refused == 1000,
        "{stood}, {refused}"
    );
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
    let (mut stood, mut ended, mut data) = (0, 0, 0);
    for _ in 0..60 {
        let words = 20 + numbers.next() % 200;
        let input = numbers.bytes(words);
        let outcome = arbitrary::run(&input);
        stood += outcome.stood;
        ended += outcome.ended;
        data += outcome.data;
    }
    assert!(
        stood > 50 && ended > 50 && data > 50,
        "the drivers are too random to show anything: {stood} connections, {ended} ends, {data} packets of data"
    );
}
