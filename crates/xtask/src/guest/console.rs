//! A running virtual machine, QEMU or User-Mode Linux, and its guest's console output.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::run::shown;

const PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct Console {
    child: Child,
    lines: Receiver<String>,
}

impl Console {
    /// Starts the machine with its console on the pipe that this reads; both of its streams go to `log` too.
    pub(crate) fn start(mut command: Command, log: Option<&Path>) -> Result<Console> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{}`", shown(&command)))?;
        let log = log.map(|path| File::create(path).with_context(|| format!("cannot create {}", path.display())));
        let log = log.transpose()?;
        if let Some(mut log) = log.as_ref() {
            writeln!(log, "$ {}", shown(&command)).context("cannot write to the console log")?;
        }
        let (sender, lines) = channel();
        let streams: [Option<Box<dyn std::io::Read + Send>>; 2] = [
            child.stdout.take().map(|stream| Box::new(stream) as _),
            child.stderr.take().map(|stream| Box::new(stream) as _),
        ];
        for stream in streams.into_iter().flatten() {
            let sender = sender.clone();
            let log = log
                .as_ref()
                .map(File::try_clone)
                .transpose()
                .context("cannot share the console log")?;
            std::thread::spawn(move || {
                for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                    // The log is for a person to read later; a full disk must not stop the guest's test.
                    let _ = log.as_ref().map(|mut log| writeln!(log, "{line}"));
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Console { child, lines })
    }

    /// Waits for a line that contains `text` and returns it.
    pub(crate) fn wait_for(&mut self, text: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        let mut last = String::new();
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) if line.contains(text) => return Ok(line),
                Ok(line) => last = if line.is_empty() { last } else { line },
                Err(RecvTimeoutError::Timeout) => {
                    bail!(
                        "no {text:?} on the console within {} s; the last line was {last:?}",
                        limit.as_secs()
                    )
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the machine ended before {text:?} was on the console; the last line was {last:?}")
                }
            }
        }
    }

    /// Waits until the guest has powered itself off.
    pub(crate) fn wait_for_end(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => bail!("the machine is still running after {} s", limit.as_secs()),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait().context("cannot wait for the machine")?;
                    if !status.success() {
                        bail!("the machine failed ({status})");
                    }
                    return Ok(());
                }
            }
        }
    }

    /// How many parts of files QEMU has mapped shared, guest memory apart: what the guest has in its DAX windows.
    fn files_mapped(&self) -> Result<usize> {
        /// Memory of the guest, of QEMU alone and of the kernel's rings.
        const OTHERS: [&str; 3] = ["/memfd:", "/dev/", "anon_inode:"];
        let path = format!("/proc/{}/maps", self.child.id());
        let maps = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        // Range, permissions (the fourth is `s` for shared), offset, device, inode, path.
        let shared_file = |line: &&str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let shared = fields.get(1).is_some_and(|permissions| permissions.ends_with('s'));
            let path = fields.get(5).copied().unwrap_or_default();
            shared && !path.is_empty() && !OTHERS.iter().any(|other| path.starts_with(other))
        };
        Ok(maps.lines().filter(shared_file).count())
    }

    /// Waits until QEMU maps no part of any file: it lets go of what was unmapped when no thread of its own can be using it.
    pub(crate) fn wait_for_no_files_mapped(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let left = self.files_mapped()?;
            if left == 0 {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "QEMU still maps {left} parts of files {} s after the share was unmounted",
                limit.as_secs()
            );
            sleep(PAUSE);
        }
    }

    /// The processes that the machine has started: those of User-Mode Linux run the guest's programs.
    pub(crate) fn children(&self) -> Result<Vec<u32>> {
        let tasks = format!("/proc/{}/task", self.child.id());
        let mut children = Vec::new();
        for task in fs::read_dir(&tasks).with_context(|| format!("cannot list {tasks}"))? {
            let path = task?.path().join("children");
            let list = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            children.extend(list.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
        }
        Ok(children)
    }

    /// Kills the machine at once, as a crash would.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill().context("cannot kill the machine")?;
        self.child.wait().context("cannot wait for the machine").map(drop)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
