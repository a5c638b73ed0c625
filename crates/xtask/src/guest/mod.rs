//! A real Linux guest: QEMU or User-Mode Linux and one daemon per share, with the root in a directory and the job in
//! a shell script.

pub(crate) mod accelerator;
pub(crate) mod console;
pub(crate) mod daemon;
pub(crate) mod qemu;
pub(crate) mod uml;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::guest::accelerator::Accelerator;
use crate::setup::{Parts, copy_root};
use crate::test::GuestPrograms;
use console::Console;
use daemon::{Daemon, Program, Share, Sharing, WindowCounts};
use qemu::{Device, QemuCommand, Variant};

/// What init prints in the guest before the job's exit status.
const STATUS: &str = "innkeeper-guest: status ";

/// Tag of the share that the guest boots from.
pub(crate) const ROOT_TAG: &str = "rootfs";

/// What init prints first.
const STARTED: &str = "innkeeper-guest: started";

/// From power on to init, under TCG on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(120);

/// The last words of a kernel that died in its boot task, the only one that is there before any driver. With several
/// processors QEMU's translator now and then runs an instruction stale on one that the kernel has just patched on another
/// (jump labels), seldom enough to start such a guest again.
const TRANSLATOR_FAULT: &str = "Attempted to kill the idle task";
const FAULTS_BORNE: u32 = 2;

/// Memory of a guest in MiB, unless the test says something else.
const MEMORY: u32 = 1024;

/// The same for User-Mode Linux, whose guest knows the kernel and little else.
const UML_MEMORY: u32 = 256;

/// From the end of a job to the end of the machine.
const POWER_OFF_LIMIT: Duration = Duration::from_secs(60);

/// What every guest of a test run has in common.
pub(crate) struct Lab {
    pub(crate) parts: Parts,
    accelerator: OnceLock<Accelerator>,
    pub(crate) daemon: Program,
    pub(crate) programs: GuestPrograms,
}

impl Lab {
    /// Where guests run, with `programs` in them and `daemon` for their shares.
    pub(crate) fn new(parts: &Parts, programs: GuestPrograms, daemon: Program) -> Lab {
        Lab {
            parts: parts.clone(),
            accelerator: OnceLock::new(),
            daemon,
            programs,
        }
    }

    /// What QEMU runs guests on, found out when the first of them starts.
    fn accelerator(&self) -> Accelerator {
        *self.accelerator.get_or_init(|| {
            let accelerator = Accelerator::probe(&self.parts.boot.qemu, &self.parts.boot.kernel);
            println!("QEMU's guests run on {accelerator:?}");
            accelerator
        })
    }
}

/// One guest to be: where its files lie and what it is made of.
pub(crate) struct Guest<'lab> {
    lab: &'lab Lab,
    variant: Variant,
    /// Holds the root, the console log and the daemons' logs.
    directory: PathBuf,
    /// A path of a socket has a hundred bytes at most, which a target directory may use up.
    sockets: tempfile::TempDir,
    daemons: Vec<(Daemon, &'static str)>,
    memory: u32,
}

