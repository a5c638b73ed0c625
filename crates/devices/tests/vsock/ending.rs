//! Ends of connections, of one direction or both, by either side, and of all at once.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use rstest::rstest;

use crate::driver::*;

fn connected(daemon: &Daemon, packed: bool) -> (Client, Flow, UnixStream) {
    let listener = daemon.listen(5000);
    let mut client = daemon.connect(&options(packed));
    client.give_buffers(8);
    let flow = client.open(STREAM, 1, 5000);
    let (host, _) = listener.accept().unwrap();
    std::fs::remove_file(daemon.path_of(5000)).unwrap();
    (client, flow, host)
}

/// VS-8: the guest ends its direction, and the program answers after it has seen the end.
#[rstest]
fn a_guest_that_sends_no_more_still_receives(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let (mut client, mut flow, mut host) = connected(&daemon, packed);
    client.write(&mut flow, b"all of it");
    client.send(&flow.packet(SHUTDOWN, NO_SEND, 0), &[]);
    let mut seen = String::new();
    host.read_to_string(&mut seen).unwrap();
    assert_eq!(seen, "all of it");
    host.write_all(b"answer").unwrap();
    assert_eq!(client.read(&mut flow, 6), b"answer");
    drop(host);
    assert_eq!(client.expect(&mut flow, SHUTDOWN).0.flags, NO_SEND | NO_RECEIVE);
    client.send(&flow.packet(SHUTDOWN, NO_SEND | NO_RECEIVE, 0), &[]);
    client.expect(&mut flow, RST);
}

#[rstest]
fn a_program_that_sends_no_more_still_receives(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let (mut client, mut flow, mut host) = connected(&daemon, packed);
    host.write_all(b"all of it").unwrap();
    host.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut flow, 9), b"all of it");
    assert_eq!(client.expect(&mut flow, SHUTDOWN).0.flags, NO_SEND);
    client.write(&mut flow, b"answer");
    client.send(&flow.packet(SHUTDOWN, NO_SEND | NO_RECEIVE, 0), &[]);
    client.expect(&mut flow, RST);
    let mut seen = String::new();
    host.read_to_string(&mut seen).unwrap();
    assert_eq!(seen, "answer");
}

