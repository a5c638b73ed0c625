//! Arbitrary bytes as a vhost-user session: the daemon answers or closes the connection, and leaks no descriptors,
//! threads or mappings. The fuzz target `session` runs the same body.

mod files;
mod messages;
mod rings;

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, recv, sendmsg, shutdown};
use vhost_user::channel::BackendRequests;
use vhost_user::message::{FLAG_REPLY, HEADER_SIZE, Header, MAX_PAYLOAD, RequestCode};
use zerocopy::{FromBytes, IntoBytes};

use self::files::Files;
use self::messages::Sent;
use self::rings::Rings;
use crate::bytes::Bytes;
use crate::daemon::{Daemon, LIMIT};
use crate::resources::Resources;

const WINDOW: u64 = 2 << 20;
/// Longer sessions take no input to new places.
const MOST_MESSAGES: u32 = 200;

/// What came back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) replies: u32,
    /// FUSE requests that the device has answered.
    pub(crate) answered: u32,
}

/// Runs the sessions that the bytes describe, one or two.
pub(crate) fn run(bytes: &[u8]) -> Outcome {
    let start = Resources::now();
    let daemon = Daemon::sharing(WINDOW, |share| {
        std::fs::write(share.join("a"), vec![7; 3 * 4096]).expect("a file");
        std::fs::create_dir(share.join("b")).expect("a directory");
    });
    let before = Resources::now();
    let mut outcome = Outcome::default();
    let mut bytes = Bytes(bytes);
    let two = bytes.u8() % 8 == 0;
    let (first, second) = bytes.0.split_at(if two { bytes.0.len() / 2 } else { bytes.0.len() });
    for bytes in [first, second] {
        if !bytes.is_empty() {
            let came = Frontend::connect(&daemon).run(&mut Bytes(bytes));
            outcome.replies += came.replies;
            outcome.answered += came.answered;
            before.await_return();
        }
    }
    drop(daemon);
    start.await_return();
    outcome
}

/// A front end that has connected.
struct Frontend {
    stream: UnixStream,
    files: Files,
    rings: Rings,
    /// Ends of channels that the backend was given.
    channels: Vec<BackendRequests>,
    /// How its requests on channels are answered; `None`: not at all.
    status: Option<u64>,
    /// Bytes of a reply that is not whole.
    arrived: Vec<u8>,
    /// The last message may not have been whole, so that the next one is part of it.
    torn: bool,
    closed: bool,
    outcome: Outcome,
}

impl Frontend {
    fn connect(daemon: &Daemon) -> Self {
        let files = Files::new();
        Self {
            stream: UnixStream::connect(daemon.socket()).expect("a connection"),
            rings: Rings::default(),
            files,
            channels: Vec::new(),
            status: Some(0),
            arrived: Vec::new(),
            torn: false,
            closed: false,
            outcome: Outcome::default(),
        }
    }

    fn run(mut self, bytes: &mut Bytes<'_>) -> Outcome {
        if bytes.u8() < 224 {
            let features = self.rings.features(bytes.u8());
            for sent in messages::negotiation(features) {
                self.send(&sent);
            }
            self.give_channel();
        }
        let mut count = 0;
        while !bytes.is_empty() && count < MOST_MESSAGES && !self.closed {
            count += 1;
            match bytes.u8() {
                0..=39 => {
                    let queue = bytes.u8() & 1;
                    for sent in self.rings.start(queue, bytes) {
                        self.send(&sent);
                    }
                }
                40..=119 => self.rings.request(bytes, &self.files),
                120..=199 => {
                    let sent = messages::valid(bytes);
                    self.send(&sent);
                }
                200..=215 => self.send(&messages::stop(bytes)),
                216..=227 => self.rings.poke(bytes, &self.files),
                228..=231 => self.give_channel(),
                232..=235 => {
                    self.status = match bytes.u8() {
                        0..=127 => Some(0),
                        128..=191 => Some(12),
                        _ => None,
                    }
                }
                _ => {
                    let sent = messages::malformed(bytes);
                    self.send(&sent);
                }
            }
        }
        self.close();
        self.outcome.answered = self.rings.answered(&self.files);
        self.outcome
    }

    /// Hands the backend a channel for its own requests.
    fn give_channel(&mut self) {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let sent = Sent::new(RequestCode::SetBackendReqFd as u32, &[]);
        self.channels.push(BackendRequests::new(ours));
        self.transmit(&sent, &[theirs.as_fd()]);
        self.synchronize();
    }

