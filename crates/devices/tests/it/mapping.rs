//! A guest with a window whose front end is the test itself, which controls when and how it answers.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use driver::fs::{ROOT, Request, field_u64};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost_user::channel::{BackendRequest, BackendRequests};
use vhost_user::message::SharedMapping;

use crate::daemon::{Client, Daemon, options};

/// What Linux maps at once.
pub(crate) const UNIT: u64 = 2 << 20;
const SETUPMAPPING: u32 = 48;

/// A guest with a session, the front end's end of the channel, and a file of two units.
pub(crate) struct Mapping {
    pub(crate) client: Client,
    pub(crate) channel: BackendRequests,
    /// The node of the file.
    pub(crate) node: u64,
    pub(crate) daemon: Daemon,
}

impl Mapping {
    pub(crate) fn new(packed: bool) -> Self {
        let daemon = Daemon::with_window(8 * UNIT);
        fs::write(daemon.share().join("file"), vec![7; 2 * UNIT as usize]).unwrap();
        let mut client = daemon.connect(&options(packed, 1));
        let (ours, theirs) = UnixStream::pair().unwrap();
        client.guest.frontend().set_backend_channel(theirs.as_fd()).unwrap();
        client.init();
        let node = field_u64(&client.ask(|requests| requests.lookup(ROOT, b"file")).unwrap(), 0);
        Self {
            client,
            channel: BackendRequests::new(ours),
            node,
            daemon,
        }
    }

    /// SETUPMAPPING of the file's first unit, for reading, to this offset of the window.
    pub(crate) fn setup(&mut self, offset: u64) -> Request {
        let fields = [u64::MAX, 0, UNIT, 2, offset];
        let arguments: Vec<u8> = fields.into_iter().flat_map(u64::to_le_bytes).collect();
        self.client.requests.raw(SETUPMAPPING, self.node, &[&arguments], 16)
    }

    /// Sends it without waiting.
    pub(crate) fn submit_setup(&mut self, offset: u64) {
        let request = self.setup(offset);
        self.submit(&request);
    }

    pub(crate) fn submit(&mut self, request: &Request) {
        let queue = &mut self.client.guest.queues[1];
        queue.submit(&request.readable, request.reply_space).unwrap();
    }

    /// The errno that the guest gets for what was submitted, 0 for none.
    pub(crate) fn errno(&mut self) -> i32 {
        let (_, written, reply) = self.client.guest.queues[1].wait().unwrap();
        assert_eq!(written, 16);
        -i32::from_le_bytes(reply[4..8].try_into().unwrap())
    }

    /// Waits for SHMEM_MAP, does something, and then grants it.
    pub(crate) fn answer_map(
        &mut self,
        before_the_answer: impl FnOnce(&mut Client, &SharedMapping, BorrowedFd<'_>),
    ) -> SharedMapping {
        let mut asked = None;
        let client = &mut self.client;
        let serve = |request| match request {
            BackendRequest::Map(mapping, file) => {
                before_the_answer(client, &mapping, file.as_fd());
                asked = Some(mapping);
                0
            }
            _ => 1,
        };
        assert!(readable(&self.channel, 30), "the device asks for no mapping");
        assert!(self.channel.serve(serve).unwrap());
        asked.expect("SHMEM_MAP")
    }

    pub(crate) fn assert_nothing_more_is_asked(&self) {
        assert!(!readable(&self.channel, 0), "the mapping is made once");
    }
}

/// Whether the device asks for something within so many seconds.
pub(crate) fn readable(channel: &BackendRequests, seconds: i64) -> bool {
    let limit = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    poll(&mut [PollFd::new(channel, PollFlags::IN)], Some(&limit)).unwrap() > 0
}
