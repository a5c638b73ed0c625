//! Sets up, demonstrates and tests innkeeper.

mod bench;
mod cache;
mod demo;
mod fuzz;
mod guest;
mod pins;
mod run;
mod setup;
mod test;
mod tree;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sets up, demonstrates and tests innkeeper
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    job: Job,
}

#[derive(Debug, Subcommand)]
enum Job {
    /// Install what tests and demo need: packages, guest kernels, a guest root, the newer QEMU, User-Mode Linux and tools
    Setup,
    /// Boot a Linux guest from a directory of this host; set up only what this needs
    Demo,
    /// Check everything, from the formatting to real Linux guests
    Test(test::Arguments),
    /// Run a fuzz target for a while, or list the targets
    Fuzz(fuzz::Arguments),
    /// Measure
    Bench {
        /// What to measure
        #[arg(value_enum, default_value_t = bench::Bench::Fs)]
        bench: bench::Bench,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().job {
        Job::Setup => setup::all().map(drop),
        Job::Demo => demo::run(),
        Job::Test(arguments) => test::run(&arguments),
        Job::Fuzz(arguments) => fuzz::run(&arguments),
        Job::Bench { bench } => bench::run(bench),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