    /// Sends a message, and waits until the backend has come to it.
    fn send(&mut self, sent: &Sent) {
        let files = std::mem::replace(&mut self.files, Files::none());
        let borrowed: Vec<_> = sent.files.iter().map(|choice| files.get(*choice)).collect();
        self.transmit(sent, &borrowed);
        drop(borrowed);
        self.files = files;
        self.torn |= sent.torn;
        if !self.torn {
            self.synchronize();
        }
    }

    /// Waits for the reply to GET_FEATURES, behind those to all earlier messages, or for the end of the connection.
    fn synchronize(&mut self) {
        if self.torn {
            return;
        }
        self.transmit(&Sent::new(RequestCode::GetFeatures as u32, &[]), &[]);
        while !self.closed && !self.receive() {
            self.wait(PollFlags::IN);
        }
    }

    fn transmit(&mut self, sent: &Sent, files: &[BorrowedFd<'_>]) {
        let mut bytes = &sent.bytes[..];
        let mut files = files;
        while !self.closed && !bytes.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !files.is_empty() {
                assert!(
                    ancillary.push(SendAncillaryMessage::ScmRights(files)),
                    "there is room for 16"
                );
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut ancillary, flags) {
                Ok(count) => {
                    bytes = &bytes[count..];
                    files = &[];
                }
                Err(Errno::AGAIN) => {
                    self.receive();
                    self.wait(PollFlags::IN | PollFlags::OUT);
                }
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => self.closed = true,
                Err(errno) => panic!("cannot send: {errno}"),
            }
        }
    }

    /// Waits until something happens on the connection or a channel, and answers on channels.
    fn wait(&mut self, events: PollFlags) {
        let limit = Timespec::try_from(LIMIT).expect("it is short");
        let channels = if self.status.is_some() { &self.channels[..] } else { &[] };
        let mut waited: Vec<_> = channels
            .iter()
            .map(|channel| PollFd::from_borrowed_fd(channel.as_fd(), PollFlags::IN))
            .collect();
        waited.push(PollFd::from_borrowed_fd(self.stream.as_fd(), events));
        let started = Instant::now();
        while let Err(errno) = poll(&mut waited, Some(&limit)) {
            assert_eq!(errno, Errno::INTR);
        }
        let ready: Vec<_> = waited.iter().map(PollFd::revents).collect();
        assert!(
            ready.iter().any(|events| !events.is_empty()),
            "the daemon hangs: nothing for {:?}",
            started.elapsed()
        );
        self.answer(&ready);
    }

    /// Answers the backend's requests on channels with something to read. One that the backend has closed is given up.
    fn answer(&mut self, ready: &[PollFlags]) {
        let Some(status) = self.status else { return };
        let mut index = 0;
        self.channels.retain_mut(|channel| {
            let events = ready[index];
            index += 1;
            events.is_empty() || matches!(channel.serve(|_| status), Ok(true))
        });
    }

    /// Takes the replies that have come. True if GET_FEATURES was among them.
    fn receive(&mut self) -> bool {
        let mut features = false;
        let mut buffer = [0; 4096];
        loop {
            match recv(&self.stream, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) | Err(Errno::CONNRESET) => {
                    self.closed = true;
                    break;
                }
                Ok((count, _)) => self.arrived.extend(&buffer[..count]),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(errno) => panic!("cannot receive: {errno}"),
            }
        }
        while let Some(header) = self.arrived.get(..HEADER_SIZE) {
            let header = Header::read_from_bytes(header).expect("a header's bytes");
            assert_eq!(header.flags & 3, 1, "version of {header:?}");
            assert!(header.flags & FLAG_REPLY != 0, "no reply: {header:?}");
            assert!(header.size as usize <= MAX_PAYLOAD, "{header:?}");
            let length = HEADER_SIZE + header.size as usize;
            if self.arrived.len() < length {
                break;
            }
            self.arrived.drain(..length);
            self.outcome.replies += 1;
            features |= header.request == RequestCode::GetFeatures as u32;
        }
        features
    }

    /// Says that nothing more comes, and waits for the backend to close its end.
    fn close(&mut self) {
        if shutdown(&self.stream, Shutdown::Write).is_err() {
            self.closed = true;
        }
        while !self.closed {
            self.receive();
            if !self.closed {
                self.wait(PollFlags::IN);
            }
        }
    }
}

/// A message with header.
fn framed(request: u32, flags: u32, size: usize, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        request,
        flags,
        size: size as u32,
    };
    [header.as_bytes(), payload].concat()
}
