//! `innkeeper bench`: drives daemons directly over the ring, without a kernel in between, runs tools on mounts of
//! them, and compares them with each other and with the host.
//!
//! It knows devices only by their sockets: all daemons, ours too, are programs that it starts.

mod arguments;
mod comparison;
mod daemon;
mod error;
mod figures;
mod host;
mod machine;
mod measure;
mod progress;
mod random;
mod ring;
mod scratch;
mod show;
mod side;
mod tally;
mod task;
mod tools;
mod turns;
mod warning;

pub use arguments::Bench;
pub use error::Error;

use comparison::{All, compare};
use process::interrupt::Interrupt;

/// Measures all that was asked for. Answers the exit status. For the start of the process, before its first thread.
pub fn run(args: &Bench) -> Result<u8, Error> {
    process::limits::raise_open_files(args.process.rlimit_nofile)?;
    let interrupt = Interrupt::watch()?;
    match compare(args, &interrupt) {
        Ok(All::Measured) => Ok(0),
        Ok(All::ButMissing) if args.tasks.is_empty() => Ok(0),
        Ok(All::ButMissing) => Ok(1),
        // Whatever went wrong after a signal went wrong because of it.
        Err(error) => interrupt.status().ok_or(error),
    }
}
