//! Memory that disappears while its queue runs.

use rstest::rstest;
use virtqueue::{Chain, Violation};

use crate::world;

#[rstest]
fn a_queue_whose_ring_is_lost_is_retired(
    #[values(false, true)] packed: bool,
    #[values(false, true)] in_order: bool,
    #[values("descriptors", "driver", "device")] first_lost: &str,
) {
    let mut config = world::config(packed, 8);
    config.in_order = in_order;
    let (memory, file) = world::shrinkable_memory();
    let mut driver = config.drive(&memory).unwrap();
    let mut queue = config.start(&memory).unwrap();
    driver.post(&world::buffers(0, &[16]), &[]).unwrap();
    assert!(queue.serve(10, |chain: Chain<'_>| chain.done(0)).is_ok());
    driver.post(&world::buffers(1, &[16]), &[]).unwrap();

    let length = match first_lost {
        "descriptors" => config.descriptor,
        "driver" => config.driver,
        _ => config.device,
    };
    file.set_len(length).unwrap();
    let served = queue.serve(10, |chain: Chain<'_>| chain.done(0));
    assert_eq!(served.unwrap_err(), Violation::MemoryLost);
    assert!(queue.is_retired());
    assert!(!queue.has_available());
    let _touches_the_ring = queue.interrupt_wanted();
    assert!(
        queue.serve(10, |chain: Chain<'_>| chain.done(0)).is_ok(),
        "it is reported once"
    );

    // A successor that is started in what is left goes the same way.
    let mut next = config.start(&memory).unwrap();
    let served = next.serve(10, |chain: Chain<'_>| chain.done(0));
    assert_eq!(served.unwrap_err(), Violation::MemoryLost);
}

#[rstest]
fn buffers_in_a_lost_region_fail_and_a_ring_elsewhere_goes_on(#[values(false, true)] packed: bool) {
    let config = world::config(packed, 8);
    let (ring, _file) = world::memory();
    let (memory, file) = world::shrinkable_region(&ring, 1 << 30);
    let mut driver = config.drive(&memory).unwrap();
    let mut queue = config.start(&memory).unwrap();
    file.set_len(0).unwrap();
    for (address, lost) in [(world::BUFFERS, false), (1 << 30, true), (world::BUFFERS, false)] {
        let buffer = virtqueue::Buffer { address, length: 16 };
        driver.post(&[buffer], &[]).unwrap();
        let mut failed = None;
        let served = queue.serve(10, |mut chain: Chain<'_>| {
            failed = Some(chain.reader.read_to_vec(16).is_err());
            chain.done(0)
        });
        assert!(served.is_ok());
        assert_eq!(failed, Some(lost), "{address:#x}");
        assert!(driver.reap().unwrap().is_some());
    }
}
