//! virtio-fs (VIRTIO 1.2 5.11): queue 0 is hiprio, all others carry requests, and a FUSE server answers on all
//! queues.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use backend::{Device, Lane, Lanes, Queues, Setup, ThreadStart};
use fuse::deferred::{Answer, OnBlock};
use fuse::fs::FileSystem;
use fuse::server::Server;

use crate::deferral::{DeferredChains, Helpers};

/// The longest tag in bytes (VIRTIO 1.2 5.11.4).
pub const TAG_MAX: usize = 36;
/// Maximum number of request queues of one device. Linux uses at most one per processor.
pub const REQUEST_QUEUES_MAX: u16 = 64;

/// Index of the queue for FORGET and INTERRUPT (VIRTIO 1.2 5.11.2).
const HIPRIO: u16 = 0;

/// Id of the shared memory region for DAX (VIRTIO 1.2 5.11.4).
const WINDOW: u8 = 0;

/// How long FORGETs wait after others were served: with one per removed file, the wake-ups would cost more than the
/// FORGETs themselves. A queue of 64 then takes 300,000 a second.
const FORGET_REST: Duration = Duration::from_micros(200);

/// Maximum number of helper threads of one device.
pub const HELPER_THREADS_MAX: u16 = 256;

/// Options of a file system device.
#[derive(Clone, Debug)]
pub struct FsOptions {
    /// Name by which the guest mounts the share: 1 to 36 bytes without NUL.
    pub tag: String,
    /// Request queues besides hiprio, 1 to [`REQUEST_QUEUES_MAX`].
    pub request_queues: u16,
    /// Called by each thread for blocking reads before its first one.
    pub at_helper_start: ThreadStart,
    /// Size in bytes of the window that files are mapped into, a multiple of [`WINDOW_UNIT`]; 0 for no DAX.
    pub window_size: u64,
    /// Limits of the reads that leave the threads of their queues.
    pub deferral: Deferral,
}

/// Limits of deferred reads: those that wait for data on a helper thread, so that the requests behind them do not wait. A read
/// beyond the limits waits on the thread of its queue, and delays the requests behind it; no request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deferral {
    /// Helper threads of all queues together, 0 to [`HELPER_THREADS_MAX`], started when they are needed. With 0, no read is
    /// deferred.
    pub threads: u16,
    /// Deferred reads per queue, whether a thread is free or not. Each keeps a list of its buffers, whose length the guest chooses:
    /// up to 24 KiB.
    pub reads_per_queue: u16,
}

impl Default for Deferral {
    /// 16 threads, as many as a disk usefully has requests at a time, and 256 reads, twice as many as QEMU's queues hold requests.
    fn default() -> Self {
        Self {
            threads: 16,
            reads_per_queue: 256,
        }
    }
}

impl Deferral {
    /// Reads that a queue can defer at a time.
    fn most(self) -> usize {
        match self.threads {
            0 => 0,
            _ => self.reads_per_queue.into(),
        }
    }
}

impl Default for FsOptions {
    /// One request queue and no window, with the tag `share`.
    fn default() -> Self {
        Self {
            tag: "share".into(),
            request_queues: 1,
            window_size: 0,
            deferral: Deferral::default(),
            at_helper_start: ThreadStart::default(),
        }
    }
}

/// Unit of the window size in bytes: Linux maps files in ranges of 2 MiB and cannot use the rest of a window.
pub const WINDOW_UNIT: u64 = 2 << 20;

/// Errors in [`FsOptions`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// The tag does not fit its field, or is not a C string.
    #[error("the tag {0:?} must have 1 to {TAG_MAX} bytes, none of them NUL")]
    Tag(String),
    /// No queue, or too many.
    #[error("{0} request queues: there must be 1 to {REQUEST_QUEUES_MAX}")]
    RequestQueues(u16),
    /// The window has a size that Linux cannot use.
    #[error("a window of {0} bytes: the size must be a multiple of {WINDOW_UNIT} bytes")]
    WindowSize(u64),
    /// Too many threads.
    #[error("{0} helper threads: there must be at most {HELPER_THREADS_MAX}")]
    HelperThreads(u16),
}

/// A file system as a VIRTIO device.
pub struct FsDevice<F> {
    options: FsOptions,
    server: Arc<Server<F>>,
    helpers: Arc<Helpers>,
}

