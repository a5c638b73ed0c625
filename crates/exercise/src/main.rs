//! Exercises a file or a socket: operation sequences compared with a model, random access, coherence of mappings, echoes.
//!
//! It runs inside guests as a static binary, so that it depends on nothing there. It prints one line on success (exit
//! status 0), reports a difference on standard error (1), and refuses bad usage with one sentence (2).

mod access;
mod arguments;
mod coherence;
mod difference;
mod direct;
mod echo;
mod error;
mod generator;
mod mapping;
mod refuse;
mod sequence;

use std::io::{self, Write};
use std::process::ExitCode;

use arguments::Job;
use error::Error;

fn main() -> ExitCode {
    let job = match arguments::parse(std::env::args_os()) {
        Ok(job) => job,
        Err(code) => return code,
    };
    let done = match &job {
        Job::Sequence(sequence) => sequence::run(sequence),
        Job::Random(random) => access::run(random),
        Job::Direct(direct) => direct::run(direct),
        Job::Store(spot) => coherence::store(spot),
        Job::Await(wait) => coherence::wait(wait),
        Job::Refuse(refuse) => refuse::run(refuse),
        Job::Echo(echo) => echo::run(echo),
        Job::Reflect(reflect) => echo::reflect(reflect),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("exercise: {error}");
            ExitCode::from(if matches!(error, Error::Usage(_)) { 2 } else { 1 })
        }
    }
}

/// Prints a line at once: whoever started us may wait for it.
fn say(line: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
