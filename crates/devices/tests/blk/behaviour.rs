//! A driver gets what VIRTIO 1.1 5.2 promises, on both ring formats and with both ways of doing I/O.

use devices::blk::{Engine, feature};
use rstest::rstest;

use crate::driver::{
    DISCARD, Daemon, Disk, FLUSH, GET_ID, IN, IO_ERROR, OK, OUT, SECTOR, UNSUPPORTED, WRITE_ZEROES, header, options,
    segment,
};

/// Sectors that differ from each other.
pub(crate) fn known(sectors: usize) -> Vec<u8> {
    (0..sectors * SECTOR)
        .map(|at| (at / SECTOR * 7 + at % SECTOR) as u8 | 1)
        .collect()
}

#[rstest]
fn sectors_are_read_and_written(
    #[values(false, true)] packed: bool,
    #[values(Engine::Auto, Engine::Threads)] engine: Engine,
    #[values(39, 512, 1 << 16)] descriptor_bytes: u32,
    #[values(false, true)] direct: bool,
) {
    let mut expected = known(64);
    let disk = Disk::new(&expected);
    let mut served = disk.options(engine);
    served.image.direct = direct;
    let daemon = Daemon::new(served);
    let mut client = daemon.connect(&::driver::Options {
        descriptor_bytes,
        ..options(packed)
    });
    let queue = &mut client.0.queues[0];
    let data = vec![0xab; 5 * SECTOR];
    let request = [header(OUT, 3), data.clone()].concat();
    assert_eq!(queue.call(&request, 1).unwrap(), (1, vec![OK]));
    expected[3 * SECTOR..8 * SECTOR].copy_from_slice(&data);
    let request = [header(OUT, 8), data[..8 * 64].repeat(8)].concat();
    assert_eq!(queue.call(&request, 1).unwrap(), (1, vec![OK]));
    expected[8 * SECTOR..16 * SECTOR].fill(0xab);
    for (sector, sectors) in [(0, 64), (8, 8), (63, 1), (5, 7), (64, 0)] {
        let (written, mut bytes) = queue.call(&header(IN, sector), (sectors * SECTOR) as u32 + 1).unwrap();
        assert_eq!(written as usize, sectors * SECTOR + 1);
        assert_eq!(bytes.pop(), Some(OK));
        let from = sector as usize * SECTOR;
        assert!(
            bytes == expected[from..from + sectors * SECTOR],
            "{sectors} sectors at {sector}"
        );
    }
    assert!(disk.bytes() == expected);
}

/// VIRTIO 1.1 5.2.6: requests may complete in any order.
#[rstest]
fn many_requests_are_in_flight_together(
    #[values(false, true)] packed: bool,
    #[values(Engine::Auto, Engine::Threads)] engine: Engine,
) {
    let bytes = known(512);
    let disk = Disk::new(&bytes);
    let daemon = disk.serve(engine);
    let mut client = daemon.connect(&options(packed));
    for round in 0..20 {
        let mut sectors = std::collections::HashMap::new();
        for number in 0..30 {
            let sector = (round * 31 + number * 17) % 512;
            sectors.insert(client.submit(IN, sector, &[], SECTOR), sector);
        }
        for _ in 0..30 {
            let (ticket, written, answer) = client.0.queues[0].wait().unwrap();
            let from = sectors.remove(&ticket).unwrap() as usize * SECTOR;
            assert_eq!(written as usize, SECTOR + 1);
            assert!(answer[..SECTOR] == bytes[from..from + SECTOR]);
        }
    }
}

/// A stopped queue has answered everything (vhost-user: GET_VRING_BASE).
#[rstest]
fn a_pause_waits_for_what_is_in_flight(
    #[values(false, true)] packed: bool,
    #[values(Engine::Auto, Engine::Threads)] engine: Engine,
) {
    let disk = Disk::new(&known(64));
    let daemon = disk.serve(engine);
    let mut client = daemon.connect(&options(packed));
    for _ in 0..20 {
        for number in 0..15 {
            client.submit(OUT, number, &[9; SECTOR], 0);
            client.submit(FLUSH, 0, &[], 0);
        }
        let base = client.0.stop(0).unwrap();
        let mut answered = 0;
        while let Some((_, _, bytes)) = client.0.queues[0].poll().unwrap() {
            assert_eq!(bytes, [OK]);
            answered += 1;
        }
        client.0.start(0, base).unwrap();
        // What the device had not seen yet.
        for _ in answered..30 {
            assert_eq!(client.0.queues[0].wait().unwrap().2, [OK]);
        }
    }
}

