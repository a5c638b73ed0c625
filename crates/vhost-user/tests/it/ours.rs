//! Our frontend and our session: every message arrives as it was sent.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use vhost_user::backend::OFFERED;
use vhost_user::channel::{Channel, Wait};
use vhost_user::frontend::Frontend;
use vhost_user::message::{Inflight, MemoryRegion, PROTOCOL_FEATURES, SharedMapping, VringAddress};
use vhost_user::{BackendRequestCode, Error, ProtocolFeatures, RequestCode};
use zerocopy::IntoBytes;

use crate::recorder::{FEATURES, QUEUES, Recorder, SLOTS};
use crate::{event, same_event, serve};

fn connect() -> (Frontend, JoinHandle<Recorder>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let backend = thread::spawn(move || serve(theirs, Recorder::default()));
    (Frontend::new(ours, Some(Duration::from_secs(30))), backend)
}

fn negotiated() -> (Frontend, JoinHandle<Recorder>) {
    let (mut frontend, backend) = connect();
    assert_eq!(frontend.features().unwrap(), FEATURES | PROTOCOL_FEATURES);
    assert_eq!(frontend.protocol_features().unwrap(), OFFERED);
    frontend.set_protocol_features(OFFERED).unwrap();
    (frontend, backend)
}

#[test]
fn every_message_arrives_as_it_was_meant() {
    let (mut frontend, backend) = negotiated();
    let region = |guest_address| MemoryRegion {
        guest_address,
        size: 4096,
        user_address: 7 << 40,
        mmap_offset: 4096,
    };
    let file = event();
    let [kick, call, err] = [event(), event(), event()];
    let address = VringAddress {
        index: 1,
        flags: 0,
        descriptor: 0x1000,
        used: 0x3000,
        available: 0x2000,
        log: 0,
    };

    assert_eq!(frontend.queue_num().unwrap(), QUEUES);
    assert_eq!(frontend.max_memory_slots().unwrap(), SLOTS);
    frontend.set_owner().unwrap();
    frontend.set_features(1 << 32 | 1 << 34 | PROTOCOL_FEATURES).unwrap();
    frontend
        .set_memory_table(&[(region(0), file.as_fd()), (region(4096), file.as_fd())])
        .unwrap();
    frontend.add_memory_region(region(8192), file.as_fd()).unwrap();
    frontend.remove_memory_region(region(0)).unwrap();
    frontend.set_vring_num(1, 128).unwrap();
    frontend.set_vring_address(address).unwrap();
    frontend.set_vring_base(1, 0x8000_8000).unwrap();
    frontend.set_vring_kick(1, Some(kick.as_fd())).unwrap();
    frontend.set_vring_call(1, Some(call.as_fd())).unwrap();
    frontend.set_vring_call(0, None).unwrap();
    frontend.set_vring_err(1, Some(err.as_fd())).unwrap();
    frontend.set_vring_enable(1, true).unwrap();
    assert_eq!(frontend.vring_base(1).unwrap(), 0x8000_8000);
    frontend.set_config(38, &[1, 2]).unwrap();
    assert_eq!(frontend.config(36, 4).unwrap(), [36, 37, 1, 2]);
    frontend.set_status(8).unwrap();
    assert_eq!(frontend.status().unwrap(), 8);
    frontend.reset_device().unwrap();
    drop(frontend);

    let recorded = backend.join().unwrap();
    assert_eq!(recorded.features, Some((1 << 32 | 1 << 34, false)));
    assert!(recorded.owned);
    assert_eq!(recorded.regions, [region(4096), region(8192)]);
    let vring = &recorded.vrings[&1];
    assert_eq!(
        (vring.size, vring.address, vring.base, vring.enabled),
        (128, Some(address), 0x8000_8000, true)
    );
    for (what, sent) in [("kick", &kick), ("call", &call), ("err", &err)] {
        assert!(
            same_event(sent, recorded.events[&(what, 1)].as_ref().unwrap()),
            "{what}"
        );
    }
    assert!(recorded.events[&("call", 0)].is_none());
    assert_eq!(recorded.resets, 1);
}

#[test]
fn rings_start_enabled_without_protocol_features() {
    let (mut frontend, backend) = connect();
    frontend.set_features(1 << 32).unwrap();
    assert_eq!(frontend.features().unwrap(), FEATURES | PROTOCOL_FEATURES);
    drop(frontend);
    assert_eq!(backend.join().unwrap().features, Some((1 << 32, true)));
}

