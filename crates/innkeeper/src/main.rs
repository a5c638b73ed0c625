//! Shares host directories with virtual machines over vhost-user.

mod args;
mod bench;
mod boot;
mod channel;
mod error;
mod error_log;
mod explain;
mod export;
mod guest;
mod hint;
mod mount;
mod regular_file;
mod share;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, Job};
use process::arguments::Log;
use process::say::say;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    if guest::invoked(&words) {
        guest::run(&words);
    }
    match Arguments::parse_from(words).job {
        Job::Share(share) => run(share.process.log, 1, || share::run(&share)),
        Job::Mount(mount) => run(mount.log, 1, || mount::run(&mount)),
        Job::Bench(bench) => run(bench.process.log, 1, || bench::run(&bench)),
        Job::Boot(boot) => run(boot.process.log, 125, || boot::run(&boot)),
        // Without `run`: what that does to signals, the command would inherit.
        Job::Why(why) => explain::run(why),
    }
}

/// Does one job; `failed` is the exit status of a job that innkeeper itself could not do.
fn run(log: Log, failed: u8, job: impl FnOnce() -> Result<u8, error::Error>) -> ExitCode {
    log.start();
    process::signals::outlive_the_limit_of_file_size();
    match job() {
        Ok(code) => code.into(),
        Err(error) => {
            say(error);
            failed.into()
        }
    }
}
