//! The daemon that serves one share: ours, or a peer for comparison.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::qemu::Variant;
use crate::run::shown;

/// Ends what `innkeeper share` announces once it is ready.
const ANNOUNCED: &str = "(--rlimit-nofile).";

/// How long a daemon may take to listen and to end.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// A directory, its name in the guest, and how it is shared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) tag: &'a str,
    pub(crate) sharing: Sharing,
}

/// Whether the guest has a window into the host's page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    Plain,
    /// With a window of so many MiB.
    Dax(u32),
}

/// How many mappings of a share's files there have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WindowCounts {
    pub(crate) mapped: u64,
    pub(crate) unmapped: u64,
}

/// What to run for each share.
#[derive(Debug, Clone)]
pub(crate) enum Program {
    Innkeeper(PathBuf),
    /// Words of another daemon's command line, with `{dir}`, `{socket}`, `{tag}` and `{queues}` to fill in.
    Other(Vec<String>),
}

impl Program {
    /// The peer with what our shares have by default.
    pub(crate) fn virtiofsd(binary: &Path) -> Program {
        let options = "--shared-dir {dir} --socket-path {socket} --tag {tag} --sandbox none --xattr --posix-acl --cache auto \
                       --inode-file-handles=prefer --modcaps=+sys_admin:+dac_read_search";
        let binary = binary.to_string_lossy().into_owned();
        Program::Other(
            std::iter::once(binary)
                .chain(options.split_whitespace().map(str::to_owned))
                .collect(),
        )
    }

    fn command(&self, share: &Share<'_>, variant: Variant, socket: &Path) -> Result<Command> {
        let &Share {
            directory,
            tag,
            sharing,
        } = share;
        let queues = variant.queues.to_string();
        Ok(match self {
            Program::Innkeeper(binary) => {
                let mut command = Command::new(binary);
                command
                    .arg("share")
                    .arg(directory)
                    .arg("--socket-path")
                    .arg(socket)
                    .args(["--tag", tag]);
                command.args(["--num-queues", &queues, "--ring", variant.offer(), "--posix-acl"]);
                if let Sharing::Dax(size) = sharing {
                    // The counters of the window are told at this level.
                    command.args(["--dax", &format!("{size}M"), "--log-level", "debug"]);
                }
                command
            }
            Program::Other(words) => {
                ensure!(sharing == Sharing::Plain, "only our own program has a DAX window");
                let fill = |word: &String| {
                    word.replace("{dir}", &directory.to_string_lossy())
                        .replace("{socket}", &socket.to_string_lossy())
                        .replace("{tag}", tag)
                        .replace("{queues}", &queues)
                };
                let mut words = words.iter().map(fill);
                let mut command = Command::new(words.next().unwrap_or_default());
                command.args(words);
                command
            }
        })
    }
}

pub(crate) struct Daemon {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
    ours: bool,
}

