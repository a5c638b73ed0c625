//! Messages of the driver that are laid out once and posted repeatedly.

use std::fs;

use driver::fs::{ROOT, Request, field_u32, field_u64};
use driver::{Error, Shape, Slot};
use rstest::rstest;

use crate::daemon::{Client, Daemon, options};

const DATA: u32 = 8192;

fn slot_options(packed: bool) -> driver::Options {
    driver::Options {
        place_size: Slot::place_size(DATA, 2),
        fewer_queues: true,
        ..options(packed, 2)
    }
}

/// Sends a READ from the slot and checks its answer.
fn read(client: &mut Client, slot: &mut Slot, request: &Request, size: u32, contents: &[u8]) {
    let queue = &mut client.guest.queues[1];
    let shape = Shape {
        request: request.readable.len() as u32,
        data_out: 0,
        reply: 16,
        data_in: size,
    };
    let ticket = queue.post_slot(slot, shape, &request.readable).unwrap();
    queue.kick_if_wanted().unwrap();
    let written = 16 + contents.len() as u32;
    assert_eq!(queue.wait_used().unwrap(), (ticket, written));
    let (mut header, mut data) = ([0; 16], vec![0; contents.len()]);
    slot.read_reply(&mut header).unwrap();
    slot.read_data(&mut data).unwrap();
    assert_eq!(
        (field_u32(&header, 0), field_u64(&header, 8)),
        (written, request.unique)
    );
    assert_eq!(data, contents);
}

#[rstest]
fn a_slot_carries_messages_of_several_shapes_in_any_order(#[values(false, true)] packed: bool) {
    let daemon = Daemon::sharing(1);
    let contents: Vec<u8> = (0..DATA).map(|byte| (byte % 251) as u8).collect();
    fs::write(daemon.share().join("file"), &contents).unwrap();
    let mut client = daemon.connect(&slot_options(packed));
    assert_eq!(
        client.guest.queues.len(),
        2,
        "the device has no third queue, and fewer were fine"
    );
    client.init();
    let node = field_u64(&client.ask(|requests| requests.lookup(ROOT, b"file")).unwrap(), 0);
    let handle = field_u64(&client.ask(|requests| requests.open(node, 0)).unwrap(), 0);
    let mut slot = client.guest.queues[1].slot(DATA).unwrap();
    for (offset, size) in [(0, 8192), (8000, 4096), (4096, 8192), (0, 4096), (5, 8192)] {
        let request = client.requests.read(node, handle, offset, size);
        let end = (offset + u64::from(size)).min(u64::from(DATA)) as usize;
        read(&mut client, &mut slot, &request, size, &contents[offset as usize..end]);
    }
}

#[test]
fn a_slot_refuses_what_it_has_no_room_for() {
    let daemon = Daemon::sharing(1);
    let mut client = daemon.connect(&slot_options(false));
    client.init();
    let queue = &mut client.guest.queues[1];
    assert!(matches!(queue.slot(2 * DATA), Err(Error::NoPlace { .. })));
    let mut slot = queue.slot(DATA).unwrap();
    let shape = |request, data_in| Shape {
        request,
        data_out: 0,
        reply: 16,
        data_in,
    };
    for (request, data_in) in [(40, DATA + 1), (4097, 0)] {
        let refused = queue.post_slot(&mut slot, shape(request, data_in), &[0; 40]);
        assert!(matches!(refused, Err(Error::NoPlace { .. })));
    }
    client.assert_served();
}
