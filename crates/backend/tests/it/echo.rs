//! A device that answers every request with its own bytes, on a socket, and its guest.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use backend::{ConfigChanges, ConfigRefused, Device, Files, Interest, Lane, Lanes, Queues, Setup};
use driver::{Guest, Options};
use guestmem::Memory;
use rustix::event::{EventfdFlags, eventfd};
use tempfile::TempDir;
use virtqueue::features::TRANSPORT;

/// Answered at once, by one lane with [`PATIENT`].
pub(crate) const PROMPT: u16 = 0;
/// Requests wait for the doorbell, one ring for each.
pub(crate) const PATIENT: u16 = 1;
/// Answered at once, by a lane of its own.
pub(crate) const ALONE: u16 = 2;
/// Served by no lane.
pub(crate) const ORPHAN: u16 = 3;
const QUEUES: u16 = 4;

/// Feature bit of the device's own.
pub(crate) const FEATURE: u64 = 1 << 3;
/// Bytes of configuration space, of which the first half can be written.
pub(crate) const CONFIG_SIZE: usize = 16;
/// The number of the doorbell among the files of its lane.
const DOORBELL: u64 = 77;

pub(crate) struct Echo {
    config: Mutex<Vec<u8>>,
    changes: Mutex<ConfigChanges>,
    doorbell: Arc<OwnedFd>,
    pub(crate) seen: Arc<Seen>,
}

/// What a device was told of.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) starts: AtomicUsize,
    pub(crate) resets: AtomicUsize,
    pub(crate) ends: AtomicUsize,
    pub(crate) memories: AtomicUsize,
    pub(crate) features: Mutex<u64>,
}

impl Echo {
    pub(crate) fn new() -> Echo {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK | EventfdFlags::SEMAPHORE;
        Echo {
            config: Mutex::new((1..=CONFIG_SIZE as u8).collect()),
            changes: Mutex::default(),
            doorbell: Arc::new(eventfd(0, flags).unwrap()),
            seen: Arc::default(),
        }
    }
}

impl Device for Echo {
    fn features(&self) -> u64 {
        FEATURE
    }

    fn queue_count(&self) -> u16 {
        QUEUES
    }

    fn config(&self) -> Vec<u8> {
        self.config.lock().unwrap().clone()
    }

    fn set_config(&self, offset: u32, bytes: &[u8]) -> Result<(), ConfigRefused> {
        let mut config = self.config.lock().unwrap();
        let writable = &mut config[..CONFIG_SIZE / 2];
        let into = writable
            .get_mut(offset as usize..)
            .and_then(|rest| rest.get_mut(..bytes.len()));
        into.ok_or(ConfigRefused("only the first half can be written"))?
            .copy_from_slice(bytes);
        drop(config);
        self.changes.lock().unwrap().announce();
        Ok(())
    }

    fn start(&self, setup: &Setup, lanes: &mut Lanes) -> io::Result<()> {
        self.seen.starts.fetch_add(1, SeqCst);
        *self.seen.features.lock().unwrap() = setup.features;
        *self.changes.lock().unwrap() = setup.config.clone();
        assert!(setup.window(0).is_none(), "no region, no window");
        let files = Files::new()?;
        files.add(&*self.doorbell, DOORBELL, Interest::Reading)?;
        let doorbell = Arc::clone(&self.doorbell);
        lanes.add(&[PROMPT, PATIENT], |_| Pair { files, doorbell })?;
        lanes.add(&[ALONE], |_| Alone)
    }

    fn memory_changed(&self, memory: &Memory) {
        let _is_memory = memory.clone();
        self.seen.memories.fetch_add(1, SeqCst);
    }

    fn reset(&self) {
        self.seen.resets.fetch_add(1, SeqCst);
    }

    fn end(&self) {
        self.seen.ends.fetch_add(1, SeqCst);
    }
}

