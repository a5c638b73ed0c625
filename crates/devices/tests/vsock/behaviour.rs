//! Connections in both directions, streams and messages, with credit.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use devices::vsock::check_cid;
use rstest::rstest;
use rustix::io::{Errno, read, write};

use crate::driver::*;

#[rstest]
fn the_configuration_is_the_cid(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let mut client = daemon.connect(&options(packed));
    assert_eq!(client.guest.device_config(8).unwrap(), GUEST.to_le_bytes());
    assert_eq!(client.guest.features() & 0b11, 0b11);
}

#[rstest]
fn a_guest_reaches_the_unix_socket_of_a_port(
    #[values(false, true)] packed: bool,
    #[values(1000, 1 << 16)] descriptor_bytes: u32,
) {
    let daemon = Daemon::new();
    let listener = daemon.listen(5000);
    let mut client = daemon.connect(&::driver::Options {
        descriptor_bytes,
        ..options(packed)
    });
    client.give_buffers(8);
    let mut flow = client.open(STREAM, 1234, 5000);
    let (mut host, _) = listener.accept().unwrap();
    let bytes = pattern(0, 100_000);
    let (up, down) = bytes.split_at(40_000);
    client.write(&mut flow, up);
    let mut seen = vec![0; up.len()];
    host.read_exact(&mut seen).unwrap();
    assert_eq!(seen, up);
    std::thread::scope(|scope| {
        scope.spawn(|| host.write_all(down).unwrap());
        assert_eq!(client.read(&mut flow, down.len()), down);
    });
}

#[rstest]
fn a_host_program_reaches_a_port_of_the_guest(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let mut client = daemon.connect(&options(packed));
    client.give_buffers(8);
    // What it sends ahead is for the guest.
    let mut host = daemon.dial("CONNECT 22\nahead");
    let mut flow = client.accept();
    assert_eq!(flow.guest_port, 22);
    assert_eq!(line_of(&mut host), format!("OK {}\n", flow.host_port));
    assert_eq!(client.read(&mut flow, 5), b"ahead");
    client.write(&mut flow, b"answer");
    let mut seen = [0; 6];
    host.read_exact(&mut seen).unwrap();
    assert_eq!(&seen, b"answer");
}

/// VS-2, and no such socket, or one of another type.
#[rstest]
fn a_port_that_nobody_listens_on_is_refused(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let mut client = daemon.connect(&options(packed));
    client.give_buffers(8);
    let _other_type = daemon.listen(7);
    drop(daemon.listen(8));
    for (kind, port) in [(STREAM, 6), (SEQPACKET, 7), (STREAM, 8), (3, 7)] {
        let mut flow = Flow::new(kind, 1, port);
        client.send(&flow.packet(REQUEST, 0, 0), &[]);
        client.expect(&mut flow, RST);
    }
}

#[rstest]
fn a_host_program_that_the_guest_refuses_is_disconnected(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let mut client = daemon.connect(&options(packed));
    client.give_buffers(8);
    let mut host = daemon.dial("CONNECT 22\n");
    let (packet, _) = client.receive();
    let flow = Flow::new(STREAM, packet.destination.1, packet.source.1);
    client.send(&flow.packet(RST, 0, 0), &[]);
    assert_eq!(line_of(&mut host), "");
}

#[rstest]
fn a_line_that_names_no_port_is_the_end_of_its_program(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let mut client = daemon.connect(&options(packed));
    client.give_buffers(8);
    for line in ["CONNECT x\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"] {
        // Reset, where the device left something unread.
        let ended = daemon.dial(line).read(&mut [0; 8]);
        assert!(ended.is_err() || ended.unwrap() == 0);
    }
    drop(daemon.dial("CONN"));
    client.assert_quiet();
}

/// A guest message is one message of the host whatever packets it came in, and the other way round. Empty ones too.
#[rstest]
fn messages_keep_their_boundaries(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let listener = daemon.listen_for_messages(9);
    let mut client = daemon.connect(&options(packed));
    client.give_buffers(16);
    let mut flow = client.open(SEQPACKET, 1, 9);
    let host = accept_messages(&listener);
    let bytes = pattern(0, 60_000);
    let mut space = vec![0; 1 << 17];
    for parts in [&[10_usize][..], &[1, 2, 3], &[0], &[30_000, 30_000], &[0, 5, 0]] {
        let total: usize = parts.iter().sum();
        let mut rest = &bytes[..total];
        for (index, &part) in parts.iter().enumerate() {
            let (now, later) = rest.split_at(part);
            let flags = if index + 1 == parts.len() { EOM } else { 0 };
            client.send(&flow.packet(RW, flags, part as u32), now);
            rest = later;
        }
        let length = read(&host, &mut space[..]).unwrap();
        assert_eq!(space[..length], bytes[..total]);
    }
    for length in [1_usize, 4000, 4053, 0, 60_000, 7] {
        assert_eq!(write(&host, &bytes[..length]).unwrap(), length);
    }
    for length in [1_usize, 4000, 4053, 0, 60_000, 7] {
        assert_eq!(client.read_message(&mut flow), bytes[..length]);
    }
}

