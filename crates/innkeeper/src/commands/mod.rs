//! The subcommands.

mod boot;
mod check;
mod completions;
mod connect;
mod man;
mod mount;
pub(crate) mod parse;
mod why;

use std::fmt::Display;
use std::process::ExitCode;

use bench::Bench;
use clap::{CommandFactory, Parser, Subcommand};
use process::arguments::Log;
use process::say::say;

use crate::serve;
use crate::serve::Served;
use boot::args::Boot;
use check::args::Check;
use completions::Completions;
use connect::args::Connect;
use man::Pages;
use mount::args::Mount;
use why::args::Why;

/// Serve host directories and devices to virtual machines over vhost-user, and explain failures
#[derive(Debug, Parser)]
#[command(name = "innkeeper", version, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Serve(Served),
    Mount(Mount),
    Boot(Boot),
    Check(Check),
    Connect(Connect),
    Bench(Bench),
    Why(Why),
    Man(Pages),
    Completions(Completions),
}

/// Runs a subcommand. Answers the exit status.
pub(crate) fn run(command: Command) -> ExitCode {
    match command {
        Command::Serve(served) => {
            let service = served.service();
            end(service.serving().process.log, 1, || serve::daemon::run(service))
        }
        Command::Mount(mount) => end(mount.log, 1, || mount::run(&mount)),
        Command::Boot(boot) => end(boot.process.log, 125, || boot::run(&boot)),
        Command::Check(check) => end(check.log, 1, || check::run(&check)),
        Command::Connect(connect) => end(connect.log, 1, || connect::run(&connect)),
        Command::Bench(bench) => end(bench.process.log, 1, || bench::run(&bench)),
        // Without `end`: what that does to signals, the command would inherit.
        Command::Why(why) => why::run(why),
        Command::Man(pages) => end(Log::default(), 1, || man::run(&pages, Arguments::command())),
        Command::Completions(completions) => {
            completions::run(&completions, Arguments::command());
            ExitCode::SUCCESS
        }
    }
}

/// Does the work of a subcommand; `failed` is the exit status of what innkeeper itself could not do.
fn end<E: Display>(log: Log, failed: u8, work: impl FnOnce() -> Result<u8, E>) -> ExitCode {
    log.start();
    process::signals::outlive_the_limit_of_file_size();
    match work() {
        Ok(code) => code.into(),
        Err(error) => {
            say(error);
            failed.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
