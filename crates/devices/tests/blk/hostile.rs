//! A driver that breaks the rules loses only its request or its queue.

use devices::blk::{
    DISCARD_SECTORS_MAX, DISCARD_SEGMENTS_MAX, Engine, WRITE_ZEROES_SECTORS_MAX, WRITE_ZEROES_SEGMENTS_MAX,
};
use guestmem::Memory;
use rstest::rstest;
use virtqueue::{Buffer, QueueConfig};

use crate::arbitrary;
use crate::behaviour::known;
use crate::driver::{
    DISCARD, Disk, FLUSH, GET_ID, IN, IO_ERROR, OK, OUT, SECTOR, UNSUPPORTED, WRITE_ZEROES, header, options, segment,
};
use crate::numbers::Numbers;

const INDIRECT: u16 = 4;

/// VIRTIO 1.1 5.2.6.1: ranges beyond the disk, which overflow too, and lengths that are no sectors.
#[rstest]
fn ranges_that_the_disk_lacks_are_refused_whole(
    #[values(false, true)] packed: bool,
    #[values(Engine::Auto, Engine::Threads)] engine: Engine,
) {
    let bytes = known(8);
    let disk = Disk::new(&bytes);
    let daemon = disk.serve(engine);
    let mut client = daemon.connect(&options(packed));
    for (sector, length) in [
        (8, SECTOR),
        (7, 2 * SECTOR),
        (u64::MAX, SECTOR),
        (u64::MAX / 512, SECTOR),
        (u64::MAX / 512 + 1, SECTOR),
        (1 << 63, SECTOR),
        (9, 0),
        (0, 1),
        (0, SECTOR - 1),
        (0, SECTOR + 1),
    ] {
        assert_eq!(
            client.status(OUT, sector, &vec![1; length]),
            IO_ERROR,
            "{length} at {sector}"
        );
        let (written, answer) = client.exchange(&header(IN, sector), length as u32 + 1);
        assert_eq!(answer[length], IO_ERROR, "{length} at {sector}");
        assert!(answer[..length].iter().all(|byte| *byte == 0xee), "nothing was read");
        assert_eq!(written, u32::from(length == 0), "nothing but the status was written");
    }
    assert!(disk.bytes() == bytes);
}

#[rstest]
fn unknown_commands_are_unsupported(#[values(false, true)] packed: bool) {
    let disk = Disk::new(&known(8));
    let daemon = disk.serve(Engine::Auto);
    let mut client = daemon.connect(&options(packed));
    for kind in [2, 3, 5, 7, 9, 10, 12, 14, 0x8000_0000, 0x8000_0001, u32::MAX] {
        assert_eq!(client.status(kind, 0, &[0; SECTOR]), UNSUPPORTED, "{kind}");
    }
}

#[rstest]
#[case(DISCARD, DISCARD_SECTORS_MAX, DISCARD_SEGMENTS_MAX)]
#[case(WRITE_ZEROES, WRITE_ZEROES_SECTORS_MAX, WRITE_ZEROES_SEGMENTS_MAX)]
fn segments_that_lie_are_refused_before_anything_is_done(
    #[values(false, true)] packed: bool,
    #[case] kind: u32,
    #[case] sectors_max: u32,
    #[case] segments_max: u32,
) {
    let bytes = known(64);
    let disk = Disk::new(&bytes);
    let daemon = disk.serve(Engine::Auto);
    let mut client = daemon.connect(&options(packed));
    let good = segment(0, 8, 0);
    let mut status = |segments: &[u8]| client.status(kind, 0, segments);
    assert_eq!(status(&[]), IO_ERROR, "no segment");
    assert_eq!(status(&good[..15]), IO_ERROR);
    assert_eq!(status(&[&good[..], &[0]].concat()), IO_ERROR);
    assert_eq!(status(&good.repeat(segments_max as usize + 1)), IO_ERROR);
    for (sector, sectors) in [
        (64, 1),
        (63, 2),
        (u64::MAX, 1),
        (u64::MAX / 512 + 1, 1),
        (0, u32::MAX),
        (0, sectors_max + 1),
    ] {
        assert_eq!(status(&segment(sector, sectors, 0)), IO_ERROR, "{sectors} at {sector}");
        if segments_max > 1 {
            let second = [good.clone(), segment(sector, sectors, 0)].concat();
            assert_eq!(status(&second), IO_ERROR, "{sectors} at {sector}");
        }
    }
    for flags in [2, 3, 1 << 31, u32::MAX] {
        assert_eq!(status(&segment(0, 8, flags)), UNSUPPORTED, "{flags:#x}");
    }
    if kind == DISCARD {
        assert_eq!(status(&segment(0, 8, 1)), UNSUPPORTED, "unmap is for zeros");
    }
    assert!(disk.bytes() == bytes);
}

