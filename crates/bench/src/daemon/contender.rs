//! A daemon under measurement: started, awaited until it listens, watched for its resource use, and ended.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::daemon::placement::Processors;
use crate::daemon::recipe::Recipe;
use crate::error::Error;
use process::child::die_with_us;

/// How long a daemon may take to listen.
const START: Duration = Duration::from_secs(20);
/// As much of its complaints as is kept.
const SAID_BYTES: usize = 4 << 10;

/// A running daemon, killed when dropped.
#[derive(Debug)]
pub(crate) struct Contender {
    pub(crate) name: String,
    child: Child,
    said: Arc<Mutex<Vec<u8>>>,
}

impl Contender {
    /// Starts the daemon, which is to listen on `socket`.
    pub(crate) fn start(
        recipe: &Recipe,
        directory: &Path,
        socket: &Path,
        queues: u16,
        processors: &Processors,
    ) -> Result<Self, Error> {
        let mut command = recipe.command(directory, socket, queues)?;
        // A group of its own: Ctrl-C is for us, and what it forks ends with it.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        die_with_us(&mut command);
        let mut child = command.spawn().map_err(|source| Error::Start {
            name: recipe.name.clone(),
            source,
        })?;
        let said = Arc::new(Mutex::new(Vec::new()));
        if let Some(stderr) = child.stderr.take() {
            let said = Arc::clone(&said);
            thread::spawn(move || collect(stderr, &said));
        }
        let contender = Self {
            name: recipe.name.clone(),
            child,
            said,
        };
        processors.bind_daemon(Pid::from_child(&contender.child))?;
        Ok(contender)
    }

    /// Connects as soon as the daemon listens.
    pub(crate) fn connect(&mut self, socket: &Path) -> Result<UnixStream, Error> {
        self.wait_for(|| UnixStream::connect(socket).ok())
    }

    /// Leaves it to others to connect: many a daemon serves the first and then ends.
    pub(crate) fn wait_until_it_listens(&mut self, socket: &Path) -> Result<(), Error> {
        self.wait_for(|| listens(socket).then_some(()))
    }

    /// The last that the daemon said on standard error, in one line.
    pub(crate) fn said(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&said).trim().replace('\n', "; ");
        if text.is_empty() { "nothing".into() } else { text }
    }

    /// Says whose error it was, and the daemon's last words on it.
    pub(crate) fn blame(&self, source: Error) -> Error {
        Error::Contender {
            name: self.name.clone(),
            said: self.said(),
            source: Box::new(source),
        }
    }

    /// CPU time that the daemon has used, all of its threads and children together.
    pub(crate) fn cpu_time(&self) -> Duration {
        self.processes().into_iter().map(cpu_time).sum()
    }

    /// All of its threads.
    pub(crate) fn threads(&self) -> Vec<u32> {
        self.processes().into_iter().flat_map(tasks).collect()
    }

    /// The daemon and whatever it forked: a sandbox makes it do its work in a child.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut found = vec![self.child.id()];
        let mut next = 0;
        while let Some(&process) = found.get(next) {
            for task in tasks(process) {
                let children = fs::read_to_string(format!("/proc/{process}/task/{task}/children"));
                let children = children.unwrap_or_default();
                found.extend(
                    children
                        .split_whitespace()
                        .filter_map(|child| child.parse::<u32>().ok()),
                );
            }
            next += 1;
        }
        found
    }

    fn wait_for<T>(&mut self, attempt: impl Fn() -> Option<T>) -> Result<T, Error> {
        let deadline = Instant::now() + START;
        loop {
            if let Some(done) = attempt() {
                return Ok(done);
            }
            if let Some(status) = self.child.try_wait().map_err(Error::system("supervise the daemon"))? {
                // Its last words may still be on their way through the pipe.
                thread::sleep(Duration::from_millis(50));
                return Err(Error::Ended {
                    name: self.name.clone(),
                    status: status.to_string(),
                    said: self.said(),
                });
            }
            if Instant::now() > deadline {
                return Err(Error::NotListening {
                    name: self.name.clone(),
                    seconds: START.as_secs(),
                });
            }
            thread::sleep(Duration::from_micros(50));
        }
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        // All fail only if it has ended already.
        if let Some(group) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether somebody listens on a socket; its file is there a moment before.
fn listens(socket: &Path) -> bool {
    process::socket::listeners().iter().any(|bound| bound == socket)
}

/// Thread ids of a process.
fn tasks(process: u32) -> Vec<u32> {
    let entries = fs::read_dir(format!("/proc/{process}/task"));
    entries
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// CPU time that the threads of a process have used, which is finer than the ticks of `/proc/PID/stat`.
pub(crate) fn cpu_time(process: u32) -> Duration {
    let of_task = |task| {
        let text = fs::read_to_string(format!("/proc/{process}/task/{task}/schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(tasks(process).into_iter().filter_map(of_task).sum())
}

/// Keeps the end of what the daemon says.
fn collect(mut stderr: impl Read, said: &Mutex<Vec<u8>>) {
    let mut bytes = [0; 1024];
    while let Ok(count @ 1..) = stderr.read(&mut bytes) {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.extend(&bytes[..count]);
        let surplus = said.len().saturating_sub(SAID_BYTES);
        said.drain(..surplus);
    }
}
