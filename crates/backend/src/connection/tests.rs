//! Requests that a connection accepts and refuses, without a front end.

use rstest::rstest;
use virtqueue::features::{IMPLEMENTED, RING_PACKED, VERSION_1};

use super::*;

/// Offers few features, and has no queues.
struct Plain;

impl Device for Plain {
    /// That of a ring is not for it to offer.
    fn features(&self) -> u64 {
        1 << 5 | 1 << 41
    }

    fn queue_count(&self) -> u16 {
        0
    }

    fn config(&self) -> Vec<u8> {
        (1..=16).collect()
    }

    fn start(&self, _: &Setup, _: &mut Lanes) -> std::io::Result<()> {
        unreachable!("there are no queues")
    }

    fn reset(&self) {}
}

#[test]
fn a_device_has_its_own_features_and_rings_have_theirs() {
    let offers = |packed| {
        let options = Options {
            packed,
            ..Options::default()
        };
        Connection::new(&Plain, options).features()
    };
    assert_eq!(offers(true), IMPLEMENTED | 1 << 5);
    assert_eq!(offers(false), IMPLEMENTED & !RING_PACKED | 1 << 5);
}

#[rstest]
fn features_that_were_not_offered_are_ignored_where_they_are_the_transport_s(
    // NOTIFY_ON_EMPTY, ANY_LAYOUT, ORDER_PLATFORM, SR_IOV, NOTIF_CONFIG_DATA, RING_RESET, ADMIN_VQ, SUSPEND.
    #[values(24, 27, 36, 37, 39, 40, 41, 43, 49)] bit: u32,
) {
    let mut connection = Connection::new(&Plain, Options::default());
    connection.set_features(VERSION_1 | 1 << bit, false).unwrap();
    assert_eq!(connection.features, VERSION_1);
}

#[rstest]
fn features_that_were_not_offered_are_refused_where_they_cannot_be_ignored(
    // The device's own, and those without which addresses and rings mean something else.
    #[values(0, 4, 23, 33, 34, 50, 63)] bit: u32,
) {
    let options = Options {
        packed: false,
        ..Options::default()
    };
    let mut connection = Connection::new(&Plain, options);
    connection.set_features(VERSION_1, false).unwrap();
    let refused = connection.set_features(VERSION_1 | 1 << bit | 1 << 40, false);
    assert!(matches!(refused, Err(Refusal::NotOffered(bits)) if bits == 1 << bit));
    assert_eq!(connection.features, VERSION_1, "as before");
}

#[test]
fn the_device_s_own_bytes_of_configuration_space_are_given_from_any_offset() {
    let mut connection = Connection::new(&Plain, Options::default());
    for offset in 0..256 {
        let bytes = connection.config(offset, 20).unwrap();
        let expected: Vec<u8> = (1..=16).skip(offset as usize).collect();
        assert_eq!(bytes, expected, "at {offset}");
    }
}