#[rstest]
fn the_configuration_describes_the_image(#[values(false, true)] packed: bool) {
    let disk = Disk::new(&known(64));
    let mut served = disk.options(Engine::Auto);
    served.queues = 4;
    let daemon = Daemon::new(served);
    let mut client = daemon.connect(&::driver::Options {
        queues: 4,
        ..options(packed)
    });
    assert_eq!(client.0.queues.len(), 4);
    let config = client.0.device_config(64).unwrap();
    let u32_at = |at: usize| u32::from_le_bytes(config[at..at + 4].try_into().unwrap());
    assert_eq!(config[..8], 64_u64.to_le_bytes());
    assert_eq!(
        u32_at(12),
        126,
        "seg_max leaves room for header and status in a ring of 128"
    );
    assert_eq!(u32_at(20), 512);
    assert_eq!(config[32], 1, "writeback");
    assert_eq!(config[34..36], 4_u16.to_le_bytes());
    assert!(u32_at(36) > 0 && u32_at(40) > 0 && u32_at(48) > 0 && u32_at(52) > 0);
    assert_eq!(config[56..], [1, 0, 0, 0, 0, 0, 0, 0], "padding, and nothing behind it");
    let features = client.0.features();
    for bit in [
        feature::SEG_MAX,
        feature::BLK_SIZE,
        feature::FLUSH,
        feature::TOPOLOGY,
        feature::CONFIG_WCE,
        feature::MQ,
        feature::DISCARD,
        feature::WRITE_ZEROES,
    ] {
        assert_ne!(features & bit, 0, "{bit:#x}");
    }
    assert_eq!(features & feature::RO, 0);
}

#[rstest]
fn each_queue_serves_the_same_disk(#[values(false, true)] packed: bool) {
    let disk = Disk::new(&known(64));
    let mut served = disk.options(Engine::Auto);
    served.queues = 4;
    let daemon = Daemon::new(served);
    let mut client = daemon.connect(&::driver::Options {
        queues: 4,
        ..options(packed)
    });
    for (number, queue) in client.0.queues.iter_mut().enumerate() {
        let request = [header(OUT, number as u64), vec![number as u8; SECTOR]].concat();
        assert_eq!(queue.call(&request, 1).unwrap(), (1, vec![OK]));
    }
    let bytes = disk.bytes();
    for number in 0..4 {
        assert_eq!(bytes[number * SECTOR], number as u8);
    }
}

/// VIRTIO 1.1 5.2.6: the identifier has 20 bytes, without a NUL if it needs all of them.
#[rstest]
fn the_serial_number_is_padded(
    #[values(false, true)] packed: bool,
    #[values("", "disk", "twenty-byte-serial-no")] serial: &str,
) {
    let serial = &serial[..serial.len().min(20)];
    let disk = Disk::new(&known(1));
    let mut served = disk.options(Engine::Auto);
    served.serial = serial.into();
    let daemon = Daemon::new(served);
    let mut client = daemon.connect(&options(packed));
    let mut padded = serial.as_bytes().to_vec();
    padded.resize(20, 0);
    let (written, bytes) = client.exchange(&header(GET_ID, 0), 21);
    assert_eq!((written, &bytes[..20], bytes[20]), (21, &padded[..], OK));
    let (written, bytes) = client.exchange(&header(GET_ID, 0), 31);
    assert_eq!(
        (written, &bytes[..20], bytes[30]),
        (20, &padded[..], OK),
        "no byte counts that nobody wrote"
    );
    assert_eq!(client.exchange(&header(GET_ID, 0), 20).1[19], IO_ERROR);
}

/// VIRTIO 1.1 5.2.6.2: nothing is written, whatever the driver has acknowledged.
#[rstest]
fn a_read_only_disk_refuses_every_write(#[values(false, true)] packed: bool, #[values(0, 0x7fff)] features: u64) {
    let bytes = known(8);
    let disk = Disk::new(&bytes);
    let mut served = disk.options(Engine::Auto);
    served.image.read_only = true;
    let daemon = Daemon::new(served);
    let mut client = daemon.connect(&::driver::Options {
        features,
        ..options(packed)
    });
    assert_eq!(client.0.features() & (feature::DISCARD | feature::WRITE_ZEROES), 0);
    assert_eq!(client.0.features() & feature::RO, features & feature::RO);
    assert_eq!(client.status(OUT, 0, &[1; SECTOR]), IO_ERROR);
    assert_eq!(client.status(DISCARD, 0, &segment(0, 1, 0)), IO_ERROR);
    assert_eq!(client.status(WRITE_ZEROES, 0, &segment(0, 1, 0)), IO_ERROR);
    assert_eq!(client.status(FLUSH, 0, &[]), OK);
    assert_eq!(client.read(0, 8 * SECTOR), bytes);
    assert!(disk.bytes() == bytes);
}

