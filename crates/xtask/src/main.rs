//! Sets up, demonstrates and tests innkeeper.

mod cache;
mod choices;
mod run;
mod setup;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sets up, demonstrates and tests innkeeper
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    job: Job,
}

#[derive(Debug, Subcommand)]
enum Job {
    /// Install the packages and make the guest kernels, the guest root, the newer QEMU and the tools
    Setup,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().job {
        Job::Setup => setup::run().map(|_| ()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