#[rstest]
fn a_guest_that_receives_no_more_breaks_the_programs_pipe(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let (mut client, mut flow, mut host) = connected(&daemon, packed);
    client.send(&flow.packet(SHUTDOWN, NO_RECEIVE, 0), &[]);
    assert_eq!(host.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    client.write(&mut flow, b"still");
    let mut seen = [0; 5];
    host.read_exact(&mut seen).unwrap();
    drop(host);
    assert_eq!(client.expect(&mut flow, SHUTDOWN).0.flags, NO_SEND | NO_RECEIVE);
}

/// VS-8: all that was sent before the end arrives, whatever the guest sends meanwhile.
#[rstest]
fn what_a_guest_sent_before_it_closed_arrives(#[values(false, true)] packed: bool, #[values(false, true)] gone: bool) {
    let daemon = Daemon::new();
    let (mut client, mut flow, mut host) = connected(&daemon, packed);
    let piece = vec![7; 64 << 10];
    let mut sent = 0;
    while flow.room() > 0 {
        let room = piece.len().min(flow.room() as usize);
        client.write(&mut flow, &piece[..room]);
        sent += room;
        client.send(&flow.packet(CREDIT_REQUEST, 0, 0), &[]);
        client.expect(&mut flow, CREDIT_UPDATE);
    }
    client.send(&flow.packet(SHUTDOWN, NO_SEND | NO_RECEIVE, 0), &[]);
    if gone {
        // Linux waits for 8 seconds, then it resets the connection.
        client.send(&flow.packet(RST, 0, 0), &[]);
    }
    let mut seen = Vec::new();
    host.read_to_end(&mut seen).unwrap();
    assert_eq!(seen.len(), sent);
    if !gone {
        client.expect(&mut flow, RST);
    }
    client.assert_quiet();
}

#[rstest]
fn a_program_that_is_killed_is_the_end_of_its_connection(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let (mut client, mut flow, mut host) = connected(&daemon, packed);
    host.write_all(b"last words").unwrap();
    drop(host);
    assert_eq!(client.read(&mut flow, 10), b"last words");
    assert_eq!(client.expect(&mut flow, SHUTDOWN).0.flags, NO_SEND | NO_RECEIVE);
    // As Linux does once all is read.
    client.send(&flow.packet(RST, 0, 0), &[]);
    client.assert_quiet();
}

#[rstest]
fn a_program_that_is_killed_before_the_guest_answers_is_reset(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let mut client = daemon.connect(&options(packed));
    client.give_buffers(8);
    let host = daemon.dial("CONNECT 22\n");
    let (packet, _) = client.receive();
    let mut flow = Flow::new(STREAM, 22, packet.source.1);
    drop(host);
    client.expect(&mut flow, RST);
    // Its answer came too late.
    client.send(&flow.packet(RESPONSE, 0, 0), &[]);
    client.expect(&mut flow, RST);
}

#[rstest]
fn a_program_that_was_sent_what_it_did_not_read_is_the_end_too(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let (mut client, mut flow, host) = connected(&daemon, packed);
    client.write(&mut flow, b"unread");
    drop(host);
    let (packet, _) = client.receive_of(&mut flow);
    assert!(matches!(packet.operation, RST | SHUTDOWN), "{packet:?}");
}

/// VIRTIO 1.2 5.10.6.7: the lane ended with its connections, and the guest was not reset.
#[rstest]
fn connections_that_are_lost_are_announced(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let (mut client, _flow, mut host) = connected(&daemon, packed);
    client.listen_for_events();
    let bases: Vec<_> = (0..3).map(|queue| client.guest.stop(queue).unwrap()).collect();
    // A front end that sets up the device anew.
    let features = client.guest.features() & !F_SEQPACKET | 1 << 30;
    client.guest.frontend().set_features(features).unwrap();
    for queue in [2, 0, 1] {
        client.guest.start(queue, bases[usize::from(queue)]).unwrap();
    }
    assert_eq!(client.event(), [0; 4]);
    assert_eq!(host.read(&mut [0; 1]).unwrap(), 0);
    client.assert_quiet();
}

/// QEMU has the event queue for itself. It is the same if that queue starts later than rx.
#[rstest]
fn without_an_event_queue_lost_connections_are_reset(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let listener = daemon.listen(5000);
    let mut client = daemon.connect(&::driver::Options {
        queues: 2,
        ..options(packed)
    });
    client.give_buffers(8);
    let mut flow = client.open(STREAM, 1, 5000);
    let _host = listener.accept().unwrap();
    let bases: Vec<_> = (0..2).map(|queue| client.guest.stop(queue).unwrap()).collect();
    let features = client.guest.features() & !F_SEQPACKET | 1 << 30;
    client.guest.frontend().set_features(features).unwrap();
    for (queue, base) in (0..2).zip(bases) {
        client.guest.start(queue, base).unwrap();
    }
    client.expect(&mut flow, RST);
}

/// A pause keeps connections.
#[rstest]
fn a_pause_keeps_connections(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let (mut client, mut flow, mut host) = connected(&daemon, packed);
    let bases: Vec<_> = (0..3).map(|queue| client.guest.stop(queue).unwrap()).collect();
    host.write_all(b"meanwhile").unwrap();
    for (queue, base) in (0..3).zip(bases) {
        client.guest.start(queue, base).unwrap();
    }
    assert_eq!(client.read(&mut flow, 9), b"meanwhile");
}

#[rstest]
fn the_next_guest_has_no_connection_of_the_last(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let (client, flow, mut host) = connected(&daemon, packed);
    drop(client);
    assert_eq!(host.read(&mut [0; 1]).unwrap(), 0);
    let mut client = daemon.connect(&options(packed));
    client.give_buffers(8);
    client.listen_for_events();
    client.assert_quiet();
    let mut flow = Flow::new(STREAM, flow.guest_port, flow.host_port);
    client.send(&flow.packet(RW, 0, 1), b"x");
    client.expect(&mut flow, RST);
}