/// VIRTIO 1.1 5.2.6.2: afterwards reads return zeros, with or without permission to give up space.
#[rstest]
fn zeros_are_written(
    #[values(false, true)] packed: bool,
    #[values(0, 1)] unmap: u32,
    #[values(false, true)] writeback: bool,
) {
    let mut expected = known(64);
    let disk = Disk::new(&expected);
    let daemon = disk.serve(Engine::Auto);
    let mut client = daemon.connect(&options(packed));
    client.set_writeback(writeback);
    for (sector, sectors) in [(0, 1), (3, 20), (60, 4), (64, 0)] {
        assert_eq!(client.status(WRITE_ZEROES, 0, &segment(sector, sectors, unmap)), OK);
        let from = sector as usize * SECTOR;
        expected[from..from + sectors as usize * SECTOR].fill(0);
        assert!(client.read(0, 64 * SECTOR) == expected, "{sectors} at {sector}");
    }
    assert_eq!(disk.bytes().len(), 64 * SECTOR);
}

#[rstest]
fn discarded_sectors_give_their_space_back(#[values(false, true)] packed: bool) {
    use std::os::unix::fs::MetadataExt;
    let disk = Disk::new(&known(4096));
    let blocks = || std::fs::metadata(disk.path()).unwrap().blocks();
    let daemon = disk.serve(Engine::Auto);
    let mut client = daemon.connect(&options(packed));
    assert_eq!(client.status(FLUSH, 0, &[]), OK);
    let before = blocks();
    let segments = [segment(0, 1024, 0), segment(2048, 1024, 0)].concat();
    assert_eq!(client.status(DISCARD, 0, &segments), OK);
    assert!(blocks() + 2000 <= before, "{} blocks of {before} are left", blocks());
    let bytes = disk.bytes();
    assert!(bytes[1024 * SECTOR..2048 * SECTOR] == known(4096)[1024 * SECTOR..2048 * SECTOR]);
}

/// VIRTIO 1.1 5.2.3: a feature that was not negotiated is not there.
#[rstest]
fn commands_without_their_feature_are_unsupported(#[values(false, true)] packed: bool) {
    let disk = Disk::new(&known(8));
    let mut served = disk.options(Engine::Auto);
    served.discard = false;
    let daemon = Daemon::new(served);
    let mut client = daemon.connect(&options(packed));
    assert_eq!(client.0.features() & feature::DISCARD, 0);
    assert_eq!(client.0.device_config(60).unwrap()[36..48], [0; 12]);
    assert_eq!(
        client.0.device_config(60).unwrap()[56],
        0,
        "zeros give no space up either"
    );
    assert_eq!(client.status(DISCARD, 0, &segment(0, 1, 0)), UNSUPPORTED);
    assert_eq!(client.status(WRITE_ZEROES, 0, &segment(0, 1, 1)), OK);
    drop(client);
    let mut client = daemon.connect(&::driver::Options {
        features: 0,
        ..options(packed)
    });
    assert_eq!(client.status(WRITE_ZEROES, 0, &segment(0, 1, 0)), UNSUPPORTED);
    assert_eq!(client.status(FLUSH, 0, &[]), OK);
}

/// VIRTIO 1.1 5.2.5.1 and 5.2.6.2: `writeback` starts at 0 for a driver that cannot flush.
#[rstest]
#[case(0x7fff, 1)]
#[case(feature::CONFIG_WCE, 0)]
#[case(feature::FLUSH, 1)]
#[case(0, 0)]
fn the_cache_mode_follows_the_features(
    #[values(false, true)] packed: bool,
    #[case] features: u64,
    #[case] initial: u8,
) {
    let disk = Disk::new(&known(8));
    let daemon = disk.serve(Engine::Auto);
    let mut client = daemon.connect(&::driver::Options {
        features,
        ..options(packed)
    });
    client.write(0, &[1; SECTOR]);
    let writeback = |client: &mut crate::driver::Client| client.0.device_config(60).unwrap()[32];
    assert_eq!(writeback(&mut client), initial);
    if features & feature::CONFIG_WCE != 0 {
        for value in [0, 1, 0] {
            client.set_writeback(value == 1);
            assert_eq!(writeback(&mut client), value);
            client.write(1, &[2; SECTOR]);
        }
    }
    let base = client.0.stop(0).unwrap();
    client.0.frontend().reset_device().unwrap();
    assert_eq!(writeback(&mut client), 1, "a reset forgets what was chosen");
    client.0.start(0, base).unwrap();
}

/// Only `writeback` can be written, and only to 0 or 1.
#[rstest]
fn other_fields_cannot_be_written(#[values(false, true)] packed: bool) {
    let disk = Disk::new(&known(8));
    let daemon = disk.serve(Engine::Auto);
    let mut client = daemon.connect(&options(packed));
    let before = client.0.device_config(60).unwrap();
    for (offset, bytes) in [(0, &[9; 8][..]), (32, &[2]), (33, &[1]), (u32::MAX, &[0])] {
        assert!(client.0.frontend().set_config(offset, bytes).is_err(), "{offset}");
    }
    assert_eq!(client.0.device_config(60).unwrap(), before);
}