impl<'lab> Guest<'lab> {
    /// Copies the root, puts `job` in it, and starts the daemon that shares it.
    pub(crate) fn new(lab: &'lab Lab, variant: Variant, directory: &Path, job: &str) -> Result<Guest<'lab>> {
        let root = directory.join("root");
        fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
        copy_root(&lab.parts.boot.root, &root)?;
        fs::write(root.join("job"), job).context("cannot write the job")?;
        fs::copy(&lab.programs.exercise, root.join("bin/exercise")).context("cannot copy `exercise` into the root")?;
        let sockets = tempfile::Builder::new()
            .prefix("innkeeper-test-")
            .tempdir()
            .context("cannot create a temporary directory for sockets")?;
        let mut guest = Guest {
            lab,
            variant,
            directory: directory.to_owned(),
            sockets,
            daemons: Vec::new(),
            memory: match variant.device {
                Device::Uml => UML_MEMORY,
                _ => MEMORY,
            },
        };
        guest.share(&root, ROOT_TAG, Sharing::Plain)?;
        Ok(guest)
    }

    /// Gives the guest so many MiB of memory.
    pub(crate) fn set_memory(&mut self, memory: u32) {
        self.memory = memory;
    }

    /// Shares one more directory.
    pub(crate) fn share(&mut self, directory: &Path, tag: &'static str, sharing: Sharing) -> Result<()> {
        let socket = self.sockets.path().join(tag);
        let log = self.directory.join(format!("daemon-{tag}.log"));
        let share = Share {
            directory,
            tag,
            sharing,
        };
        let daemon = Daemon::start(&self.lab.daemon, &share, self.variant, &socket, &log)?;
        self.daemons.push((daemon, tag));
        Ok(())
    }

    /// Where the guest's root lies on the host.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// Powers the guest on; returns when its init runs.
    pub(crate) fn start(&self) -> Result<Console> {
        for _ in 0..FAULTS_BORNE {
            match self.power_on() {
                Err(error) if format!("{error:#}").contains(TRANSLATOR_FAULT) => {
                    println!("          retrying: QEMU's translator crashed the guest's kernel before it had drivers");
                }
                result => return result,
            }
        }
        self.power_on()
    }

    fn power_on(&self) -> Result<Console> {
        let shares: Vec<(PathBuf, &str)> = self
            .daemons
            .iter()
            .map(|(daemon, tag)| (daemon.socket().to_owned(), *tag))
            .collect();
        let command = match self.variant.program(&self.lab.parts) {
            Some(program) => self.qemu(program, &shares),
            None => {
                let uml = self.lab.parts.uml.as_ref().map_err(|reason| anyhow!("{reason}"))?;
                uml::command(uml, self.memory, &shares, self.sockets.path())
            }
        };
        let mut console = Console::start(command, Some(&self.directory.join("console.log")))?;
        console.wait_for(STARTED, START_LIMIT)?;
        Ok(console)
    }

    fn qemu(&self, program: &Path, shares: &[(PathBuf, &str)]) -> Command {
        // Linux uses at most one request queue for each processor. No more of them than that: see TRANSLATOR_FAULT.
        let cpus = self.variant.queues;
        // Only errors of the kernel on the console, so that its lines do not cut through the job's.
        let append = format!("rootfstype=virtiofs root={ROOT_TAG} rw init=/init loglevel=4");
        QemuCommand::new(program, self.lab.accelerator(), cpus)
            .machine(&self.lab.parts.boot.kernel, self.memory, &append)
            .shares(shares, self.variant)
            .build()
    }

    /// Powers the guest on, waits for the end of its job and returns what the job printed; an error if the job failed.
    pub(crate) fn run(&self, limit: Duration) -> Result<String> {
        self.end_of_job(self.start()?, limit)
    }

    /// The rest of [`Guest::run`] for a guest that runs.
    pub(crate) fn end_of_job(&self, mut console: Console, limit: Duration) -> Result<String> {
        let line = console.wait_for(STATUS, limit)?;
        let status = line.rsplit(STATUS).next().unwrap_or_default().trim().to_owned();
        console
            .wait_for_end(POWER_OFF_LIMIT)
            .context("the guest did not power off after its job")?;
        let path = self.root().join("job.out");
        let printed = fs::read(&path).with_context(|| format!("the guest left no {}", path.display()))?;
        let printed = String::from_utf8_lossy(&printed).into_owned();
        if status != "0" {
            bail!("the job ended with status {status} in the guest, and printed:\n{printed}");
        }
        Ok(printed)
    }

    /// How often each request lane of the root's daemon went to sleep; `None` if the daemon is a peer.
    pub(crate) fn request_lanes(&self) -> Result<Option<Vec<(String, u64)>>> {
        let (daemon, _) = self.daemons.first().context("a guest has a root")?;
        daemon.request_lanes()
    }

    /// Kills the daemon of a share at once, as a crash would; [`Guest::share`] starts another.
    pub(crate) fn kill_daemon(&mut self, tag: &str) -> Result<()> {
        let at = self.daemons.iter().position(|(_, known)| *known == tag);
        let at = at.with_context(|| format!("there is no share {tag}"))?;
        let (daemon, _) = self.daemons.remove(at);
        daemon.kill()
    }

    /// How many descriptors the daemon of a share has open; `None` if it is a peer.
    pub(crate) fn open_descriptors(&self, tag: &str) -> Result<Option<usize>> {
        self.daemon(tag)?.open_descriptors()
    }

    /// How many threads of a share's daemon wait in place of lanes; `None` if it is a peer.
    pub(crate) fn helpers(&self, tag: &str) -> Result<Option<usize>> {
        self.daemon(tag)?.helpers()
    }

    /// The counters of a share's window after the guest has unmounted it.
    pub(crate) fn window_counts(&self, tag: &str) -> Result<WindowCounts> {
        self.daemon(tag)?.window_counts()
    }

    fn daemon(&self, tag: &str) -> Result<&Daemon> {
        let share = self.daemons.iter().find(|(_, known)| *known == tag);
        let (daemon, _) = share.with_context(|| format!("there is no share {tag}"))?;
        Ok(daemon)
    }

    /// What the job has printed so far, for the report of a failure.
    pub(crate) fn printed(&self) -> String {
        fs::read(self.root().join("job.out")).map_or_else(
            |error| format!("nothing ({error})"),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// That the guest's end was not a daemon's end too.
    pub(crate) fn check_daemons_live(&mut self) -> Result<()> {
        for (daemon, tag) in &mut self.daemons {
            ensure!(daemon.lives()?, "the daemon of {tag} ended with the guest");
        }
        Ok(())
    }

    /// Ends the daemons, which must do so by themselves and in order.
    pub(crate) fn finish(self) -> Result<()> {
        self.daemons
            .into_iter()
            .try_for_each(|(daemon, tag)| daemon.stop().with_context(|| format!("daemon of {tag}")))
    }
}
