//! The life of a session: INIT, DESTROY, reset, and requests that run at the same time.

use std::sync::mpsc;
use std::thread;

use fuse::fs::{Errno, FileSystem, Negotiated};
use fuse::server::Server;
use fuse::wire::{self, InitFlags, Opcode};
use zerocopy::{FromBytes, IntoBytes};

use crate::guest::{Chain, failure, init, join, numbered, request, send, success, with_header};
use crate::operations::{cases, started};
use crate::recorder::Recorder;

fn init_out(reply: &[u8]) -> wire::InitOut {
    assert_eq!(reply[..16], success(&[0; 64])[..16]);
    wire::InitOut::read_from_bytes(&reply[16..]).unwrap()
}

fn getattr() -> Vec<u8> {
    request(Opcode::Getattr, 7, &[0; 16])
}

fn forget(node: u64, count: u64) -> Vec<u8> {
    request(Opcode::Forget, node, wire::ForgetIn { nlookup: count }.as_bytes())
}

#[test]
fn nothing_but_init_is_served_outside_a_session() {
    let fs = Recorder::default();
    let server = Server::new(&fs);
    for case in cases() {
        assert_eq!(
            send(&server, &case.request),
            failure(libc::ENOTCONN),
            "{:?}",
            case.opcode
        );
    }
    assert_eq!(
        send(&server, &request(Opcode::Destroy, 0, &[])),
        failure(libc::ENOTCONN)
    );
    assert!(send(&server, &forget(7, 1)).is_empty());
    server.reset();
    assert!(fs.take().is_empty());
}

#[test]
fn init_agrees_on_what_both_sides_know() {
    let fs = Recorder::default();
    let server = Server::new(&fs);
    let reply = init_out(&send(&server, &init(99, InitFlags::all())));
    assert_eq!((reply.major, reply.minor), (7, 45));
    assert_eq!(
        (reply.max_readahead, reply.max_write, reply.max_pages),
        (131_072, 1 << 20, 256)
    );
    assert_eq!(reply.time_gran, 1);
    assert!(reply.congestion_threshold <= reply.max_background && reply.congestion_threshold > 0);
    let agreed = InitFlags::from_words(reply.flags, reply.flags2);
    let refused = InitFlags::POSIX_LOCKS
        | InitFlags::FLOCK_LOCKS
        | InitFlags::EXPORT_SUPPORT
        | InitFlags::SECURITY_CTX
        | InitFlags::MAP_ALIGNMENT
        | InitFlags::HAS_INODE_DAX
        | InitFlags::OVER_IO_URING
        | InitFlags::HAS_RESEND
        | InitFlags::PASSTHROUGH
        | InitFlags::REQUEST_TIMEOUT;
    assert_eq!(agreed & refused, InitFlags::empty(), "nobody serves these");
    assert!(
        agreed.contains(
            InitFlags::MAX_PAGES | InitFlags::INIT_EXT | InitFlags::CREATE_SUPP_GROUP | InitFlags::ALLOW_IDMAP
        )
    );
    // The file system hears what is offered, and then what the guest hears.
    let offered = format!("wants {:#x}", agreed.bits());
    assert_eq!(fs.take(), [offered, format!("init 7.45 {:#x}", agreed.bits())]);
}

#[test]
fn init_grants_nothing_that_was_not_offered() {
    let fs = Recorder::default();
    let server = Server::new(&fs);
    let offered = InitFlags::ASYNC_READ | InitFlags::DO_READDIRPLUS;
    let reply = init_out(&send(&server, &init(31, offered)));
    assert_eq!((reply.minor, reply.max_pages), (31, 0));
    assert_eq!(InitFlags::from_words(reply.flags, reply.flags2), offered);
}

#[test]
fn an_init_without_the_second_word_offers_no_flags_of_it() {
    let fs = Recorder::default();
    let server = Server::new(&fs);
    // FUSE 7.31 to 7.35 end after `flags`. Later ones that lack INIT_EXT have a second word that means nothing.
    let (flags, flags2) = InitFlags::all().difference(InitFlags::INIT_EXT).words();
    let short = wire::InitShortIn {
        major: 7,
        minor: 35,
        max_readahead: 4096,
        flags,
    };
    let long = wire::InitIn {
        major: 7,
        minor: 38,
        max_readahead: 4096,
        flags,
        flags2,
        unused: [0; 11],
    };
    for arguments in [short.as_bytes(), long.as_bytes()] {
        assert_eq!(init_out(&send(&server, &request(Opcode::Init, 0, arguments))).flags2, 0);
    }
}