impl Daemon {
    /// Returns when the daemon listens on `socket`; ours when it has announced that it is ready, since it listens before it is confined and
    /// opens the rest of its descriptors.
    pub(crate) fn start(
        program: &Program,
        share: &Share<'_>,
        variant: Variant,
        socket: &Path,
        log: &Path,
    ) -> Result<Daemon> {
        let mut command = program.command(share, variant, socket)?;
        let log_file = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .env("NO_COLOR", "1")
            .stdout(log_file.try_clone().context("cannot share the daemon's log")?);
        let child = command
            .stderr(log_file)
            .spawn()
            .with_context(|| format!("cannot start `{}`", shown(&command)))?;
        let ours = matches!(program, Program::Innkeeper(_));
        let mut daemon = Daemon {
            child,
            socket: socket.to_owned(),
            log: log.to_owned(),
            ours,
        };
        let deadline = Instant::now() + PATIENCE;
        while !(listens(socket)? && (!ours || daemon.said()?.contains(ANNOUNCED))) {
            let ended = daemon.child.try_wait().context("cannot send SIGTERM to the daemon")?;
            if ended.is_some() || Instant::now() > deadline {
                let said = fs::read_to_string(log).unwrap_or_default();
                bail!("`{}` does not listen; it printed:\n{said}", shown(&command));
            }
            sleep(PAUSE);
        }
        Ok(daemon)
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> Result<String> {
        fs::read_to_string(&self.log).with_context(|| format!("cannot read {}", self.log.display()))
    }

    /// The counters of its window when the window was last cleared, as the guest has it done when it unmounts the share.
    pub(crate) fn window_counts(&self) -> Result<WindowCounts> {
        let said = self.said()?;
        counts_at_last_clear(&said).with_context(|| format!("no window was cleared; the daemon printed:\n{said}"))
    }

    /// Whether it still runs. A peer may end with its guest: that is its way.
    pub(crate) fn lives(&mut self) -> Result<bool> {
        Ok(!self.ours
            || self
                .child
                .try_wait()
                .context("cannot send SIGTERM to the daemon")?
                .is_none())
    }

    /// How often each lane went to sleep, request lanes only: the lane of a queue that nobody used slept hardly ever.
    /// A peer has no lanes.
    pub(crate) fn request_lanes(&self) -> Result<Option<Vec<(String, u64)>>> {
        if !self.ours {
            return Ok(None);
        }
        let tasks = format!("/proc/{}/task", self.child.id());
        let mut lanes = Vec::new();
        for task in fs::read_dir(&tasks).with_context(|| format!("cannot list {tasks}"))? {
            let path = task?.path().join("status");
            let status = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            let name = field("Name:").unwrap_or_default();
            // Lane 0 serves the queue of high priority.
            if name.starts_with("lane-") && name != "lane-0" {
                let sleeps = field("voluntary_ctxt_switches:").and_then(|count| count.parse().ok());
                lanes.push((
                    name.to_owned(),
                    sleeps.with_context(|| format!("no count in {}", path.display()))?,
                ));
            }
        }
        lanes.sort();
        Ok(Some(lanes))
    }

    /// How many threads it has that wait in place of lanes; a peer has none.
    pub(crate) fn helpers(&self) -> Result<Option<usize>> {
        if !self.ours {
            return Ok(None);
        }
        let tasks = format!("/proc/{}/task", self.child.id());
        let mut helpers = 0;
        for task in fs::read_dir(&tasks).with_context(|| format!("cannot list {tasks}"))? {
            let path = task?.path().join("comm");
            let name = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            helpers += usize::from(name.starts_with("helper-"));
        }
        Ok(Some(helpers))
    }

    /// How many descriptors it has open; a peer is not asked.
    pub(crate) fn open_descriptors(&self) -> Result<Option<usize>> {
        if !self.ours {
            return Ok(None);
        }
        let path = format!("/proc/{}/fd", self.child.id());
        let list = fs::read_dir(&path).with_context(|| format!("cannot list {path}"))?;
        Ok(Some(list.count()))
    }

    /// Kills it at once; its socket stays.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill().context("cannot kill the daemon")?;
        self.child.wait().context("cannot wait for the daemon").map(drop)
    }

    /// Asks the daemon to end; ours must do so with status 0 and take its socket away.
    pub(crate) fn stop(mut self) -> Result<()> {
        if !self.ours {
            return Ok(());
        }
        let deadline = Instant::now() + PATIENCE;
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("cannot signal the daemon")?;
        let status = loop {
            if let Some(status) = self.child.try_wait().context("cannot send SIGTERM to the daemon")? {
                break status;
            }
            ensure!(
                Instant::now() < deadline,
                "it is still running {} s after SIGTERM",
                PATIENCE.as_secs()
            );
            sleep(PAUSE);
        };
        ensure!(status.success(), "it ended with {status} after SIGTERM");
        ensure!(!self.socket.exists(), "it left its socket behind");
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a process listens on the socket, found without connecting: a daemon may serve one connection only.
fn listens(socket: &Path) -> Result<bool> {
    /// `__SO_ACCEPTCON`, set by listen(2).
    const LISTENING: &str = "00010000";
    let table = fs::read_to_string("/proc/net/unix").context("cannot read /proc/net/unix")?;
    let socket = socket.to_string_lossy();
    Ok(table
        .lines()
        .any(|line| line.ends_with(&*socket) && line.split_whitespace().nth(3) == Some(LISTENING)))
}

fn counts_at_last_clear(said: &str) -> Option<WindowCounts> {
    let line = said.lines().rev().find(|line| line.contains("shared memory cleared"))?;
    let field = |name: &str| {
        let value = line.split_whitespace().find_map(|word| word.strip_prefix(name))?;
        value.parse().ok()
    };
    Some(WindowCounts {
        mapped: field("mapped=")?,
        unmapped: field("unmapped=")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_clear_counts() {
        let said = "DEBUG shared memory cleared region=0 mapped=0 unmapped=0\nDEBUG shared memory cleared region=0 mapped=32 unmapped=31\nmore";
        let counts = counts_at_last_clear(said);
        assert_eq!(
            counts,
            Some(WindowCounts {
                mapped: 32,
                unmapped: 31
            })
        );
        assert_eq!(
            counts_at_last_clear("shared memory closed region=0 mapped=1 unmapped=1"),
            None
        );
    }
}
