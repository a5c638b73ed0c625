//! Runs a tool and measures the time.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use process::child::die_with_us;

/// How often a signal to us is looked for.
const LOOK: Duration = Duration::from_millis(100);
/// How long a tool that was killed may take to be gone: one whose file system hangs is gone with its mount.
const DYING: Duration = Duration::from_secs(1);
/// As much of its complaints as is told.
const SAID_BYTES: u64 = 1 << 10;

/// What came of it.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) elapsed: Duration,
    pub(super) status: ExitStatus,
    pub(super) output: String,
    /// What it complained about.
    pub(super) said: String,
}

/// Runs `command` to its end, or until `stop` is set: then nothing comes of it.
pub(super) fn run(mut command: Command, stop: &AtomicBool) -> io::Result<Option<Ran>> {
    // Files rather than pipes, which somebody would have to empty meanwhile.
    let (mut output, mut said) = (tempfile::tempfile()?, tempfile::tempfile()?);
    // A group of its own: Ctrl-C is for us, and what it forks ends with it.
    command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(said.try_clone()?)
        .process_group(0);
    die_with_us(&mut command);
    let start = Instant::now();
    let mut child = command.spawn()?;
    let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    let mut end = PollFd::new(&process, PollFlags::IN);
    while !ended(&mut end, LOOK)? {
        if stop.load(Relaxed) {
            kill(&child);
            ended(&mut end, DYING)?;
            return Ok(None);
        }
    }
    let elapsed = start.elapsed();
    Ok(Some(Ran {
        elapsed,
        status: child.wait()?,
        output: text(&mut output, u64::MAX)?,
        said: self::said(&mut said)?,
    }))
}

fn ended(process: &mut PollFd<'_>, within: Duration) -> io::Result<bool> {
    let limit = Timespec::try_from(within).ok();
    match poll(std::slice::from_mut(process), limit.as_ref()) {
        Ok(count) => Ok(count > 0),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn kill(child: &Child) {
    // It may have ended already.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
}

/// The first of what was said in `file`, in one line.
pub(super) fn said(file: &mut File) -> io::Result<String> {
    Ok(text(file, SAID_BYTES)?.trim().replace('\n', "; "))
}

fn text(file: &mut File, most: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(most).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_a_tool_says_and_how_it_ends_is_told() {
        let ran = run(
            shell("echo out; echo one >&2; echo two >&2; exit 3"),
            &AtomicBool::new(false),
        );
        let ran = ran.unwrap().unwrap();
        assert_eq!(
            (&*ran.output, &*ran.said, ran.status.code()),
            ("out\n", "one; two", Some(3))
        );
        assert!(ran.elapsed > Duration::ZERO);
    }

    #[test]
    fn a_tool_is_killed_with_its_children_when_it_is_to_stop() {
        let directory = tempfile::tempdir().unwrap();
        let mut command = shell("sleep 1000 & echo $! $$ > processes; wait");
        command.current_dir(directory.path());
        assert!(run(command, &AtomicBool::new(true)).unwrap().is_none());
        let processes = std::fs::read_to_string(directory.path().join("processes")).unwrap();
        for process in processes.split_whitespace() {
            // The child dies when it is next scheduled, which the kill does not wait for.
            let dies = (0..1000).any(|_| {
                std::thread::sleep(Duration::from_millis(10));
                let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
                stat.is_empty() || stat.contains(") Z ")
            });
            assert!(dies, "{process} lives on");
        }
    }
}