/// It would wait for ever: VS-3.
#[rstest]
fn a_message_that_no_buffer_of_the_guest_holds_ends_the_connection(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let listener = daemon.listen_for_messages(9);
    let mut client = daemon.connect(&options(packed));
    client.give_buffers(16);
    let mut flow = client.open(SEQPACKET, 1, 9);
    let host = accept_messages(&listener);
    write(&host, &vec![0; CREDIT as usize + 1]).unwrap();
    client.expect(&mut flow, RST);
    assert!(matches!(read(&host, &mut [0; 8]), Ok(0) | Err(Errno::CONNRESET)));
}

#[rstest]
fn without_the_feature_there_are_no_messages(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let _listener = daemon.listen_for_messages(9);
    let mut wanted = options(packed);
    wanted.features &= !F_SEQPACKET;
    let mut client = daemon.connect(&wanted);
    client.give_buffers(4);
    let mut flow = Flow::new(SEQPACKET, 1, 9);
    client.send(&flow.packet(REQUEST, 0, 0), &[]);
    client.expect(&mut flow, RST);
}

/// VS-3: not a byte more than the guest gave room for, until it gives more.
#[rstest]
fn the_guest_gets_no_more_than_its_credit(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let mut client = daemon.connect(&options(packed));
    client.give_buffers(32);
    let mut host = daemon.dial("CONNECT 22\n");
    let mut flow = client.accept();
    line_of(&mut host);
    let bytes = pattern(0, CREDIT as usize + 10);
    std::thread::scope(|scope| {
        scope.spawn(|| host.write_all(&bytes).unwrap());
        let mut got = 0;
        loop {
            let (packet, data) = client.receive_of(&mut flow);
            match packet.operation {
                RW => {
                    assert_eq!(data, bytes[got..got + data.len()]);
                    got += data.len();
                }
                // VS-5: it asks before it waits.
                CREDIT_REQUEST => break,
                _ => panic!("{packet:?}"),
            }
        }
        assert_eq!(got, CREDIT as usize);
        client.assert_quiet();
        client.send(&flow.packet(CREDIT_UPDATE, 0, 0), &[]);
        assert_eq!(client.read(&mut flow, 10), bytes[got..]);
    });
}

/// VS-4 and VS-5: what a program has not taken counts, and room is announced when there is some again.
#[rstest]
fn the_guest_learns_what_room_there_is(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let listener = daemon.listen(5000);
    let mut client = daemon.connect(&options(packed));
    client.give_buffers(8);
    let mut flow = client.open(STREAM, 1, 5000);
    let (mut host, _) = listener.accept().unwrap();
    let piece = pattern(0, 64 << 10);
    let mut sent = 0;
    // Until the socket and the device's buffer are full.
    while flow.room() > 0 {
        let room = piece.len().min(flow.room() as usize);
        client.send(&flow.packet(RW, 0, room as u32), &piece[..room]);
        flow.sent += room as u32;
        sent += room;
        client.send(&flow.packet(CREDIT_REQUEST, 0, 0), &[]);
        client.expect(&mut flow, CREDIT_UPDATE);
    }
    assert!(sent as u32 > flow.host_buffer, "a socket holds something too");
    let mut left = sent;
    let mut space = vec![0; 1 << 20];
    while left > 0 {
        left -= host.read(&mut space).unwrap();
    }
    while flow.room() < flow.host_buffer / 2 {
        client.expect(&mut flow, CREDIT_UPDATE);
    }
}

/// While one program reads nothing, others are served.
#[rstest]
fn a_slow_program_holds_nobody_up(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let listener = daemon.listen(5000);
    let mut client = daemon.connect(&options(packed));
    client.give_buffers(8);
    let slow = client.open(STREAM, 1, 5000);
    let (_slow_host, _) = listener.accept().unwrap();
    let mut other = client.open(STREAM, 2, 5000);
    let (mut other_host, _) = listener.accept().unwrap();
    let piece = pattern(0, 64 << 10);
    for _ in 0..slow.host_buffer as usize / piece.len() {
        client.send(&slow.packet(RW, 0, piece.len() as u32), &piece);
    }
    client.write(&mut other, b"quick");
    other_host.write_all(b"answer").unwrap();
    let mut seen = [0; 5];
    other_host.read_exact(&mut seen).unwrap();
    assert_eq!(client.read(&mut other, 6), b"answer");
}

#[test]
fn reserved_cids_are_refused() {
    for cid in [0, 1, 2, u32::MAX] {
        let error = check_cid(cid).unwrap_err().to_string();
        assert!(error.contains(&cid.to_string()) && error.contains("choose"), "{error}");
    }
    assert!(check_cid(3).is_ok() && check_cid(u32::MAX - 1).is_ok());
}

/// A host program that connects before there is a guest waits for it.
#[rstest]
fn a_host_program_may_come_before_the_guest(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let mut host: UnixStream = daemon.dial("CONNECT 22\n");
    let mut client = daemon.connect(&options(packed));
    client.give_buffers(4);
    let flow = client.accept();
    assert_eq!(line_of(&mut host), format!("OK {}\n", flow.host_port));
}
