//! The control plane of the file system: configuration, and the effects of a reset.

use rstest::rstest;

use driver::fs::ROOT;

use crate::daemon::{Client, Daemon, options};

fn submit_getattr(client: &mut Client) {
    let request = client.requests.getattr(ROOT);
    client.guest.queues[1]
        .submit(&request.readable, request.reply_space)
        .unwrap();
}

fn idle(client: &mut Client) -> bool {
    client.guest.queues[1].poll().unwrap().is_none()
}

#[test]
fn the_configuration_space_has_tag_and_queues() {
    let daemon = Daemon::sharing(4);
    let mut client = daemon.connect(&options(false, 4));
    let config = client.guest.device_config(256).unwrap();
    assert_eq!(&config[..6], b"share\0");
    assert_eq!(config[36..40], 4_u32.to_le_bytes());
    assert!(config[5..36].iter().chain(&config[40..]).all(|byte| *byte == 0));
    assert!(
        client.guest.frontend().set_config(0, b"other").is_err(),
        "the driver must not write it"
    );
    assert_eq!(client.guest.frontend().queue_num().unwrap(), 5);
}

#[rstest]
fn a_reset_device_stops_and_starts_anew(#[values(false, true)] packed: bool) {
    let daemon = Daemon::sharing(1);
    let mut client = daemon.connect(&options(packed, 1));
    client.init();
    client.assert_served();
    // Only to learn the position: the ring runs when the reset comes.
    let base = client.guest.stop(1).unwrap();
    client.guest.start(1, base).unwrap();
    client.guest.frontend().set_status(8).unwrap();
    client.guest.frontend().reset_device().unwrap();
    assert_eq!(client.guest.frontend().status().unwrap(), 0);
    submit_getattr(&mut client);
    client.guest.queues[1].kick().unwrap();
    assert!(idle(&mut client), "all rings are stopped");
    client.guest.start(1, base).unwrap();
    let (_, written, _) = client.guest.queues[1].wait().unwrap();
    assert_eq!(written, 16, "an error: the session is gone");
    client.init();
    client.assert_served();
}
