//! The command line of `bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::contender::Recipe;
use super::workload::{Task, all};
use crate::args::Process;

/// Measure this program, other vhost-user-fs daemons and the host itself, side by side.
///
/// Starts the daemons on files it makes inside of DIRECTORY and removes at the end, and drives them straight over the
/// ring, with no kernel in the way. The contenders take turns round by round.
///
/// Then tools of the host work on a source tree, through `innkeeper mount` and on the directory itself: untar, git-status, git-clone,
/// rm, grep and compile. A round is one run, with a new daemon and a new mount, whose caches are empty; the host's own
/// caches have all files. It takes root and /dev/fuse; nobody else sees these mounts.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0; 128+N after signal N; 2 for a wrong command line; 1 for any other failure, also where what \
                  --workload names cannot be measured here."
)]
pub(crate) struct Bench {
    /// Where to make the files to measure with
    #[arg(value_name = "DIRECTORY")]
    pub(super) directory: PathBuf,
    /// Daemon to compare with, as a command with {socket} and {directory}
    #[arg(long, value_name = "COMMAND")]
    pub(super) against: Vec<String>,
    /// What to measure: over the ring, with @N for N operations at a time, or a tool through a mount [default: all]
    #[arg(long = "workload", value_name = "NAME")]
    pub(super) tasks: Vec<Task>,
    /// Rounds of each contender
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) rounds: u32,
    /// Seconds of a round
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5, value_parser = parse_seconds)]
    pub(super) seconds_per_round: f64,
    /// Packed rings where a daemon has them
    #[arg(long)]
    pub(super) packed: bool,
    /// Request queues where a daemon has as many, each driven by a thread
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) queues: u16,
    /// Processors for the driving thread and the daemons
    #[arg(long, value_name = "WHICH", value_enum, default_value_t = Placement::Apart)]
    pub(super) placement: Placement,
    /// Small files to look up and read
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=999_999))]
    pub(super) files: u32,
    /// Entries of the directory to list
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=999_999))]
    pub(super) entries: u32,
    /// MiB of the files to read and write
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(super) data_mib: u32,
    /// Files to look up for `memory`
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) known_files: u32,
    /// Files of the source tree that tools work on
    #[arg(long, value_name = "N", default_value_t = 3000, value_parser = clap::value_parser!(u32).range(24..=999_999))]
    pub(super) tree_files: u32,
    /// Write all figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Draw the ratios to this file as SVG
    #[arg(long, value_name = "FILE")]
    pub(super) plot: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) process: Process,
}

/// Where the scheduler may put whom. Left alone it moves threads together and apart again, and a wake-up of a processor that sleeps
/// costs more than many a request: rounds would differ by more than daemons do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Placement {
    /// The driving threads, or a tool and its mount, on the first, the daemons on the others, as with a virtual machine
    /// that has its own
    Apart,
    /// All on the first: no wake-up of another processor, so that the work itself is compared
    Together,
    /// Wherever the kernel likes
    Free,
}

impl Bench {
    pub(super) fn tasks(&self) -> Vec<Task> {
        if self.tasks.is_empty() {
            all()
        } else {
            self.tasks.clone()
        }
    }

    pub(super) fn round_time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds_per_round)
    }

    /// Our own daemon first, then the others. Each name is given once.
    pub(super) fn recipes(&self) -> Vec<Recipe> {
        let mut recipes = vec![Recipe {
            name: "innkeeper".into(),
            command: None,
        }];
        for command in &self.against {
            let word = command.split_whitespace().next().unwrap_or_default();
            let program = word.rsplit('/').next().unwrap_or_default().to_owned();
            let namesakes = recipes
                .iter()
                .filter(|recipe| recipe.name.split('#').next() == Some(&*program));
            let name = match namesakes.count() {
                0 => program,
                others => format!("{program}#{}", others + 1),
            };
            recipes.push(Recipe {
                name,
                command: Some(command.clone()),
            });
        }
        recipes
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("give seconds from 0.001 to 3600".into()),
    }
}
