//! `innkeeper check`: daemons of a device under observation, with a guest that uses all of it.

pub(crate) mod args;
mod calls;
mod daemon;
mod error;
mod report;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Parser;
use process::interrupt::Interrupt;
use rustix::thread::capabilities;
use tempfile::TempDir;

use super::{Arguments, Command};
use crate::serve::Served;
use args::Check;
use calls::Calls;
use daemon::Place;
use error::Error;
use report::{Device, Report};

/// The status if a device does not work, or would be killed.
const FAILED: u8 = 1;

/// Tries out the devices that were asked for, and prints the report. Answers the exit status. For the start of the process, before its
/// first thread.
pub(crate) fn run(check: &Check) -> Result<u8, Error> {
    let interrupt = Interrupt::watch()?;
    // Whatever went wrong after a signal went wrong because of it.
    all(check, &interrupt).or_else(|error| interrupt.status().ok_or(error))
}

fn all(check: &Check, interrupt: &Interrupt) -> Result<u8, Error> {
    let wanted = |name: &str| check.device.as_deref().is_none_or(|device| device == name);
    let devices = args::devices().into_iter().filter(|(name, _)| wanted(name));
    let devices = devices.map(|(name, takes_directory)| device(check, &name, takes_directory, interrupt));
    let report = Report::new(devices.collect::<Result<_, _>>()?);
    let text = if check.json { report.json() } else { report.to_string() };
    std::io::stdout().write_all(text.as_bytes()).map_err(Error::Output)?;
    Ok(if report.is_fine() { 0 } else { FAILED })
}

fn device(check: &Check, name: &str, takes_directory: bool, interrupt: &Interrupt) -> Result<Device, Error> {
    let scratch = directory(&std::env::temp_dir())?;
    let shared = directory(check.directory.as_deref().unwrap_or(scratch.path()))?;
    let socket = scratch.path().join("socket");
    let mut words: Vec<OsString> = vec![name.into()];
    if takes_directory {
        words.push(shared.path().into());
    }
    words.extend(["--socket-path".into(), socket.clone().into()]);
    let place = Place {
        program: std::env::current_exe().map_err(Error::Program)?,
        words: [words.clone(), in_sandbox(check)].concat(),
        socket,
        log: scratch.path().join("log"),
        directory: shared.path().into(),
    };
    let line = Arguments::parse_from([vec!["innkeeper".into()], words].concat());
    let Command::Serve(served) = line.command else {
        unreachable!("{name} is one of the devices")
    };
    try_out(name, &served, &place, interrupt)
}

/// What is the same for all daemons.
fn in_sandbox(check: &Check) -> Vec<OsString> {
    use clap::ValueEnum as _;
    let sandbox = check
        .sandbox
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned());
    let words = ["--sandbox", &sandbox, "--seccomp", "log", "--log-level", "debug"];
    words.iter().map(Into::into).collect()
}

fn try_out(name: &str, served: &Served, place: &Place, interrupt: &Interrupt) -> Result<Device, Error> {
    let service = served.service();
    let cannot = |error: crate::serve::error::Error| Error::Device {
        device: name.to_owned(),
        reason: error.to_string(),
    };
    service.check().map_err(cannot)?;
    let declaration = service.declaration().map_err(cannot)?;
    let Some(exercise) = service.exercise() else {
        unreachable!("{name} can be tried out")
    };
    let mut calls = Calls::new(&declaration)?;
    let (mut passes, mut failures, mut log) = (Vec::new(), Vec::new(), String::new());
    for pass in &exercise.passes {
        let outcome = daemon::run(place, pass, &mut calls)?;
        interrupt.check()?;
        if let Some(failure) = outcome.failure {
            failures.push(format!("{}: {failure}", pass.name));
        }
        passes.push(outcome.ran);
        log.push_str(&outcome.log);
    }
    let needed = declaration.all_capabilities();
    let has_them = capabilities(None).is_ok_and(|sets| sets.effective.contains(needed));
    Ok(Device::new(
        name,
        &log,
        calls.compare(has_them),
        failures,
        (exercise.needs)(&passes),
        passes,
    ))
}

fn directory(within: &Path) -> Result<TempDir, Error> {
    let made = tempfile::Builder::new().prefix("innkeeper-check-").tempdir_in(within);
    made.map_err(|source| Error::Directory {
        path: PathBuf::from(within),
        source,
    })
}
