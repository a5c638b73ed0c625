//! A peer that breaks the framing loses its session; one that sends well-framed nonsense gets an error.

use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vhost_user::backend::{OFFERED, Served, Session};
use vhost_user::message::{FLAG_NEED_REPLY, HEADER_SIZE, Header, MAX_PAYLOAD};
use vhost_user::socket::{Socket, Timeout};
use vhost_user::{Error, Malformed, RequestCode};
use zerocopy::IntoBytes;

use crate::recorder::Recorder;

const VERSION: u32 = 1;

fn pair() -> (UnixStream, Session) {
    let (peer, ours) = UnixStream::pair().unwrap();
    (peer, Session::new(ours))
}

fn header(code: RequestCode, flags: u32, size: u32) -> Vec<u8> {
    Header {
        request: code as u32,
        flags,
        size,
    }
    .as_bytes()
    .to_vec()
}

fn served(session: &mut Session) -> Served<String> {
    session.serve(&mut Recorder::default()).unwrap()
}

fn failed(session: &mut Session) -> Error {
    session.serve(&mut Recorder::default()).unwrap_err()
}

fn send_with_files(peer: &UnixStream, bytes: &[u8], files: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(files)));
    sendmsg(
        peer,
        &[std::io::IoSlice::new(bytes)],
        &mut ancillary,
        SendFlags::empty(),
    )
    .unwrap();
}