#[test]
fn versions_we_do_not_speak_are_refused() {
    let fs = Recorder::default();
    let server = Server::new(&fs);
    assert_eq!(send(&server, &init(30, InitFlags::all())), failure(libc::EPROTO));
    let old = wire::InitIn {
        major: 6,
        minor: 40,
        ..Default::default()
    };
    assert_eq!(
        send(&server, &request(Opcode::Init, 0, old.as_bytes())),
        failure(libc::EPROTO)
    );
    assert_eq!(send(&server, &request(Opcode::Init, 0, &[0; 7])), failure(libc::EINVAL));
    assert_eq!(
        send(&server, &request(Opcode::Init, 0, &[7, 0, 0, 0, 45, 0, 0, 0])),
        failure(libc::EINVAL)
    );
    assert_eq!(send(&server, &getattr()), failure(libc::ENOTCONN));
    assert!(fs.take().is_empty());
}

#[test]
fn a_newer_major_version_is_told_ours_and_may_come_back() {
    let fs = Recorder::default();
    let server = Server::new(&fs);
    let newer = [8_u32, 0];
    let reply = init_out(&send(&server, &request(Opcode::Init, 0, newer.as_bytes())));
    assert_eq!(
        reply,
        wire::InitOut {
            major: 7,
            minor: 45,
            ..Default::default()
        }
    );
    assert_eq!(send(&server, &getattr()), failure(libc::ENOTCONN));
    init_out(&send(&server, &init(45, InitFlags::all())));
    assert_eq!(send(&server, &getattr())[4..8], [0; 4]);
}

/// VIRTIO 1.2 5.11.6.1: the opcode of INIT shows the byte order of the guest.
#[test]
fn a_guest_of_the_other_byte_order_is_refused_in_its_own() {
    let fs = Recorder::default();
    let server = started(&fs);
    let swapped = with_header(numbered(wire::INIT_OTHER_ENDIAN, 0, &[0; 64]), |header| {
        header.len = header.len.swap_bytes();
    });
    let reply = wire::OutHeader::read_from_bytes(&send(&server, &swapped)).unwrap();
    assert_eq!((reply.len.swap_bytes(), reply.error.swap_bytes()), (16, -libc::EPROTO));
    assert_eq!(send(&server, &getattr())[4..8], [0; 4], "the session goes on");
}

#[test]
fn a_second_init_ends_the_session_and_starts_anew() {
    let fs = Recorder::default();
    let server = started(&fs);
    init_out(&send(&server, &init(38, InitFlags::empty())));
    assert_eq!(fs.take(), ["destroy", "wants 0x0", "init 7.38 0x0"]);
}

#[test]
fn a_refused_init_ends_the_session_too() {
    let fs = Recorder::default();
    let server = started(&fs);
    assert_eq!(send(&server, &init(30, InitFlags::empty())), failure(libc::EPROTO));
    assert_eq!(fs.take(), ["destroy"]);
    assert_eq!(send(&server, &getattr()), failure(libc::ENOTCONN));
}

#[test]
fn an_init_that_the_file_system_fails_starts_no_session() {
    struct Broken;
    impl FileSystem for Broken {
        fn wants(&self, offered: InitFlags) -> InitFlags {
            offered
        }
        fn init(&self, _: Negotiated) -> fuse::fs::Result<()> {
            Err(Errno::ENOMEM)
        }
    }
    let server = Server::new(Broken);
    assert_eq!(send(&server, &init(45, InitFlags::all())), failure(libc::ENOMEM));
    assert_eq!(send(&server, &getattr()), failure(libc::ENOTCONN));
}

#[test]
fn an_init_without_room_for_its_answer_changes_nothing() {
    let fs = Recorder::default();
    let server = started(&fs);
    let chain = Chain::new(&init(45, InitFlags::all()), 16 + 63, &[usize::MAX]);
    assert_eq!(chain.send(&server), failure(libc::EINVAL));
    assert!(fs.take().is_empty());
}

