//! Much data, many connections, and a full rx queue.

use std::hash::{DefaultHasher, Hasher};
use std::io::{Read, Write};

use rstest::rstest;

use crate::driver::*;

const MEBIBYTES: usize = 64;

/// The pseudo-random bytes of a piece.
fn piece(number: usize) -> Vec<u8> {
    let mut state = number as u64 + 1;
    let step = |_| {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 32).to_le_bytes()
    };
    (0..(1 << 20) / 8).flat_map(step).collect()
}

#[rstest]
fn data_arrives_as_it_was_sent_and_comes_back(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let listener = daemon.listen(5000);
    let mut client = daemon.connect(&options(packed));
    client.give_buffers(32);
    let mut flow = client.open(STREAM, 1, 5000);
    let (mut host, _) = listener.accept().unwrap();
    let (mut sent, mut echoed) = (DefaultHasher::new(), DefaultHasher::new());
    std::thread::scope(|scope| {
        let host = scope.spawn(move || {
            let (mut seen, mut space) = (DefaultHasher::new(), vec![0; 1 << 20]);
            for _ in 0..MEBIBYTES {
                host.read_exact(&mut space).unwrap();
                seen.write(&space);
                host.write_all(&space).unwrap();
            }
            seen.finish()
        });
        for number in 0..MEBIBYTES {
            let bytes = piece(number);
            sent.write(&bytes);
            client.write(&mut flow, &bytes);
            echoed.write(&client.read(&mut flow, bytes.len()));
        }
        assert_eq!(host.join().unwrap(), sent.finish());
    });
    assert_eq!(echoed.finish(), sent.finish());
}

#[rstest]
fn hundreds_of_connections_stand_at_once(#[values(false, true)] packed: bool) {
    const COUNT: u32 = 500;
    let daemon = Daemon::new();
    let listener = daemon.listen(5000);
    let mut client = daemon.connect(&options(packed));
    client.give_buffers(32);
    let mut connections = Vec::new();
    for number in 0..COUNT / 2 {
        let flow = client.open(STREAM, 10_000 + number, 5000);
        connections.push((flow, listener.accept().unwrap().0));
        let mut host = daemon.dial(&format!("CONNECT {number}\n"));
        let flow = client.accept();
        assert_eq!(flow.guest_port, number);
        line_of(&mut host);
        connections.push((flow, host));
    }
    for (number, (_, host)) in connections.iter_mut().enumerate() {
        host.write_all(format!("{number:08}").as_bytes()).unwrap();
    }
    for (number, (flow, host)) in connections.iter_mut().enumerate() {
        assert_eq!(client.read(flow, 8), format!("{number:08}").as_bytes());
        client.write(flow, b"done");
        let mut seen = [0; 4];
        host.read_exact(&mut seen).unwrap();
    }
}

/// One connection at a time has its turn: none of them waits until another has sent all.
#[rstest]
fn connections_take_turns(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let mut client = daemon.connect(&options(packed));
    client.give_buffers(2);
    let mut open = |port: u32| {
        let mut host = daemon.dial(&format!("CONNECT {port}\n"));
        let flow = client.accept();
        line_of(&mut host);
        (flow, host)
    };
    let mut connections = [1, 2, 3].map(&mut open);
    let base = client.guest.stop(0).unwrap();
    for (_, host) in &mut connections {
        host.write_all(&[7; 20_000]).unwrap();
    }
    // The lane looks at all of its files before it takes the second of these.
    for _ in 0..2 {
        client.send(&connections[0].0.packet(CREDIT_UPDATE, 0, 0), &[]);
    }
    client.guest.start(0, base).unwrap();
    let mut counts = [0; 3];
    for _ in 0..6 {
        let (packet, _) = client.receive();
        counts[packet.destination.1 as usize - 1] += 1;
    }
    assert!(counts.iter().all(|&count| count > 0), "{counts:?}");
}

/// VS-9: packets are taken although the guest has no buffer for what comes of them, up to a bound, and beyond it once it has some.
#[rstest]
fn tx_goes_on_while_rx_is_full(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let listener = daemon.listen(5000);
    let mut client = daemon.connect(&options(packed));
    client.give_buffers(1);
    let mut flow = client.open(STREAM, 1, 5000);
    let (mut host, _) = listener.accept().unwrap();
    // It takes the only buffer, and there are none from here on.
    host.write_all(&[7; 100_000]).unwrap();
    let (_, _, first) = client.guest.queues[0].wait().unwrap();
    flow.received += (first.len() - HEADER) as u32;
    for _ in 0..100 {
        client.send(&flow.packet(CREDIT_REQUEST, 0, 0), &[]);
        client.send(&flow.packet(RW, 0, 4), b"data");
    }
    let mut seen = [0; 400];
    host.read_exact(&mut seen).unwrap();
    // Replies for no connection have a bound.
    let bound = 1024;
    let stray = Flow::new(STREAM, 9, 9).packet(CREDIT_UPDATE, 0, 0);
    for _ in 0..bound {
        client.send(&stray, &[]);
    }
    client.post(&stray, &[]);
    client.settle();
    client.settle();
    assert!(!client.poll_sent());
    client.give_buffers(8);
    client.wait_sent();
    let mut refused = 0;
    while refused < bound + 1 {
        let (packet, _) = client.receive();
        refused += u32::from(packet.operation == RST);
    }
    assert!(client.read(&mut flow, 50_000).iter().all(|&byte| byte == 7));
}

/// Each connection is an open file, and no more of them are opened than the budget allows.
#[rstest]
fn connections_have_a_budget(#[values(false, true)] packed: bool) {
    let daemon = Daemon::with_connections(3);
    let listener = daemon.listen(5000);
    let mut client = daemon.connect(&options(packed));
    client.give_buffers(8);
    let flows = [1, 2, 3].map(|port| client.open(STREAM, port, 5000));
    let _hosts = [(); 3].map(|()| listener.accept().unwrap());
    let mut over = Flow::new(STREAM, 4, 5000);
    client.send(&over.packet(REQUEST, 0, 0), &[]);
    client.expect(&mut over, RST);
    // A host program waits for its turn.
    let mut host = daemon.dial("CONNECT 22\n");
    client.assert_quiet();
    client.send(&flows[0].packet(RST, 0, 0), &[]);
    client.accept();
    assert!(line_of(&mut host).starts_with("OK "));
}
