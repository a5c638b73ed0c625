//! The program `mute-thread`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use mute_thread::cli::Arguments;

fn main() -> ExitCode {
    match Arguments::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where nobody listens, the exit code has to do.
            let _ = writeln!(io::stderr(), "mute-thread: {error}");
            error.exit_code()
        }
    }
}
