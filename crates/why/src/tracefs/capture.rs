//! Takes raw pages out of the ring buffers while a session runs.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use super::{Error, Tracefs};

/// Pages are kept up to this many bytes; what comes later is counted as lost.
const KEPT_BYTES: usize = 512 << 20;
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

#[derive(Debug)]
pub(super) struct Capture {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Taken>>,
}

impl Capture {
    /// Opens every processor's buffer and starts to empty them.
    pub(super) fn start(directory: &Tracefs, page_size: usize) -> Result<Self, Error> {
        let buffers = open(directory)?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("why-pages".to_owned())
            .spawn(move || take(&buffers, page_size, &told))
            .map_err(Error::Guardian)?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Takes what is left, once tracing is off.
    pub(super) fn finish(&mut self) -> Taken {
        self.stop.store(true, Ordering::Release);
        let thread = self.thread.take();
        thread.and_then(|thread| thread.join().ok()).unwrap_or(Taken {
            pages: Vec::new(),
            cut: true,
        })
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

fn take(buffers: &[(u32, File)], page_size: usize, stop: &AtomicBool) -> Taken {
    let mut taken = Taken::default();
    let mut kept = 0;
    let mut page = vec![0; page_size];
    loop {
        // Read before the buffers are: what was written before the stop is then seen by the round that follows.
        let last = stop.load(Ordering::Acquire);
        let mut empty = true;
        for (processor, buffer) in buffers {
            let mut buffer = buffer;
            match buffer.read(&mut page) {
                Ok(0) => {}
                Ok(length) => {
                    empty = false;
                    let bytes = page.get(..length).unwrap_or_default().to_vec();
                    kept += bytes.len();
                    if kept > KEPT_BYTES {
                        taken.cut = true;
                    } else {
                        taken.pages.push(Page {
                            processor: *processor,
                            bytes,
                        });
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => empty = false,
                Err(_) => taken.cut = true,
            }
        }
        if empty && last {
            return taken;
        }
        if empty {
            sleep(PAUSE);
        }
    }
}