#[test]
fn a_record_of_requests_in_flight_goes_there_and_back() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let recorder = Recorder {
        tracks_inflight: true,
        ..Recorder::default()
    };
    let backend = thread::spawn(move || serve(theirs, recorder));
    let mut frontend = Frontend::new(ours, Some(Duration::from_secs(30)));
    let offered = OFFERED | ProtocolFeatures::INFLIGHT_SHMFD;
    assert_eq!(frontend.protocol_features().unwrap(), offered);
    frontend.set_protocol_features(offered).unwrap();
    assert!(
        frontend.inflight(9, 128).unwrap().is_none(),
        "refused: there is no record"
    );
    let (inflight, file) = frontend.inflight(2, 128).unwrap().unwrap();
    let expected = Inflight {
        mmap_size: 4096,
        mmap_offset: 0,
        num_queues: 2,
        queue_size: 128,
        padding: 0,
    };
    assert_eq!(inflight, expected);
    frontend.set_inflight(inflight, file.as_fd()).unwrap();
    drop(frontend);
    let (recorded, back) = backend.join().unwrap().inflight.unwrap();
    assert_eq!(recorded, expected);
    assert!(same_event(file, back));
}

#[test]
fn a_refused_request_is_acknowledged_as_such_and_the_session_goes_on() {
    let (mut frontend, _backend) = negotiated();
    let refused = frontend.set_vring_num(9, 128).unwrap_err();
    assert!(
        matches!(
            refused,
            Error::Refused {
                request: RequestCode::SetVringNum,
                status: 1
            }
        ),
        "{refused}"
    );
    let malformed = frontend.set_vring_num(0, 0).unwrap_err();
    assert!(
        matches!(
            malformed,
            Error::Refused {
                request: RequestCode::SetVringNum,
                ..
            }
        ),
        "{malformed}"
    );
    let beyond = frontend.config(38, 4).unwrap_err();
    assert!(
        matches!(
            beyond,
            Error::Reply {
                request: RequestCode::GetConfig,
                ..
            }
        ),
        "{beyond}"
    );
    frontend.set_vring_num(0, 128).unwrap();
}

#[test]
fn a_base_that_does_not_exist_ends_the_session() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let backend = thread::spawn(move || {
        let mut session = vhost_user::backend::Session::new(theirs);
        loop {
            match session.serve(&mut Recorder::default()) {
                Ok(_) => thread::yield_now(),
                Err(error) => return error,
            }
        }
    });
    let mut frontend = Frontend::new(ours, Some(Duration::from_secs(30)));
    assert!(matches!(frontend.vring_base(9), Err(Error::Reply { .. })));
    let error = backend.join().unwrap();
    assert!(
        matches!(
            error,
            Error::Unanswerable {
                request: RequestCode::GetVringBase,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn what_was_not_negotiated_is_not_sent() {
    let (mut frontend, _backend) = connect();
    let error = frontend.reset_device().unwrap_err();
    assert!(
        matches!(
            error,
            Error::NotNegotiated {
                feature: ProtocolFeatures::RESET_DEVICE,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_silent_backend_is_given_up() {
    let (ours, _silent) = UnixStream::pair().unwrap();
    let mut frontend = Frontend::new(ours, Some(Duration::from_millis(1)));
    assert!(matches!(frontend.features(), Err(Error::Timeout(_))));
}

#[test]
fn only_implemented_protocol_features_are_offered() {
    // 6 and 8 (endianness, page faults), 14 and 17 (in-band notifications, Xen) and 21 (guest addresses) would be
    // acknowledged by QEMU and used; 1 (dirty log) is not written.
    for bit in [1, 2, 4, 6, 7, 8, 11, 12, 14, 17, 18, 19, 20, 21, 22] {
        assert_eq!(OFFERED.bits() >> bit & 1, 0, "bit {bit}");
    }
    for bit in [0, 3, 5, 9, 10, 13, 15, 16] {
        assert_eq!(OFFERED.bits() >> bit & 1, 1, "bit {bit}");
    }
}

/// User-Mode Linux 6.1 gives a pipe for requests of the backend, on which no answer can come.
#[test]
fn requests_without_answer_go_through_a_pipe_and_others_fail_at_once() {
    for flags in [PipeFlags::CLOEXEC, PipeFlags::CLOEXEC | PipeFlags::NONBLOCK] {
        let (reader, writer) = pipe_with(flags).unwrap();
        let mut channel = Channel::new(writer);
        channel.config_changed().unwrap();
        let mut bytes = [0; 100];
        let length = rustix::io::read(&reader, &mut bytes).unwrap();
        let message = [BackendRequestCode::ConfigChange as u32, 1, 0];
        assert_eq!(bytes[..length], *message.as_bytes());

        let mapping = SharedMapping {
            region: 0,
            padding: [0; 7],
            file_offset: 0,
            offset: 0,
            length: 4096,
            flags: 0,
        };
        let wait = Wait {
            limit: Duration::from_secs(1000),
            stop: None,
        };
        let file = event();
        let mapped = channel.map(&mapping, file.as_fd(), wait).unwrap_err();
        assert!(matches!(mapped, Error::Socket { .. }), "{mapped}");
        let unmapped = channel.unmap(&mapping, wait).unwrap_err();
        assert!(matches!(unmapped, Error::Socket { .. }), "{unmapped}");

        // Full, then without a reader.
        let full = loop {
            if let Err(error) = channel.config_changed() {
                break error;
            }
        };
        assert!(matches!(full, Error::Socket { .. }), "{full}");
        drop(reader);
        assert!(channel.config_changed().is_err());
    }
}
