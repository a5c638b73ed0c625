//! Serves host directories and devices to virtual machines over vhost-user, and explains failures.

mod bench;
mod commands;
mod guest;
mod regular_file;
mod serve;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use commands::Arguments;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    if guest::invoked(&words) {
        guest::run(&words);
    }
    commands::run(Arguments::parse_from(words).command)
}