impl<F: FileSystem> FsDevice<F> {
    /// Makes a device whose requests `server` answers.
    pub fn new(options: FsOptions, server: Server<F>) -> Result<Self, OptionsError> {
        let FsOptions {
            tag, request_queues, ..
        } = &options;
        if tag.is_empty() || tag.len() > TAG_MAX || tag.contains('\0') {
            return Err(OptionsError::Tag(tag.clone()));
        }
        if !(1..=REQUEST_QUEUES_MAX).contains(request_queues) {
            return Err(OptionsError::RequestQueues(*request_queues));
        }
        if !options.window_size.is_multiple_of(WINDOW_UNIT) {
            return Err(OptionsError::WindowSize(options.window_size));
        }
        let threads = options.deferral.threads;
        if threads > HELPER_THREADS_MAX {
            return Err(OptionsError::HelperThreads(threads));
        }
        Ok(Self {
            helpers: Arc::new(Helpers::new(threads.into(), options.at_helper_start.clone())),
            options,
            server: Arc::new(server),
        })
    }
}

impl<F: FileSystem + 'static> Device for FsDevice<F> {
    fn queue_count(&self) -> u16 {
        1 + self.options.request_queues
    }

    /// `struct virtio_fs_config`: the tag, padded with NUL, and the number of request queues.
    fn config(&self) -> Vec<u8> {
        let mut config = self.options.tag.clone().into_bytes();
        config.resize(TAG_MAX, 0);
        config.extend(u32::from(self.options.request_queues).to_le_bytes());
        config
    }

    fn shared_memory(&self) -> Vec<(u8, u64)> {
        match self.options.window_size {
            0 => Vec::new(),
            size => vec![(WINDOW, size)],
        }
    }

    fn start(&self, setup: &Setup, lanes: &mut Lanes) -> io::Result<()> {
        self.server.set_window(setup.window(WINDOW));
        let server = || Arc::clone(&self.server);
        lanes.add(&[HIPRIO], |_| HighPriorityLane { server: server() })?;
        let most = self.options.deferral.most();
        for index in 1..self.queue_count() {
            lanes.add(&[index], |waker| RequestLane {
                server: server(),
                deferred: DeferredChains::new(Arc::clone(&self.helpers), index, most, waker.clone()),
            })?;
        }
        Ok(())
    }

    fn reset(&self) {
        self.server.reset();
    }

    fn end(&self) {
        self.server.set_window(None);
        self.server.reset();
    }
}

/// The lane of hiprio, so that FORGET never waits for a request (VIRTIO 1.2 5.11.6.2).
struct HighPriorityLane<F> {
    server: Arc<Server<F>>,
}

impl<F: FileSystem> Lane for HighPriorityLane<F> {
    fn serve(&mut self, index: u16, queues: &mut Queues) {
        queues.serve(index, |mut chain| {
            match self.server.dispatch_high_priority(&mut chain.reader, &mut chain.writer) {
                Answer::Done(written) => chain.done(written),
                // Nothing that the server takes from this queue waits for data.
                Answer::PutOff | Answer::Deferred(_) => chain.put_back(),
            }
        });
    }

    fn rest(&self) -> Duration {
        FORGET_REST
    }
}

/// The lane of one request queue. Reads that wait for data do so on other threads, so that the requests behind them
/// do not wait.
struct RequestLane<F> {
    server: Arc<Server<F>>,
    deferred: DeferredChains,
}

impl<F: FileSystem + 'static> Lane for RequestLane<F> {
    fn serve(&mut self, index: u16, queues: &mut Queues) {
        queues.serve(index, |mut chain| {
            let on_block = if self.deferred.is_full() {
                OnBlock::Wait
            } else {
                OnBlock::Defer
            };
            match self.server.dispatch(&mut chain.reader, &mut chain.writer, on_block) {
                Answer::Done(written) => chain.done(written),
                Answer::PutOff => chain.put_back(),
                Answer::Deferred(read) => {
                    let (pending, outcome) = chain.keep();
                    let server = Arc::clone(&self.server);
                    self.deferred
                        .hand_out(pending, move |_, writer| server.finish(read, writer));
                    outcome
                }
            }
        });
    }

    fn complete(&mut self, queues: &mut Queues) {
        self.deferred.complete(queues);
    }

    fn settle(&mut self, _index: u16, queues: &mut Queues) {
        self.deferred.settle(queues);
    }
}