fn negotiate(peer: &mut UnixStream, session: &mut Session) {
    let mut features = header(RequestCode::SetProtocolFeatures, VERSION, 8);
    features.extend(OFFERED.bits().to_ne_bytes());
    peer.write_all(&features).unwrap();
    assert!(matches!(served(session), Served::Granted(_)));
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_message_may_come_byte_by_byte() {
    let (mut peer, mut session) = pair();
    let mut bytes = header(RequestCode::SetVringNum, VERSION, 8);
    bytes.extend([0, 0, 0, 0, 128, 0, 0, 0]);
    for byte in &bytes {
        assert!(matches!(served(&mut session), Served::Pending));
        peer.write_all(&[*byte]).unwrap();
    }
    assert!(matches!(
        served(&mut session),
        Served::Granted(RequestCode::SetVringNum)
    ));
}

#[test]
fn files_of_the_next_message_stay_with_it() {
    let (mut peer, mut session) = pair();
    peer.write_all(&header(RequestCode::SetOwner, VERSION, 0)).unwrap();
    let mut bytes = header(RequestCode::SetVringKick, VERSION, 8);
    bytes.extend(1_u64.to_ne_bytes());
    send_with_files(&peer, &bytes, &[peer.as_fd()]);
    let mut recorder = Recorder::default();
    assert!(matches!(
        session.serve(&mut recorder),
        Ok(Served::Granted(RequestCode::SetOwner))
    ));
    assert!(matches!(
        session.serve(&mut recorder),
        Ok(Served::Granted(RequestCode::SetVringKick))
    ));
    let file = recorder.events.remove(&("kick", 1)).unwrap().unwrap();
    let flags = rustix::io::fcntl_getfd(&file).unwrap();
    assert!(
        flags.contains(rustix::io::FdFlags::CLOEXEC),
        "descriptors must not leak into children"
    );
}

#[test]
fn an_end_between_messages_is_an_end_and_one_inside_is_an_error() {
    for (sent, whole) in [(0, true), (5, false), (HEADER_SIZE, false), (HEADER_SIZE + 3, false)] {
        let (mut peer, mut session) = pair();
        let mut bytes = header(RequestCode::SetFeatures, VERSION, 8);
        bytes.extend([0; 8]);
        peer.write_all(&bytes[..sent]).unwrap();
        drop(peer);
        match session.serve(&mut Recorder::default()) {
            Ok(Served::Closed) => assert!(whole, "{sent} bytes"),
            Err(Error::Truncated { received, .. }) => assert_eq!((received, whole), (sent, false)),
            other => panic!("{sent} bytes: {other:?}"),
        }
    }
}

#[test]
fn a_message_that_is_too_long_ends_the_session_before_it_arrives() {
    let (mut peer, mut session) = pair();
    peer.write_all(&header(RequestCode::SetConfig, VERSION, MAX_PAYLOAD as u32 + 1))
        .unwrap();
    assert!(matches!(failed(&mut session), Error::TooLong { .. }));
}

#[test]
fn another_version_ends_the_session() {
    let (mut peer, mut session) = pair();
    peer.write_all(&header(RequestCode::SetOwner, 2, 0)).unwrap();
    assert!(matches!(failed(&mut session), Error::Version { flags: 2, .. }));
}

#[test]
fn too_many_files_end_the_session_and_are_closed() {
    for count in [9, 20] {
        let (peer, mut session) = pair();
        let files = vec![peer.as_fd(); count];
        let bytes = header(RequestCode::SetMemoryTable, VERSION, 0);
        let before = open_files();
        send_with_files(&peer, &bytes, &files);
        assert!(matches!(failed(&mut session), Error::TooManyFiles), "{count} files");
        drop(session);
        // The session's own socket is gone as well.
        assert_eq!(open_files(), before - 1, "{count} files");
    }
}

#[test]
fn files_are_counted_over_all_parts_of_a_message() {
    let (peer, mut session) = pair();
    let files = vec![peer.as_fd(); 5];
    let bytes = header(RequestCode::SetMemoryTable, VERSION, 64);
    send_with_files(&peer, &bytes, &files);
    send_with_files(&peer, &[0; 32], &files);
    assert!(matches!(failed(&mut session), Error::TooManyFiles));
}

#[test]
fn files_of_a_malformed_message_are_closed() {
    let (peer, mut session) = pair();
    let before = open_files();
    send_with_files(&peer, &header(RequestCode::SetOwner, VERSION, 0), &[peer.as_fd(); 3]);
    assert!(matches!(
        served(&mut session),
        Served::Malformed(Malformed::Files {
            files: 3,
            expected: 0,
            ..
        })
    ));
    assert_eq!(open_files(), before);
}

#[test]
fn unknown_and_malformed_requests_are_refused_if_the_peer_asked() {
    let (mut peer, mut session) = pair();
    negotiate(&mut peer, &mut session);

    let unknown = Header {
        request: 99,
        flags: VERSION | FLAG_NEED_REPLY,
        size: 0,
    };
    peer.write_all(unknown.as_bytes()).unwrap();
    assert!(matches!(
        served(&mut session),
        Served::Malformed(Malformed::Unknown(99))
    ));
    let mut socket = Socket::new(peer.try_clone().unwrap());
    let reply = socket.receive(Timeout(None)).unwrap().unwrap();
    assert_eq!((reply.header.request, &reply.payload[..]), (99, 1_u64.as_bytes()));

    peer.write_all(&header(RequestCode::SetVringNum, VERSION | FLAG_NEED_REPLY, 0))
        .unwrap();
    assert!(matches!(
        served(&mut session),
        Served::Malformed(Malformed::Size { .. })
    ));
    assert_ne!(
        socket.receive(Timeout(None)).unwrap().unwrap().payload,
        0_u64.as_bytes()
    );
}

#[test]
fn an_acknowledgement_is_not_sent_before_it_is_negotiated() {
    let (mut peer, mut session) = pair();
    peer.write_all(&header(RequestCode::SetOwner, VERSION | FLAG_NEED_REPLY, 0))
        .unwrap();
    assert!(matches!(served(&mut session), Served::Granted(RequestCode::SetOwner)));
    peer.set_nonblocking(true).unwrap();
    let nothing = std::io::Read::read(&mut peer, &mut [0; 1]).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_request_without_its_feature_is_refused_and_one_that_waits_for_data_ends_the_session() {
    let (mut peer, mut session) = pair();
    peer.write_all(&header(RequestCode::ResetDevice, VERSION, 0)).unwrap();
    assert!(matches!(
        served(&mut session),
        Served::Malformed(Malformed::NotNegotiated { .. })
    ));
    peer.write_all(&header(RequestCode::GetQueueNum, VERSION, 0)).unwrap();
    assert!(matches!(
        failed(&mut session),
        Error::Unanswerable {
            request: RequestCode::GetQueueNum,
            ..
        }
    ));
}

#[test]
fn a_config_that_cannot_be_read_is_answered_without_bytes_and_the_session_goes_on() {
    fn ask(peer: &mut UnixStream, session: &mut Session, offset: u32, size: u32) -> (Served<String>, Vec<u8>) {
        peer.write_all(&header(RequestCode::GetConfig, VERSION, 12)).unwrap();
        peer.write_all([offset, size, 0].as_bytes()).unwrap();
        let served = served(session);
        let mut socket = Socket::new(peer.try_clone().unwrap());
        let reply = socket.receive(Timeout(None)).unwrap().unwrap();
        assert_eq!(reply.header.request, RequestCode::GetConfig as u32);
        (served, reply.payload)
    }

    let (mut peer, mut session) = pair();
    let (served, reply) = ask(&mut peer, &mut session, 0, 40);
    assert!(matches!(served, Served::Malformed(Malformed::NotNegotiated { .. })));
    assert_eq!(reply, [0; 12]);

    negotiate(&mut peer, &mut session);
    for (offset, size) in [(256, 1), (0, 257), (u32::MAX, u32::MAX)] {
        let (served, reply) = ask(&mut peer, &mut session, offset, size);
        assert!(matches!(served, Served::Malformed(Malformed::Value { .. })));
        assert_eq!(reply, [0; 12], "{size} bytes at {offset}");
    }
    let (served, reply) = ask(&mut peer, &mut session, 39, 1);
    assert!(matches!(served, Served::Granted(RequestCode::GetConfig)));
    assert_eq!(reply, [[39, 1, 0].as_bytes(), &[39]].concat());
}

#[test]
fn a_peer_that_never_reads_its_replies_does_not_block_the_session() {
    let (mut peer, mut session) = pair();
    let question = header(RequestCode::GetFeatures, VERSION, 0);
    let mut recorder = Recorder::default();
    loop {
        peer.write_all(&question).unwrap();
        match session.serve(&mut recorder) {
            Ok(_) => {}
            Err(error) => {
                assert!(matches!(error, Error::Socket { .. }), "{error}");
                break;
            }
        }
    }
}
