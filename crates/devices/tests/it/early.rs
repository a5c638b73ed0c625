//! Replies in the middle of a batch: a waiting guest gets them before the lane has served the requests behind.

use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use driver::fs::ROOT;
use fuse::fs::{Caller, FileSystem, Handle, NodeId, Result};
use fuse::wire::{self, InitFlags};
use rstest::rstest;

use crate::daemon::{Daemon, options};

/// The node whose attributes wait until the gate opens.
const GATED: u64 = 2;

/// A file system whose attributes take longer than a lane keeps a guest waiting.
#[derive(Clone, Default)]
struct Gated(Arc<(Mutex<bool>, Condvar)>);

impl Gated {
    fn open(&self) {
        let (open, news) = &*self.0;
        *open.lock().unwrap() = true;
        news.notify_all();
    }
}

impl FileSystem for Gated {
    fn wants(&self, _offered: InitFlags) -> InitFlags {
        InitFlags::empty()
    }

    fn getattr(&self, _by: &Caller, node: NodeId, _handle: Option<Handle>) -> Result<(wire::Attr, Duration)> {
        if node.0 == GATED {
            let (open, news) = &*self.0;
            drop(news.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
        }
        thread::sleep(Duration::from_millis(2));
        Ok((wire::Attr::default(), Duration::ZERO))
    }
}

/// Opens the gate at the end of a test, however it ends: the daemon waits for its lane.
struct OpenAtLast(Gated);

impl Drop for OpenAtLast {
    fn drop(&mut self) {
        self.0.open();
    }
}

#[rstest]
fn a_reply_does_not_wait_for_the_requests_behind_it(#[values(false, true)] packed: bool) {
    let gated = Gated::default();
    let daemon = Daemon::of(gated.clone());
    let _open = OpenAtLast(gated.clone());
    let mut client = daemon.connect(&options(packed, 1));
    client.init();
    let messages = [ROOT, GATED].map(|node| client.requests.getattr(node));
    let queue = &mut client.guest.queues[1];
    let tickets = messages.map(|message| queue.submit(&message.readable, message.reply_space).unwrap());
    assert_eq!(queue.wait().unwrap().0, tickets[0]);
    gated.open();
    assert_eq!(queue.wait().unwrap().0, tickets[1]);
}
