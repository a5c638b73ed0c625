//! Reads raw pages from the ring buffers while a session runs.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use super::error::Error;
use super::files::Tracefs;
use crate::kernel::ring_buffer::{self, Layout, Missed};

/// Pages are kept up to this many bytes; beyond that the oldest of calls that may yet succeed are counted as lost.
const KEPT_BYTES: usize = 512 << 20;
/// Calls of each number that are kept although they succeed, where those that fail are compared with them.
const COMPARED: u32 = 8;
/// Between two looks at empty buffers. A buffer of the session's size is not filled in this time.
const PAUSE: Duration = Duration::from_millis(5);

/// A page as the kernel gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The processor whose buffer it is from.
    pub processor: u32,
    /// The page, its header first.
    pub bytes: Vec<u8>,
}

/// What was taken.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) pages: Vec<Page>,
    /// Not all could be kept or read.
    pub(super) cut: bool,
}

/// Empties the buffers while a session runs, and keeps what belongs to calls that failed.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    buffers: Arc<Mutex<Buffers>>,
    /// For each thread in a call its number, and that of the first page that may tell of it.
    calls: BTreeMap<i32, (u64, u64)>,
    /// How many more calls of a number are kept although they succeed.
    compared: Option<BTreeMap<u64, u32>>,
    drained: Instant,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Buffers {
    files: Vec<(u32, File)>,
    layout: Layout,
    page: Vec<u8>,
    /// Pages that are to stay, by number.
    kept: BTreeMap<u64, Page>,
    /// Pages of which it is not known yet.
    recent: VecDeque<Page>,
    /// Number of the first of those.
    first: u64,
    bytes: usize,
    cut: bool,
}

