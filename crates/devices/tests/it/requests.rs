//! Files through the rings: the guest's operations take effect on the host, however its requests are split and
//! queued.

use std::fs;

use driver::Options;
use driver::fs::{ROOT, directory_names, field_u32, field_u64};
use rstest::rstest;
use virtqueue::features::{EVENT_IDX, IN_ORDER, INDIRECT_DESC, RING_PACKED, VERSION_1};

use crate::daemon::{Daemon, options};

#[rstest]
fn a_guest_makes_writes_reads_and_lists_files(
    #[values(false, true)] packed: bool,
    #[values(1, 4)] request_queues: u16,
) {
    let daemon = Daemon::sharing(request_queues);
    let mut client = daemon.connect(&options(packed, request_queues));
    assert_eq!(client.guest.features() >> 34 & 1 == 1, packed);
    client.init();

    assert_eq!(
        client.ask(|requests| requests.lookup(ROOT, b"nothing")),
        Err(libc::ENOENT)
    );
    let directory = client
        .ask(|requests| requests.mkdir(ROOT, b"directory", 0o755))
        .unwrap();
    let directory = field_u64(&directory, 0);
    for queue in 1..=usize::from(request_queues) {
        let name = format!("file-{queue}").into_bytes();
        let created = client.requests.create(directory, &name, libc::O_RDWR as u32, 0o644);
        let created = client.ask_on(queue, &created).unwrap();
        let (node, handle) = (field_u64(&created, 0), field_u64(&created, 128));
        let data: Vec<u8> = (0..300_000_u32).map(|byte| (byte * 7 + queue as u32) as u8).collect();
        let write = client.requests.write(node, handle, 5, &data);
        let written = client.ask_on(queue, &write).unwrap();
        assert_eq!(field_u32(&written, 0) as usize, data.len());
        let read = client.requests.read(node, handle, 3, 1 << 20);
        let read = client.ask_on(queue, &read).unwrap();
        assert_eq!(read[..2], [0, 0], "a hole before the data");
        assert!(read[2..] == data, "queue {queue}");
        let release = client.requests.release(node, handle);
        client.ask_on(queue, &release).unwrap();

        let on_host = fs::read(daemon.share().join("directory").join(format!("file-{queue}"))).unwrap();
        assert!(on_host[5..] == data, "queue {queue}");
        let forget = client.requests.forget(node, 1);
        assert_eq!(
            client.guest.queues[0].call(&forget.readable, 0).unwrap(),
            (0, Vec::new())
        );
        let gone = client.ask(|requests| requests.getattr(node)).is_err();
        assert!(gone, "node {node} was forgotten");
    }

    let opened = client.ask(|requests| requests.opendir(directory)).unwrap();
    let listed = client
        .ask(|requests| requests.readdir(directory, field_u64(&opened, 0), 0, 4096))
        .unwrap();
    let mut names: Vec<_> = directory_names(&listed)
        .into_iter()
        .filter(|name| name[0] != b'.')
        .collect();
    names.sort();
    let expected: Vec<_> = (1..=request_queues)
        .map(|queue| format!("file-{queue}").into_bytes())
        .collect();
    assert_eq!(names, expected);
}

#[rstest]
fn framing_and_ring_features_make_no_difference(
    #[values(false, true)] packed: bool,
    #[values(0, INDIRECT_DESC, EVENT_IDX, IN_ORDER, INDIRECT_DESC | EVENT_IDX | IN_ORDER)] features: u64,
    #[values(7, 61, 4096)] descriptor_bytes: u32,
) {
    let daemon = Daemon::sharing(1);
    fs::write(daemon.share().join("file"), (0..200).collect::<Vec<u8>>()).unwrap();
    let mut client = daemon.connect(&Options {
        features,
        descriptor_bytes,
        ..options(packed, 1)
    });
    assert_eq!(client.guest.features() & !(RING_PACKED | VERSION_1), features);
    client.init();
    // Enough requests for several laps of the ring.
    for _ in 0..40 {
        let node = field_u64(&client.ask(|requests| requests.lookup(ROOT, b"file")).unwrap(), 0);
        let handle = field_u64(&client.ask(|requests| requests.open(node, 0)).unwrap(), 0);
        let read = client.ask(|requests| requests.read(node, handle, 50, 100)).unwrap();
        assert_eq!(read, (50..150).collect::<Vec<u8>>());
        client.ask(|requests| requests.release(node, handle)).unwrap();
    }
}

#[rstest]
fn many_requests_on_their_way_are_all_answered(#[values(false, true)] packed: bool) {
    let daemon = Daemon::sharing(4);
    let mut client = daemon.connect(&options(packed, 4));
    client.init();
    let queues = 1..5;
    for _ in 0..20 {
        for queue in queues.clone() {
            for _ in 0..32 {
                let request = client.requests.getattr(ROOT);
                client.guest.queues[queue]
                    .submit(&request.readable, request.reply_space)
                    .unwrap();
            }
        }
        for queue in queues.clone() {
            for _ in 0..32 {
                let (_, written, bytes) = client.guest.queues[queue].wait().unwrap();
                assert_eq!((written, field_u32(&bytes, 4)), (120, 0));
            }
            assert!(client.guest.queues[queue].poll().unwrap().is_none());
        }
    }
}
