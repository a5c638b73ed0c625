//! Frames arrive as they were sent, in order, whatever the buffers look like.

use devices::net::features::{ALL_OFFLOADS, CTRL_GUEST_OFFLOADS, CTRL_VQ, MQ, MRG_RXBUF, MTU, STANDBY};
use devices::net::{Error, FRAME_MAX, NetDevice, NetOptions};
use rstest::rstest;
use virtqueue::features::IN_ORDER;

use crate::driver::{Daemon, HEADER, PLAIN, await_that, frame, network, options};

/// VIRTIO 1.1 5.1.4: address, status, number of pairs, MTU.
#[rstest]
fn the_configuration_has_address_link_pairs_and_mtu(#[values(false, true)] packed: bool) {
    let given = NetOptions {
        mtu: Some(1400),
        standby: true,
        ..PLAIN
    };
    let (daemon, _network) = Daemon::with_network(given);
    let mut client = daemon.connect(&options(packed, MTU | STANDBY));
    let config = client.0.device_config(12).unwrap();
    assert_eq!(config, [2, 0, 0, 0, 0, 1, 1, 0, 1, 0, 0x78, 0x05]);
    assert_eq!(client.0.features() & (MTU | STANDBY), MTU | STANDBY);
}

/// What a port cannot carry is not offered.
#[rstest]
fn a_stream_has_no_offloads_and_one_pair(#[values(false, true)] packed: bool) {
    let (daemon, _network) = Daemon::with_network(PLAIN);
    let none = ALL_OFFLOADS | CTRL_GUEST_OFFLOADS | MQ | MTU | STANDBY;
    let client = daemon.connect(&options(packed, u64::MAX >> 1 & !(1 << 30)));
    assert_eq!(client.0.features() & none, 0);
}

/// VIRTIO 1.1 2.6.4: no device may depend on how a chain is cut.
#[rstest]
fn frames_go_out_whole_and_in_order(
    #[values(false, true)] packed: bool,
    #[values(0, IN_ORDER)] features: u64,
    #[values(5, 13, 1 << 16)] descriptor_bytes: u32,
) {
    let (daemon, mut network) = Daemon::with_network(PLAIN);
    let mut client = daemon.connect(&::driver::Options {
        descriptor_bytes,
        ..options(packed, features)
    });
    for (seed, length) in [14, 60, 61, 500].into_iter().enumerate() {
        client.send(&frame(seed as u8, length));
        assert_eq!(network.receive(), frame(seed as u8, length));
    }
    daemon.await_count(|counts| &counts.sent, 4);
}

/// The socket takes less than a frame at a time, and no more while nobody reads.
#[rstest]
fn frames_wait_for_a_network_that_is_full(#[values(false, true)] packed: bool) {
    let (daemon, mut network) = Daemon::with_network(PLAIN);
    let mut client = daemon.connect(&options(packed, 0));
    let frames: Vec<_> = (0..30).map(|seed| frame(seed, FRAME_MAX)).collect();
    for frame in &frames {
        let chain = [&[0; HEADER][..], frame].concat();
        client.0.queues[1].submit(&chain, 0).unwrap();
    }
    for frame in frames {
        assert!(network.receive() == frame);
    }
    for _ in 0..30 {
        client.0.queues[1].wait().unwrap();
    }
}

