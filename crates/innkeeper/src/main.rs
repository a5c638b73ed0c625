//! Shares host directories with virtual machines over vhost-user.

mod args;
mod bench;
mod boot;
mod capabilities;
mod channel;
mod ending;
mod error;
mod error_log;
mod explain;
mod export;
mod guest;
mod hint;
mod limits;
mod mount;
mod regular_file;
mod say;
mod share;
mod signals;
mod socket;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, Job, LogLevel};

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    if guest::invoked(&words) {
        guest::run(&words);
    }
    match Arguments::parse_from(words).job {
        Job::Share(share) => run(share.process.log_level, 1, || share::run(&share)),
        Job::Mount(mount) => run(mount.log_level, 1, || mount::run(&mount)),
        Job::Bench(bench) => run(bench.process.log_level, 1, || bench::run(&bench)),
        Job::Boot(boot) => run(boot.process.log_level, 125, || boot::run(&boot)),
        // Without `run`: what that does to signals, the command would inherit.
        Job::Why(why) => explain::run(why),
    }
}

/// Does one job; `failed` is the exit status of a job that innkeeper itself could not do.
fn run(log_level: LogLevel, failed: u8, job: impl FnOnce() -> Result<u8, error::Error>) -> ExitCode {
    tracing_subscriber::fmt()
        .with_max_level(tracing::level_filters::LevelFilter::from(log_level))
        .with_writer(std::io::stderr)
        .init();
    signals::outlive_the_limit_of_file_size();
    match job() {
        Ok(code) => code.into(),
        Err(error) => {
            say::say(error);
            failed.into()
        }
    }
}
