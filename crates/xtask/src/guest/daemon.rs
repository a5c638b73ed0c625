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

/// How long a daemon may take to listen and to end.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

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

    fn command(&self, directory: &Path, tag: &str, variant: Variant, socket: &Path) -> Command {
        let queues = variant.queues.to_string();
        match self {
            Program::Innkeeper(binary) => {
                let mut command = Command::new(binary);
                command
                    .arg("share")
                    .arg(directory)
                    .arg("--socket-path")
                    .arg(socket)
                    .args(["--tag", tag]);
                command.args(["--num-queues", &queues, "--ring", variant.offer(), "--posix-acl"]);
                command
            }
            Program::Other(words) => {
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
        }
    }
}

pub(crate) struct Daemon {
    child: Child,
    socket: PathBuf,
    ours: bool,
}

impl Daemon {
    /// Returns when the daemon listens on `socket`.
    pub(crate) fn start(
        program: &Program,
        directory: &Path,
        tag: &str,
        variant: Variant,
        socket: &Path,
        log: &Path,
    ) -> Result<Daemon> {
        let mut command = program.command(directory, tag, variant, socket);
        let log_file = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(log_file.try_clone().context("cannot share the daemon's log")?);
        let child = command
            .stderr(log_file)
            .spawn()
            .with_context(|| format!("cannot start `{}`", shown(&command)))?;
        let ours = matches!(program, Program::Innkeeper(_));
        let mut daemon = Daemon {
            child,
            socket: socket.to_owned(),
            ours,
        };
        let deadline = Instant::now() + PATIENCE;
        while !listens(socket)? {
            let ended = daemon.child.try_wait().context("cannot ask for the daemon's end")?;
            if ended.is_some() || Instant::now() > deadline {
                let said = fs::read_to_string(log).unwrap_or_default();
                bail!("`{}` does not listen; it said:\n{said}", shown(&command));
            }
            sleep(PAUSE);
        }
        Ok(daemon)
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Whether it still runs. A peer may end with its guest: that is its way.
    pub(crate) fn lives(&mut self) -> Result<bool> {
        Ok(!self.ours
            || self
                .child
                .try_wait()
                .context("cannot ask for the daemon's end")?
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

    /// Asks the daemon to end; ours must do so with status 0 and take its socket away.
    pub(crate) fn stop(mut self) -> Result<()> {
        if !self.ours {
            return Ok(());
        }
        let deadline = Instant::now() + PATIENCE;
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("cannot signal the daemon")?;
        let status = loop {
            if let Some(status) = self.child.try_wait().context("cannot ask for the daemon's end")? {
                break status;
            }
            ensure!(
                Instant::now() < deadline,
                "it still runs {} s after SIGTERM",
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
