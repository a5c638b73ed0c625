//! The program `mute-thread`.

use std::process::ExitCode;

use clap::Parser;
use mute_thread::cli::Arguments;

fn main() -> ExitCode {
    match Arguments::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mute-thread: {error}");
            error.exit_code()
        }
    }
}
