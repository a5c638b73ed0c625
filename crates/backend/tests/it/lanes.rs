//! Lanes of one queue and of several, and their files.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering::SeqCst;

use rstest::rstest;
use rustix::event::{EventfdFlags, eventfd};
use virtqueue::features::{TRANSPORT, VERSION_1};

use crate::echo::{ALONE, Daemon, FEATURE, ORPHAN, PATIENT, PROMPT, options};

#[rstest]
fn one_value_starts_the_device_for_all_queues(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let mut client = daemon.connect(&options(packed));
    for queue in [PROMPT, ALONE] {
        client.assert_served(queue);
    }
    assert_eq!(daemon.seen.starts.load(SeqCst), 1);
    let features = *daemon.seen.features.lock().unwrap();
    assert_eq!(features, client.0.features());
    assert_eq!(features & !TRANSPORT, FEATURE);
    assert_ne!(features & VERSION_1, 0);
}

#[rstest]
fn a_file_wakes_its_lane_and_one_queue_does_not_wait_for_another(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let mut client = daemon.connect(&options(packed));
    for round in 0..100 {
        let texts = ["a", "b", "c"].map(|name| format!("{name}{round}"));
        texts.iter().for_each(|text| client.submit(PATIENT, text));
        client.assert_served(PROMPT);
        assert!(client.is_idle(PATIENT), "nobody has rung");
        daemon.ring(1);
        assert_eq!(client.wait(PATIENT), texts[0]);
        client.assert_served(PROMPT);
        assert!(client.is_idle(PATIENT));
        daemon.ring(2);
        assert_eq!(client.wait(PATIENT), texts[1]);
        assert_eq!(client.wait(PATIENT), texts[2]);
    }
    // A ring ahead of the request is kept for it.
    daemon.ring(1);
    client.assert_served(PATIENT);
}

#[rstest]
fn one_queue_of_a_lane_stops_and_the_other_goes_on(#[values(false, true)] packed: bool) {
    let daemon = Daemon::new();
    let mut client = daemon.connect(&options(packed));
    for _ in 0..20 {
        for (stopped, other) in [(PROMPT, ALONE), (PATIENT, PROMPT), (PROMPT, ALONE)] {
            let base = client.0.stop(stopped).unwrap();
            client.assert_served(other);
            client.submit(stopped, "later");
            assert!(client.is_idle(stopped));
            client.0.start(stopped, base).unwrap();
            if stopped == PATIENT {
                daemon.ring(1);
            }
            assert_eq!(client.wait(stopped), "later");
        }
        // With the last queue ends the thread of the lane.
        let bases = [PROMPT, PATIENT].map(|queue| (queue, client.0.stop(queue).unwrap()));
        for (queue, base) in bases {
            client.0.start(queue, base).unwrap();
        }
        client.assert_served(PROMPT);
    }
    assert_eq!(daemon.seen.starts.load(SeqCst), 1, "a pause is no other start");
}

#[test]
fn a_queue_that_no_lane_serves_is_refused() {
    let daemon = Daemon::new();
    let mut client = daemon.connect(&options(false));
    let kick = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let orphan = u8::try_from(ORPHAN).unwrap();
    assert!(client.0.frontend().set_vring_kick(orphan, Some(kick.as_fd())).is_err());
    client.assert_served(PROMPT);
}