#[test]
fn destroy_and_reset_end_the_session_once() {
    let fs = Recorder::default();
    let server = started(&fs);
    assert_eq!(send(&server, &request(Opcode::Destroy, 0, &[])), success(&[]));
    assert_eq!(fs.take(), ["destroy"]);
    assert_eq!(send(&server, &getattr()), failure(libc::ENOTCONN));
    server.reset();
    assert!(fs.take().is_empty(), "there is nothing left to drop");

    let server = started(&fs);
    server.reset();
    assert_eq!(fs.take(), ["destroy"]);
    assert_eq!(send(&server, &getattr()), failure(libc::ENOTCONN));
}

#[test]
fn forgets_get_no_reply() {
    let fs = Recorder::default();
    let server = started(&fs);
    let two = [
        wire::ForgetOne { nodeid: 8, nlookup: 2 },
        wire::ForgetOne { nodeid: 9, nlookup: 3 },
    ];
    let batch = |count| {
        let start = wire::BatchForgetIn { count, dummy: 0 };
        request(Opcode::BatchForget, 0, &join(&[start.as_bytes(), two.as_bytes()]))
    };
    for room in [0, 8192] {
        assert!(
            Chain::new(&forget(7, u64::MAX), room, &[usize::MAX])
                .send(&server)
                .is_empty()
        );
        assert!(Chain::new(&batch(2), room, &[7]).send_high_priority(&server).is_empty());
        assert_eq!(
            fs.take(),
            [
                format!("forget 7 {}", u64::MAX),
                "forget 8 2".into(),
                "forget 9 3".into()
            ]
        );
    }
    // Nothing of a count that lies is believed.
    for count in [0, 1, 3, u32::MAX] {
        assert!(send(&server, &batch(count)).is_empty());
    }
    for length in [0, 7, 9] {
        assert!(send(&server, &request(Opcode::Forget, 7, &[0; 9][..length])).is_empty());
    }
    let lying = with_header(forget(7, 1), |header| header.len += 1);
    assert!(send(&server, &lying).is_empty());
    assert!(send(&server, &request(Opcode::Interrupt, 0, &[0; 8])).is_empty());
    assert!(fs.take().is_empty());
}

/// VIRTIO 1.2 5.11.6.2: the high-priority queue is for FORGET, BATCH_FORGET and INTERRUPT.
#[test]
fn the_high_priority_queue_refuses_what_could_block_it() {
    let fs = Recorder::default();
    let server = started(&fs);
    for case in cases() {
        let chain = Chain::new(&case.request, 8192, &[usize::MAX]);
        assert_eq!(
            chain.send_high_priority(&server),
            failure(libc::EINVAL),
            "{:?}",
            case.opcode
        );
    }
    let chain = Chain::new(&init(45, InitFlags::all()), 8192, &[usize::MAX]);
    assert_eq!(chain.send_high_priority(&server), failure(libc::EINVAL));
    assert!(fs.take().is_empty());
}

#[test]
fn reset_waits_for_requests_and_forget_for_nobody() {
    let (began, wait_begin) = mpsc::channel();
    let (let_go, go_on) = mpsc::channel();
    let fs = Recorder::gated(began, go_on);
    let server = started(&fs);
    thread::scope(|scope| {
        let stuck = scope.spawn(|| send(&server, &getattr()));
        wait_begin.recv().unwrap();
        let urgent = Chain::new(&forget(7, 1), 0, &[usize::MAX]);
        urgent.send_high_priority(&server);
        assert_eq!(fs.take(), ["forget 7 1"], "served beside a request that is stuck");

        let reset = scope.spawn(|| server.reset());
        // Once the reset waits, what is forgotten goes with the session; until then it is forgotten as ever. It never
        // waits, or this loop would not end.
        loop {
            urgent.send_high_priority(&server);
            if fs.take().is_empty() {
                break;
            }
            thread::yield_now();
        }
        let_go.send(()).unwrap();
        assert_eq!(stuck.join().unwrap()[4..8], [0; 4], "the request ends in its session");
        reset.join().unwrap();
    });
    assert_eq!(fs.take(), ["getattr 1000:100/5 7 None", "destroy"]);
}
