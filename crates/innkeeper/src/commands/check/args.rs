//! The command line of `check`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use process::arguments::{ACCESS, BASIC, DIAGNOSIS, Log};

use crate::commands::{Arguments, Command};
use crate::serve::Served;
use crate::serve::args::SandboxMode;

/// Try out a device on this host: which sandbox it gets, and which system calls it makes
///
/// Starts daemons of DEVICE with --seccomp log, has a guest in this process do all that the device can do, and compares the system
/// calls with the list of the device. Nothing is left behind. Needs no virtual machine and no privilege; what a daemon of another user
/// would do, only that user can check.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                    innkeeper check                                 try out all devices\n  \
                    innkeeper check share --directory /srv/project  share a directory on that file system\n\n\
                  Exit status: 0 if everything works; 1 if a system call is missing in the list, a daemon fails, or innkeeper itself \
                  does; 2 for a wrong command line.")]
pub(crate) struct Check {
    /// Device to try out, by its subcommand [default: all that can be]
    #[arg(value_name = "DEVICE", value_parser = parse_device)]
    pub(crate) device: Option<String>,
    /// Share a new directory in DIR, on the file system there [default: the directory for temporary files]
    #[arg(long, value_name = "DIR", help_heading = BASIC)]
    pub(crate) directory: Option<PathBuf>,
    /// The sandbox of the daemons
    #[arg(long, value_name = "MODE", value_enum, default_value_t = SandboxMode::Auto, help_heading = ACCESS)]
    pub(crate) sandbox: SandboxMode,
    /// Print one JSON object, with every operation
    #[arg(long, help_heading = DIAGNOSIS)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) log: Log,
}

/// The subcommands of devices that can be tried out, each with whether it takes a directory.
pub(super) fn devices() -> Vec<(String, bool)> {
    let all = Served::augment_subcommands(clap::Command::new("innkeeper"));
    let device = |device: &clap::Command| (device.get_name().to_owned(), device.get_positionals().next().is_some());
    all.get_subcommands().map(device).filter(can_be_tried_out).collect()
}

/// Whether it needs no more than a directory, and has an exercise.
fn can_be_tried_out((name, takes_directory): &(String, bool)) -> bool {
    let directory = takes_directory.then_some("/");
    let words = ["innkeeper", name].into_iter().chain(directory);
    let line = Arguments::try_parse_from(words.chain(["--socket-path", "socket"]));
    let exercise = |served: &Served| served.service().exercise().is_some();
    line.is_ok_and(|line| matches!(&line.command, Command::Serve(served) if exercise(served)))
}

fn parse_device(text: &str) -> Result<String, String> {
    let names: Vec<_> = devices().into_iter().map(|(name, _)| name).collect();
    if names.iter().any(|name| name == text) {
        return Ok(text.to_owned());
    }
    Err(format!("no such device; give one of: {}", names.join(", ")))
}
