//! The command line of User-Mode Linux with shares.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::console::Console;
use crate::setup::Uml;

/// VIRTIO's number of virtio-fs.
const FS: u32 = 26;

/// What the first init prints when there is no share to make the root of.
const NO_ROOT: &str = "innkeeper-guest: no root";

/// From the start to there, on a busy machine.
const PROBE_LIMIT: Duration = Duration::from_secs(60);

/// A guest with `memory` MiB. What the kernel puts beside a running guest, its process number and a socket, goes to
/// `directory`. It ends with the thread that starts it, and the processes that run the guest's programs end with it.
pub(crate) fn command(uml: &Uml, memory: u32, shares: &[(PathBuf, &str)], directory: &Path) -> Command {
    let mut command = Command::new("setpriv");
    // Only the kernel itself may see the libraries: the programs before it have the host's.
    command
        .args(["--pdeathsig", "KILL", "env"])
        .arg(format!("LD_LIBRARY_PATH={}", uml.libraries.display()))
        .arg(&uml.program)
        .arg(format!("mem={memory}M"))
        .arg(format!("uml_dir={}/", directory.display()))
        .args(["root=/dev/root", "rootfstype=hostfs", "ro", "init=/init"])
        .arg(format!("rootflags={}", uml.root.display()))
        // Standard output is the console, with errors of the kernel only.
        .args(["con=null", "con0=null,fd:1", "quiet"])
        // Guest programs run under seccomp rather than ptrace: twice as fast.
        .arg("seccomp=on");
    for (socket, _) in shares {
        command.arg(format!("virtio_uml.device={}:{FS}", socket.display()));
    }
    command
}

/// Starts the kernel without a share; an error says why this host does not run it.
pub(crate) fn probe(uml: &Uml) -> Result<()> {
    let directory = tempfile::tempdir().context("cannot create a temporary directory for a guest's files")?;
    let mut console = Console::start(command(uml, 128, &[], directory.path()), None)?;
    console.wait_for(NO_ROOT, PROBE_LIMIT)?;
    console.wait_for_end(PROBE_LIMIT)
}