impl Capture {
    /// Opens every processor's buffer and starts to empty them. With `compared` some calls that succeed are kept as well.
    pub(super) fn start(directory: &Tracefs, layout: Layout, page_size: usize, compared: bool) -> Result<Self, Error> {
        let buffers = Arc::new(Mutex::new(Buffers {
            files: open(directory)?,
            layout,
            page: vec![0; page_size],
            kept: BTreeMap::new(),
            recent: VecDeque::new(),
            first: 0,
            bytes: 0,
            cut: false,
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let (told, shared) = (Arc::clone(&stop), Arc::clone(&buffers));
        let thread = thread::Builder::new()
            .name("why-pages".to_owned())
            .spawn(move || {
                while !told.load(Ordering::Acquire) {
                    lock(&shared).drain();
                    sleep(PAUSE);
                }
            })
            .map_err(Error::Guardian)?;
        Ok(Self {
            stop,
            buffers,
            calls: BTreeMap::new(),
            compared: compared.then(BTreeMap::new),
            drained: Instant::now(),
            thread: Some(thread),
        })
    }

    /// A thread is about to enter the call of this number.
    pub fn entered(&mut self, thread: i32, number: u64) {
        let next = lock(&self.buffers).next();
        self.calls.insert(thread, (number, next));
    }

    /// A thread, which is stopped, has returned from its call. What was written since is taken now if the call failed, and
    /// else from time to time, so that the buffers cannot overflow while there is nobody else to run.
    pub fn left(&mut self, thread: i32, failed: bool) {
        let call = self.calls.remove(&thread);
        let kept = failed || call.is_some_and(|(number, _)| self.is_compared(number));
        if !kept && self.drained.elapsed() < PAUSE {
            return;
        }
        self.drained = Instant::now();
        let mut buffers = lock(&self.buffers);
        buffers.drain();
        if kept {
            // Who was never seen to enter was in its call when tracing began.
            buffers.keep_from(call.map_or(0, |(_, from)| from));
        }
        let next = buffers.next();
        let needed = self.calls.values().map(|(_, from)| *from).min();
        buffers.forget_before(needed.unwrap_or(next));
    }

    /// Whether a call that succeeded is one of those that are kept.
    fn is_compared(&mut self, number: u64) -> bool {
        let Some(compared) = &mut self.compared else {
            return false;
        };
        let count = compared.entry(number).or_default();
        *count += 1;
        *count <= COMPARED
    }

    /// A thread is no more, in the middle of a call as it may be.
    pub fn ended(&mut self, thread: i32) {
        self.calls.remove(&thread);
    }

    /// Takes what is left, once tracing is off.
    pub(super) fn finish(mut self) -> Taken {
        let joined = self.stop();
        let mut buffers = lock(&self.buffers);
        buffers.drain();
        Taken {
            pages: std::mem::take(&mut buffers.kept).into_values().collect(),
            cut: buffers.cut || !joined,
        }
    }

    /// Ends the thread; whether all went well there.
    fn stop(&mut self) -> bool {
        self.stop.store(true, Ordering::Release);
        self.thread.take().is_none_or(|thread| thread.join().is_ok())
    }
}

impl Drop for Capture {
    /// An instance and its tracer are busy as long as somebody has a buffer of theirs open.
    fn drop(&mut self) {
        self.stop();
        lock(&self.buffers).files.clear();
    }
}

/// A thread that died in here left whole pages, so that nothing is lost by going on.
fn lock(buffers: &Mutex<Buffers>) -> MutexGuard<'_, Buffers> {
    buffers.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Buffers {
    /// The number that the next page gets.
    fn next(&self) -> u64 {
        self.first + self.recent.len() as u64
    }

    /// Takes all that is there.
    fn drain(&mut self) {
        loop {
            let mut empty = true;
            for (processor, buffer) in &self.files {
                let mut buffer = buffer;
                match buffer.read(&mut self.page) {
                    Ok(0) => {}
                    Ok(length) => {
                        empty = false;
                        let bytes = self.page.get(..length).unwrap_or_default().to_vec();
                        // Of whom, nobody knows: it counts although the page may be dropped.
                        let page = ring_buffer::Page::parse(&self.layout, &bytes);
                        self.cut |= page.is_ok_and(|page| page.missed() != Missed::Nothing);
                        self.bytes += bytes.len();
                        self.recent.push_back(Page {
                            processor: *processor,
                            bytes,
                        });
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => empty = false,
                    // A processor that was never there has a file and no buffer.
                    Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                    Err(_) => self.cut = true,
                }
            }
            while self.bytes > KEPT_BYTES && !self.recent.is_empty() {
                // A call that is still on has lost its beginning.
                self.cut = true;
                self.forget_before(self.first + 1);
            }
            if empty {
                return;
            }
        }
    }

    fn keep_from(&mut self, number: u64) {
        let from = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
        for (at, page) in self.recent.iter().enumerate().skip(from) {
            let known = self.kept.insert(self.first + at as u64, page.clone());
            if known.is_none() {
                self.bytes += page.bytes.len();
            }
        }
    }

    fn forget_before(&mut self, number: u64) {
        while self.first < number
            && let Some(page) = self.recent.pop_front()
        {
            self.first += 1;
            self.bytes -= page.bytes.len();
        }
    }
}

fn open(directory: &Tracefs) -> Result<Vec<(u32, File)>, Error> {
    let path = directory.path("per_cpu");
    let failed = |path: &std::path::Path, source| Error::File {
        doing: "open".to_owned(),
        path: path.to_owned(),
        source,
    };
    let mut buffers = Vec::new();
    for entry in std::fs::read_dir(&path).map_err(|source| failed(&path, source))? {
        let entry = entry.map_err(|source| failed(&path, source))?;
        let name = entry.file_name();
        let Some(processor) = name.to_str().and_then(|name| name.strip_prefix("cpu")?.parse().ok()) else {
            continue;
        };
        let pipe = entry.path().join("trace_pipe_raw");
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&pipe);
        buffers.push((processor, file.map_err(|source| failed(&pipe, source))?));
    }
    Ok(buffers)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const PAGE: &str = include_str!("../../../tests/data/header_page");
    const EVENT: &str = include_str!("../../../tests/data/header_event");

    #[test]
    fn a_capture_that_is_given_up_leaves_no_buffer_open() {
        let top = tempfile::tempdir().unwrap();
        let buffer = top.path().join("per_cpu/cpu0");
        fs::create_dir_all(&buffer).unwrap();
        let buffer = buffer.join("trace_pipe_raw");
        fs::write(&buffer, "").unwrap();
        let open = || {
            let descriptors = fs::read_dir("/proc/self/fd").unwrap().flatten();
            let mut files = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
            files.any(|file| file == buffer)
        };
        let layout = Layout::parse(PAGE, EVENT).unwrap();
        let capture = Capture::start(&Tracefs::at(top.path()), layout, 4096, false).unwrap();
        assert!(open());
        drop(capture);
        assert!(!open());
    }
}