#[rstest]
fn requests_that_are_too_short_have_no_effect(#[values(false, true)] packed: bool) {
    let bytes = known(8);
    let disk = Disk::new(&bytes);
    let daemon = disk.serve(Engine::Auto);
    let mut client = daemon.connect(&options(packed));
    assert_eq!(client.exchange(&header(OUT, 0)[..15], 1), (1, vec![IO_ERROR]));
    assert_eq!(client.exchange(&[], 1), (1, vec![IO_ERROR]));
    let request = [header(OUT, 0), vec![1; SECTOR]].concat();
    assert_eq!(
        client.exchange(&request, 0),
        (0, vec![]),
        "there is no byte for a status"
    );
    assert_eq!(client.exchange(&header(FLUSH, 0), 0), (0, vec![]));
    assert_eq!(client.exchange(&header(GET_ID, 0), 1), (1, vec![IO_ERROR]));
    assert!(disk.bytes() == bytes);
}

/// The status has its place at the end, whatever else a driver offers.
#[rstest]
fn space_that_a_request_has_no_use_for_stays_untouched(#[values(false, true)] packed: bool) {
    let disk = Disk::new(&known(8));
    let daemon = disk.serve(Engine::Auto);
    let mut client = daemon.connect(&options(packed));
    for request in [[header(OUT, 0), vec![1; SECTOR]].concat(), header(FLUSH, 0)] {
        let (written, answer) = client.exchange(&request, 10);
        assert_eq!((written, &answer[..9], answer[9]), (0, &[0xee; 9][..], OK));
    }
}

#[rstest]
#[case(IN, OUT)]
#[case(OUT, IN)]
fn buffers_outside_of_memory_cost_their_request(
    #[values(false, true)] packed: bool,
    #[values(Engine::Auto, Engine::Threads)] engine: Engine,
    #[case] kind: u32,
    #[case] next: u32,
) {
    let disk = Disk::new(&known(8));
    let daemon = disk.serve(engine);
    let mut client = daemon.connect(&options(packed));
    let queue = &mut client.0.queues[0];
    let place = queue.take_place().unwrap();
    client.0.memory().write(place, &header(kind, 0)).unwrap();
    client.0.memory().write(place + 16, &[0xee]).unwrap();
    let [head, status, nowhere] =
        [(place, 16), (place + 16, 1), (1 << 50, SECTOR as u32)].map(|(address, length)| Buffer { address, length });
    let queue = &mut client.0.queues[0];
    let ticket = if kind == IN {
        queue.ring().post(&[head], &[nowhere, status]).unwrap()
    } else {
        queue.ring().post(&[head, nowhere], &[status]).unwrap()
    };
    queue.kick().unwrap();
    let (answered, written, _) = queue.wait().unwrap();
    assert_eq!((answered, written), (ticket, u32::from(kind == OUT)));
    let mut answer = [0];
    client.0.memory().read(place + 16, &mut answer).unwrap();
    assert_eq!(answer, [IO_ERROR]);
    let (_, answer) = client.exchange(&header(next, 0), 1);
    assert_eq!(answer, [OK], "an empty request");
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
    let bytes = known(8);
    let disk = Disk::new(&bytes);
    let daemon = disk.serve(Engine::Auto);
    let mut client = daemon.connect(&options(packed));
    let config = client.0.queues[0].config().clone();
    break_ring(&config, client.0.memory());
    client.0.queues[0].kick().unwrap();
    assert!(client.0.queues[0].wait_for_error().unwrap());
    assert_eq!(
        client.0.device_config(8).unwrap(),
        8_u64.to_le_bytes(),
        "the session goes on"
    );
    drop(client);
    assert_eq!(daemon.connect(&options(packed)).read(0, 8 * SECTOR), bytes);
}

/// Whoever shortens an image takes its sectors away, and nothing else.
#[rstest]
fn an_image_that_was_cut_short_gives_errors(
    #[values(false, true)] packed: bool,
    #[values(Engine::Auto, Engine::Threads)] engine: Engine,
) {
    let disk = Disk::new(&known(64));
    let daemon = disk.serve(engine);
    let mut client = daemon.connect(&options(packed));
    std::fs::File::options()
        .write(true)
        .open(disk.path())
        .unwrap()
        .set_len(8 * SECTOR as u64)
        .unwrap();
    assert_eq!(client.exchange(&header(IN, 8), SECTOR as u32 + 1).1[SECTOR], IO_ERROR);
    assert_eq!(
        client.exchange(&header(IN, 4), 8 * SECTOR as u32 + 1).1[8 * SECTOR],
        IO_ERROR
    );
    assert_eq!(client.read(0, 8 * SECTOR), known(8));
}

#[test]
fn pseudo_random_drivers_are_answered() {
    let mut numbers = Numbers(1);
    let mut requests = 0;
    for _ in 0..100 {
        let words = numbers.next() % 100;
        let input = numbers.bytes(words);
        requests += arbitrary::run(&input);
    }
    assert!(requests > 500, "{requests} requests are too few to show anything");
}
