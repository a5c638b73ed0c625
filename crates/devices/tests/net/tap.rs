//! A real tap interface, in a network namespace of its own: the host's network stack is the peer.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;

use devices::net::features::{ALL_OFFLOADS, CTRL_GUEST_OFFLOADS, CTRL_VQ, GUEST_CSUM, MQ, MRG_RXBUF};
use devices::net::open_tap;

use crate::driver::{Client, Daemon, HEADER, LIMIT, PLAIN, await_that, options};

const HOST: Ipv4Addr = Ipv4Addr::new(10, 9, 8, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 9, 8, 2);
const GUEST_MAC: [u8; 6] = PLAIN.mac;
const PORT: u16 = 4242;

/// Where the UDP header begins: behind Ethernet and IPv4.
const UDP: usize = 34;
const PAYLOAD: usize = UDP + 8;

/// Only root makes interfaces, and only in a namespace they disturb nobody.
#[test]
fn the_host_and_a_guest_exchange_frames_by_a_tap() {
    let test = std::env::current_exe().unwrap();
    let run = |arguments: &[&str]| Command::new("unshare").arg("--net").args(arguments).status();
    let able = run(&["sh", "-c", "ip link set lo up && ip tuntap add dev probe mode tap"]);
    if !able.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: no tap interface can be made here (needs root, /dev/net/tun, unshare and ip)");
        return;
    }
    let test = test.to_string_lossy();
    let inside = run(&[&test, "--ignored", "--exact", "--test-threads=1", "tap::in_a_namespace"]);
    assert!(inside.unwrap().success());
}

#[test]
#[ignore = "another test starts it in a network namespace of its own"]
fn in_a_namespace() {
    for packed in [false, true] {
        datagrams_go_both_ways(packed, 0, 1);
        datagrams_go_both_ways(packed, MRG_RXBUF, 1);
        datagrams_go_both_ways(packed, MRG_RXBUF | ALL_OFFLOADS, 1);
        datagrams_go_both_ways(packed, MRG_RXBUF | ALL_OFFLOADS | CTRL_VQ | CTRL_GUEST_OFFLOADS | MQ, 2);
    }
    what_cannot_be_used_is_refused();
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

fn what_cannot_be_used_is_refused() {
    let refused = |name: &str, pairs| open_tap(name, pairs).err().unwrap().to_string();
    assert!(refused("much-too-long-a-name", 1).contains("is no name"));
    assert!(refused("lo", 1).contains("is no tap interface"));
    ip("tuntap add dev single mode tap");
    assert!(refused("single", 2).contains("multi_queue"));
    let _used = open_tap("single", 1).unwrap();
    assert!(refused("single", 1).contains("in use"));
    ip("tuntap add dev several mode tap multi_queue");
    open_tap("several", 1).unwrap();
    open_tap("several", 2).unwrap();
}

/// With all of IPv4 done here, in the few lines that it takes.
fn datagrams_go_both_ways(packed: bool, features: u64, pairs: u16) {
    let daemon = Daemon::new(open_tap("tap9", pairs).unwrap(), PLAIN);
    ip("addr add 10.9.8.1/24 dev tap9");
    ip("link set tap9 up");
    ip("neigh replace 10.9.8.2 lladdr 02:00:00:00:00:01 dev tap9");
    let host_mac = mac_of("tap9").unwrap();
    let socket = UdpSocket::bind((HOST, PORT)).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut client = daemon.connect(&::driver::Options {
        queues: 2 * pairs + u16::from(features & CTRL_VQ != 0),
        ..options(packed, features)
    });
    for _ in 0..20 {
        client.offer(2000);
    }
    if features & CTRL_VQ != 0 {
        let control = 2 * usize::from(pairs);
        assert!(client.command(control, 4, 0, &pairs.to_le_bytes()));
        // Offloads go off and on.
        assert!(client.command(control, 5, 0, &0_u64.to_le_bytes()));
        assert!(client.command(control, 5, 0, &(features & GUEST_CSUM).to_le_bytes()));
        assert!(!client.command(control, 5, 0, &(1_u64 << 11).to_le_bytes()));
        assert!(client.command(control, 4, 0, &1_u16.to_le_bytes()));
    }

    // Without offloads the sum is complete, with them it is that of the pseudo header, and the host does the rest.
    let payload = b"from the guest";
    let (header, frame) = datagram(&host_mac, payload, features & ALL_OFFLOADS != 0);
    client.send_with(header, &frame);
    let mut received = [0; 100];
    let (length, from) = socket.recv_from(&mut received).unwrap();
    assert_eq!(&received[..length], payload);
    assert_eq!(from, (GUEST, PORT).into());

    socket.send_to(b"from the host", (GUEST, PORT)).unwrap();
    let (header, frame) = next_datagram(&mut client);
    assert!(frame[PAYLOAD..].starts_with(b"from the host"));
    if features & GUEST_CSUM == 0 {
        assert_eq!(header[..10], [0; 10]);
        assert_eq!(sum_of(&frame), 0xffff, "the host has completed the sum");
    } else {
        assert_eq!(header[0], 1, "the guest completes the sum");
        assert_eq!([header[6], header[8]], [UDP as u8, 6]);
    }
    drop(client);
    drop(daemon);
    await_that(|| mac_of("tap9").is_none());
}

/// The address of an interface. /sys is that of another namespace.
fn mac_of(interface: &str) -> Option<Vec<u8>> {
    let shown = Command::new("ip")
        .args(["link", "show", "dev", interface])
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let mac = shown
        .split_whitespace()
        .skip_while(|word| *word != "link/ether")
        .nth(1)?;
    Some(
        mac.split(':')
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect(),
    )
}

/// The next frame that is a datagram of the test: the host sends others on its own account.
fn next_datagram(client: &mut Client) -> (Vec<u8>, Vec<u8>) {
    loop {
        client.offer(2000);
        let (header, chains) = client.receive();
        let frame = chains.concat();
        if frame.len() > PAYLOAD && frame[12..14] == [8, 0] && frame[36..38] == PORT.to_be_bytes() {
            return (header, frame);
        }
    }
}

fn datagram(host_mac: &[u8], payload: &[u8], partial: bool) -> ([u8; HEADER], Vec<u8>) {
    let length = (8 + payload.len()) as u16;
    let mut frame = [host_mac, &GUEST_MAC, &[8, 0]].concat();
    let mut network = vec![0x45, 0];
    network.extend((20 + length).to_be_bytes());
    network.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    network.extend(GUEST.octets());
    network.extend(HOST.octets());
    let sum = !folded(&network);
    network[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(network);
    for field in [PORT, PORT, length, 0] {
        frame.extend(field.to_be_bytes());
    }
    frame.extend(payload);
    let mut header = [0; HEADER];
    let sum = if partial {
        (header[0], header[6], header[8]) = (1, UDP as u8, 6);
        folded(&pseudo_header(&frame))
    } else {
        !sum_of(&frame)
    };
    frame[UDP + 6..UDP + 8].copy_from_slice(&sum.to_be_bytes());
    (header, frame)
}

fn pseudo_header(frame: &[u8]) -> Vec<u8> {
    [&frame[26..34], &[0, 17], &frame[UDP + 4..UDP + 6]].concat()
}

/// The sum over a datagram: 0xffff if its checksum is right.
fn sum_of(frame: &[u8]) -> u16 {
    let length = usize::from(u16::from_be_bytes([frame[UDP + 4], frame[UDP + 5]]));
    folded(&[&pseudo_header(frame), &frame[UDP..UDP + length]].concat())
}

fn folded(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
