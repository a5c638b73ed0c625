//! A mount of one daemon's share, by `innkeeper mount`.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use process::child::die_with_us;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::run;
use crate::daemon::contender::cpu_time;
use crate::error::Error;

/// A running `innkeeper mount`. When dropped, it is killed and its mount is taken away.
#[derive(Debug)]
pub(super) struct Relay {
    child: Child,
    mountpoint: PathBuf,
    said: File,
}

/// Which rings it is to use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rings {
    pub(super) packed: bool,
    pub(super) queues: u16,
}

impl Relay {
    /// Mounts what the daemon on `socket` shares, and answers once it is there.
    pub(super) fn start(socket: &Path, mountpoint: &Path, rings: Rings) -> Result<Self, Error> {
        let own = std::env::current_exe().map_err(Error::system("find this program"))?;
        // A file rather than a pipe, which somebody would have to empty meanwhile.
        let said = tempfile::tempfile().map_err(Error::system("make a file for the output of innkeeper mount"))?;
        let to_said = said.try_clone();
        let mut command = Command::new(own);
        command
            .arg("mount")
            .args([socket, mountpoint])
            .args(["--queues", &rings.queues.to_string()])
            .args(rings.packed.then_some("--packed"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(to_said.map_err(Error::system("make a file for the output of innkeeper mount"))?)
            // Ctrl-C is for us.
            .process_group(0);
        die_with_us(&mut command);
        let child = command.spawn().map_err(Error::system("start innkeeper mount"))?;
        let mut relay = Self {
            child,
            mountpoint: mountpoint.into(),
            said,
        };
        let mut announced = String::new();
        let stdout = relay.child.stdout.take().map(BufReader::new);
        if let Some(mut stdout) = stdout {
            stdout
                .read_line(&mut announced)
                .map_err(Error::system("read the output of innkeeper mount"))?;
        }
        if announced.is_empty() {
            return Err(relay.failure());
        }
        Ok(relay)
    }

    /// CPU time that it has used so far.
    pub(super) fn cpu_time(&self) -> Duration {
        cpu_time(self.child.id())
    }

    /// Unmounts.
    pub(super) fn end(mut self) -> Result<(), Error> {
        unmount(&self.mountpoint, UnmountFlags::NOFOLLOW).map_err(Error::system("unmount the daemon's share"))?;
        let status = self.child.wait().map_err(Error::system("wait for innkeeper mount"))?;
        if status.success() { Ok(()) } else { Err(self.failure()) }
    }

    /// What it said at its end.
    fn failure(&mut self) -> Error {
        let said = run::said(&mut self.said).map(|said| said.trim_start_matches("innkeeper: ").to_owned());
        said.map_or_else(Error::system("read the output of innkeeper mount"), |said| {
            Error::Mount { said }
        })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // First, so that nobody waits for an answer any more. It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // EINVAL: nothing is mounted there.
        let flags = UnmountFlags::NOFOLLOW | UnmountFlags::DETACH;
        if let Err(errno) = unmount(&self.mountpoint, flags)
            && errno != Errno::INVAL
        {
            tracing::warn!("cannot unmount {}: {errno}", self.mountpoint.display());
        }
    }
}
