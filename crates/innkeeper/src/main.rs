//! Serves host directories and devices to virtual machines over vhost-user, and explains failures.

mod commands;
mod guest;
mod regular_file;
mod serve;

use std::ffi::OsString;
use std::process::ExitCode;

use commands::parse::parse;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    if guest::invoked(&words) {
        guest::run(&words);
    }
    commands::run(parse(&words).command)
}
