//! The command line of `bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::daemon::names::names;
use crate::daemon::placement::Placement;
use crate::daemon::recipe::Recipe;
use crate::task::{Task, all};
use process::arguments::{BASIC, PERFORMANCE, Process};

/// Heading of the options that size the files.
const DATA: &str = "Data";

/// Measure this program, other vhost-user-fs daemons and the host side by side
///
/// Starts the daemons on files that it makes in DIRECTORY and removes at the end. Drives them directly over the ring, without
/// a guest kernel. The contenders take turns round by round.
///
/// Then tools of the host work on a source tree, through `innkeeper mount` and on the directory itself: untar, git-status,
/// git-clone, rm, grep and compile. A round is one run with a new daemon and a new mount, whose caches are empty; the host's
/// own caches hold all files. The tools need root and /dev/fuse. Other processes do not see these mounts.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                    innkeeper bench /tmp --against 'virtiofsd --socket-path={socket} --shared-dir={directory}'\n  \
                    innkeeper bench /tmp --workload read-4k@32 --packed --json figures.json\n\n\
                  Exit status: 0; 128+N after signal N; 2 for a wrong command line; 1 for any other failure, and if a named \
                  --workload cannot be measured here.")]
pub struct Bench {
    /// Directory in which to make the files to measure with
    #[arg(value_name = "DIRECTORY")]
    pub(crate) directory: PathBuf,
    /// Daemon to compare with: a command with {socket} and {directory}
    #[arg(long, value_name = "COMMAND", help_heading = BASIC)]
    pub(crate) against: Vec<String>,
    /// Measure only this; may be repeated [default: everything]
    ///
    /// NAME is a workload over the ring, with @N for N operations at a time, a tool, ready, idle or memory.
    #[arg(long = "workload", value_name = "NAME", help_heading = BASIC)]
    pub(crate) tasks: Vec<Task>,
    /// Rounds of each contender
    #[arg(
        long,
        value_name = "N",
        default_value_t = 7,
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = BASIC,
    )]
    pub(crate) rounds: u32,
    /// Seconds of a round
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5, value_parser = parse_seconds, help_heading = BASIC)]
    pub(crate) seconds_per_round: f64,
    /// Use packed rings if a daemon has them
    #[arg(long, help_heading = PERFORMANCE)]
    pub(crate) packed: bool,
    /// Use N request queues if a daemon has as many, each driven by a thread
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=64),
        help_heading = PERFORMANCE,
    )]
    pub(crate) queues: u16,
    /// Processors of the driving thread and the daemons
    #[arg(long, value_name = "WHICH", value_enum, default_value_t = Placement::Apart, help_heading = PERFORMANCE)]
    pub(crate) placement: Placement,
    /// Small files to look up and read
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..=999_999),
        help_heading = DATA,
    )]
    pub(crate) files: u32,
    /// Entries of the directory to list
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(1..=999_999),
        help_heading = DATA,
    )]
    pub(crate) entries: u32,
    /// Size of the files to read and write, in MiB
    #[arg(
        long,
        value_name = "MIB",
        default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(1..=65_536),
        help_heading = DATA,
    )]
    pub(crate) data_mib: u32,
    /// Files to look up for `memory`
    #[arg(
        long,
        value_name = "N",
        default_value_t = 200_000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000),
        help_heading = DATA,
    )]
    pub(crate) known_files: u32,
    /// Files of the source tree that tools work on
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3000,
        value_parser = clap::value_parser!(u32).range(24..=999_999),
        help_heading = DATA,
    )]
    pub(crate) tree_files: u32,
    /// Write all figures to FILE as JSON
    #[arg(long, value_name = "FILE", help_heading = BASIC)]
    pub(crate) json: Option<PathBuf>,
    /// Draw the ratios to FILE as SVG
    #[arg(long, value_name = "FILE", help_heading = BASIC)]
    pub(crate) plot: Option<PathBuf>,
    #[command(flatten)]
    /// Options of the process itself.
    pub process: Process,
}

impl Bench {
    pub(crate) fn tasks(&self) -> Vec<Task> {
        if self.tasks.is_empty() {
            all()
        } else {
            self.tasks.clone()
        }
    }

    pub(crate) fn round_time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds_per_round)
    }

    /// Our own daemon first, then the others. Each name is given once.
    pub(crate) fn recipes(&self) -> Vec<Recipe> {
        let own = Recipe {
            name: "innkeeper".into(),
            command: None,
        };
        let program = std::env::current_exe().unwrap_or_default();
        let directory = program.parent().unwrap_or(&program).display().to_string();
        let names = names(&directory, &own.describe(self.queues), &self.against);
        let others = names.into_iter().zip(&self.against).map(|(name, command)| Recipe {
            name,
            command: Some(command.clone()),
        });
        [own].into_iter().chain(others).collect()
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("give seconds from 0.001 to 3600".into()),
    }
}