#[rstest]
fn without_mergeable_buffers_a_frame_takes_one_chain(
    #[values(false, true)] packed: bool,
    #[values(5, 1 << 16)] descriptor_bytes: u32,
) {
    let (daemon, mut network) = Daemon::with_network(PLAIN);
    let mut client = daemon.connect(&::driver::Options {
        descriptor_bytes,
        ..options(packed, 0)
    });
    for length in [14, 60, 500] {
        client.offer(512);
        network.send(&frame(7, length));
        let (header, chains) = client.receive();
        assert_eq!(header, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        assert_eq!(chains, [frame(7, length)]);
    }
}

/// A frame that is cut would be another frame.
#[rstest]
fn without_mergeable_buffers_a_frame_that_does_not_fit_is_dropped(#[values(false, true)] packed: bool) {
    let (daemon, mut network) = Daemon::with_network(PLAIN);
    let mut client = daemon.connect(&options(packed, 0));
    client.offer(HEADER as u32 + 99);
    for _ in 0..300 {
        network.send(&frame(1, 100));
    }
    network.send(&frame(2, 99));
    assert_eq!(client.receive().1, [frame(2, 99)]);
    assert_eq!(daemon.count(|counts| &counts.unplaced), 300);
}

/// VIRTIO 1.1 5.1.6.4.2: the header is in the first chain, and all but the last are filled.
#[rstest]
fn a_frame_takes_as_many_chains_as_it_needs(
    #[values(false, true)] packed: bool,
    #[values(0, IN_ORDER)] features: u64,
    #[values(300, 1000, 1 << 16)] descriptor_bytes: u32,
) {
    let (daemon, mut network) = Daemon::with_network(PLAIN);
    let mut client = daemon.connect(&::driver::Options {
        descriptor_bytes,
        ..options(packed, MRG_RXBUF | features)
    });
    for round in 0..40 {
        for _ in 0..12 {
            client.offer(1000);
        }
        network.send(&frame(round, 100));
        network.send(&frame(round, 3500));
        network.send(&frame(round, 988));
        network.send(&frame(round, 989));
        network.send(&frame(round, 4000));
        for (length, count) in [(100, 1), (3500, 4), (988, 1), (989, 2)] {
            let (header, chains) = client.receive();
            assert_eq!(header[10..], [count, 0]);
            let lengths: Vec<_> = chains.iter().map(Vec::len).collect();
            let (last, full) = lengths.split_last().unwrap();
            let filled = full
                .iter()
                .enumerate()
                .all(|(at, &length)| length == if at == 0 { 988 } else { 1000 });
            assert!(filled && *last > 0, "{lengths:?}");
            assert_eq!(chains.concat(), frame(round, length));
        }
        // Four chains are left, and this one needs five.
        client.offer(1000);
        match daemon.count(|counts| &counts.unplaced) {
            0 => assert_eq!(client.receive().1.concat(), frame(round, 4000)),
            _ => return,
        }
    }
}

/// It must not hold up the smaller ones behind it for ever.
#[rstest]
fn a_frame_that_the_ring_has_no_space_for_is_given_up(#[values(false, true)] packed: bool) {
    let (daemon, mut network) = Daemon::with_network(PLAIN);
    let mut client = daemon.connect(&options(packed, MRG_RXBUF));
    client.offer(1000);
    client.offer(1000);
    network.send(&frame(1, 5000));
    network.send(&frame(2, 1500));
    assert_eq!(client.receive().1.concat(), frame(2, 1500));
    assert_eq!(daemon.count(|counts| &counts.unplaced), 1);
}

/// A frame that waits for buffers outlasts a pause, and takes none of them away.
#[rstest]
fn a_frame_that_waits_takes_no_buffers(#[values(false, true)] packed: bool, #[values(0, IN_ORDER)] features: u64) {
    let (daemon, mut network) = Daemon::with_network(PLAIN);
    let mut client = daemon.connect(&options(packed, MRG_RXBUF | features));
    for round in 0..20 {
        client.offer(1000);
        network.send(&frame(round, 1500));
        let base = client.0.stop(0).unwrap();
        assert_eq!(client.0.queues[0].poll().unwrap(), None);
        client.0.start(0, base).unwrap();
        client.offer(1000);
        // It is given up instead if this test is slow.
        let done = || daemon.count(|counts| &counts.received) + daemon.count(|counts| &counts.unplaced);
        await_that(|| done() > round.into());
        if daemon.count(|counts| &counts.unplaced) > 0 {
            return;
        }
        assert_eq!(client.receive().1.concat(), frame(round, 1500));
    }
}

/// Queues in the device would only grow: what the guest has no buffers for stays where it came from.
#[rstest]
fn without_buffers_frames_stay_in_the_network(#[values(false, true)] packed: bool) {
    let (daemon, mut network) = Daemon::with_network(PLAIN);
    let mut client = daemon.connect(&options(packed, MRG_RXBUF));
    for seed in 0..30 {
        network.send(&frame(seed, 1000));
    }
    for seed in 0..30 {
        client.offer(1100);
        assert_eq!(client.receive().1, [frame(seed, 1000)]);
    }
}

/// VIRTIO 1.1 5.1.4.2: no frame may be longer than the MTU, with an Ethernet header and a VLAN tag.
#[rstest]
fn frames_beyond_the_mtu_are_dropped(#[values(false, true)] packed: bool, #[values(0, MRG_RXBUF)] features: u64) {
    let given = NetOptions {
        mtu: Some(1000),
        ..PLAIN
    };
    let (daemon, mut network) = Daemon::with_network(given);
    let mut client = daemon.connect(&options(packed, MTU | features));
    client.offer(4000);
    network.send(&frame(1, 1019));
    network.send(&frame(2, 1018));
    assert_eq!(client.receive().1, [frame(2, 1018)]);
    daemon.await_count(|counts| &counts.unsuitable, 1);
}

#[rstest]
fn the_link_goes_down_with_the_network(#[values(false, true)] packed: bool) {
    let (daemon, network) = Daemon::with_network(PLAIN);
    let mut client = daemon.connect(&options(packed, MRG_RXBUF));
    client.offer(1100);
    drop(network);
    await_that(|| client.0.device_config(8).unwrap()[6..] == [0, 0]);
    client.send(&frame(1, 60));
    assert_eq!(daemon.count(|counts| &counts.refused), 1);
}

/// A network that goes away in the middle of a frame, and one that sends nonsense.
#[rstest]
fn a_network_that_breaks_off_or_lies_is_lost(
    #[values(false, true)] packed: bool,
    #[values(&[0, 0, 4, 0, 1, 2, 3][..], &[0xff; 40][..])] bytes: &[u8],
) {
    let (daemon, mut network) = Daemon::with_network(PLAIN);
    let mut client = daemon.connect(&options(packed, MRG_RXBUF));
    client.offer(2000);
    std::io::Write::write_all(&mut network.0, bytes).unwrap();
    network.0.shutdown(std::net::Shutdown::Write).unwrap();
    await_that(|| client.0.device_config(8).unwrap()[6..] == [0, 0]);
}

/// The stream goes on in the middle of a frame with the next guest.
#[rstest]
fn the_next_guest_gets_whole_frames(#[values(false, true)] packed: bool) {
    let (daemon, mut network) = Daemon::with_network(PLAIN);
    let message = [&100_u32.to_be_bytes()[..], &frame(1, 100)].concat();
    let (now, later) = message.split_at(50);
    {
        let mut client = daemon.connect(&options(packed, CTRL_VQ));
        client.offer(200);
        network.send(&frame(0, 60));
        std::io::Write::write_all(&mut network.0, now).unwrap();
        assert_eq!(client.receive().1, [frame(0, 60)]);
        client.offer(200);
    }
    let mut client = daemon.connect(&options(packed, 0));
    client.offer(200);
    std::io::Write::write_all(&mut network.0, later).unwrap();
    assert_eq!(client.receive().1, [frame(1, 100)]);
}

#[test]
fn options_that_no_guest_can_use_are_refused() {
    let refused = |options| NetDevice::new(vec![network().0], options).err().unwrap();
    let multicast = refused(NetOptions {
        mac: [1, 0, 0, 0, 0, 0],
        ..PLAIN
    });
    assert!(matches!(multicast, Error::Multicast(_)), "{multicast}");
    let none = refused(NetOptions { mac: [0; 6], ..PLAIN });
    assert!(matches!(none, Error::NoMac), "{none}");
    let mtu = refused(NetOptions { mtu: Some(67), ..PLAIN });
    assert!(matches!(mtu, Error::Mtu(67)), "{mtu}");
    assert!(matches!(NetDevice::new(Vec::new(), PLAIN).err(), Some(Error::Pairs(0))));
}