fn echo(mut chain: virtqueue::Chain<'_>) -> virtqueue::Outcome {
    let mut bytes = vec![0; chain.reader.remaining()];
    chain.reader.read_exact(&mut bytes).unwrap();
    let written = chain.writer.write_all(&bytes).map_or(0, |()| bytes.len() as u32);
    chain.done(written)
}

/// Two queues and a file.
struct Pair {
    files: Files,
    doorbell: Arc<OwnedFd>,
}

impl Pair {
    fn rings(&self) -> bool {
        rustix::io::read(&*self.doorbell, &mut [0; 8]).is_ok()
    }
}

impl Lane for Pair {
    fn serve(&mut self, index: u16, queues: &mut Queues) {
        match index {
            PROMPT => queues.serve(index, echo),
            _ => queues.serve(index, |chain| if self.rings() { echo(chain) } else { chain.put_back() }),
        }
        // Without a request the doorbell would wake the lane for nothing, again and again.
        let wanted = if queues.is_waiting(PATIENT) {
            Interest::Reading
        } else {
            Interest::Nothing
        };
        self.files.change(&*self.doorbell, DOORBELL, wanted).unwrap();
    }

    fn files(&self) -> Option<&Files> {
        Some(&self.files)
    }

    fn ready(&mut self, file: u64, queues: &mut Queues) {
        assert_eq!(file, DOORBELL);
        self.serve(PATIENT, queues);
    }
}

struct Alone;

impl Lane for Alone {
    fn serve(&mut self, index: u16, queues: &mut Queues) {
        queues.serve(index, echo);
    }
}

/// The device on a socket, until dropped.
pub(crate) struct Daemon {
    directory: TempDir,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    pub(crate) doorbell: Arc<OwnedFd>,
    pub(crate) seen: Arc<Seen>,
}

impl Daemon {
    pub(crate) fn new() -> Daemon {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
        let until = Arc::clone(&stop);
        let device = Echo::new();
        let (doorbell, seen) = (Arc::clone(&device.doorbell), Arc::clone(&device.seen));
        let thread = std::thread::spawn(move || {
            backend::serve(&listener, &device, backend::Options::default(), until.as_fd()).unwrap();
        });
        Daemon {
            directory,
            stop,
            thread: Some(thread),
            doorbell,
            seen,
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    pub(crate) fn connect(&self, options: &Options) -> Client {
        Client(Guest::connect(&self.socket(), options).unwrap())
    }

    /// Lets so many patient requests be answered.
    pub(crate) fn ring(&self, times: u64) {
        rustix::io::write(&*self.doorbell, &times.to_ne_bytes()).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        rustix::io::write(&*self.stop, &1_u64.to_ne_bytes()).unwrap();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking(), "the server panicked");
    }
}

/// Packed or split, with all queues that have a lane.
pub(crate) fn options(packed: bool) -> Options {
    Options {
        queues: ORPHAN,
        packed,
        features: TRANSPORT & Options::default().features | FEATURE,
        place_size: 4096,
        ..Options::default()
    }
}

/// A guest of the device.
pub(crate) struct Client(pub(crate) Guest);

impl Client {
    /// Sends `text` without waiting for the answer.
    pub(crate) fn submit(&mut self, queue: u16, text: &str) {
        let space = text.len() as u32;
        self.0.queues[usize::from(queue)]
            .submit(text.as_bytes(), space)
            .unwrap();
    }

    /// The next answer of a queue.
    pub(crate) fn wait(&mut self, queue: u16) -> String {
        let (_, _, bytes) = self.0.queues[usize::from(queue)].wait().unwrap();
        String::from_utf8(bytes).unwrap()
    }

    pub(crate) fn is_idle(&mut self, queue: u16) -> bool {
        self.0.queues[usize::from(queue)].poll().unwrap().is_none()
    }

    /// The queue answers.
    pub(crate) fn assert_served(&mut self, queue: u16) {
        self.submit(queue, "is anybody there");
        assert_eq!(self.wait(queue), "is anybody there");
    }
}
