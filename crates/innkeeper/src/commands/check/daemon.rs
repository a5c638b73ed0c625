//! One daemon under observation, and a guest of it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use process::whole;
use rustix::process::{Pid, Signal, kill_process};
use why::ptrace::Program;

use super::calls::Calls;
use super::error::Error;
use crate::serve::exercise::{Pass, Ran, Steps};

/// Where a daemon and its guest meet.
pub(super) struct Place {
    /// The program of innkeeper.
    pub(super) program: PathBuf,
    /// The subcommand with its directory and what else all daemons of a device get.
    pub(super) words: Vec<OsString>,
    pub(super) socket: PathBuf,
    /// Standard error of the daemons.
    pub(super) log: PathBuf,
    pub(super) directory: PathBuf,
}

/// What became of a pass.
pub(super) struct Outcome {
    pub(super) ran: Ran,
    /// Why the device does not work here.
    pub(super) failure: Option<String>,
    /// The lines of the daemon's log.
    pub(super) log: String,
}

/// Starts a daemon, has a guest use it, ends it, and gives all of its system calls to `calls`.
pub(super) fn run(place: &Place, pass: &Pass, calls: &mut Calls) -> Result<Outcome, Error> {
    let mut command = Command::new(&place.program);
    command.args(&place.words).args(&pass.options);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(File::create(&place.log).map_err(Error::Watch)?);
    let mut steps = Steps::new(place.socket.clone(), place.directory.clone());
    let (started, starting) = mpsc::channel();
    let (ready, status, guest) = thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut program = Program::start(command)?;
            calls.daemon(program.process);
            let _waits = started.send((program.process, program.stdout.take()));
            // It is the last to know the program, so that a failure ends the wait of the other thread.
            drop(started);
            program.run(|event| calls.seen(event))
        });
        let Ok((process, stdout)) = starting.recv() else {
            let error = watching.join().map(Result::err);
            return Err(error.ok().flatten().map_or_else(defect, Error::Trace));
        };
        // Nothing is read if the daemon ends instead.
        let mut announcement = [0; 4096];
        let ready = stdout.is_some_and(|mut stdout| stdout.read(&mut announcement).is_ok_and(|length| length > 0));
        let guest = if ready { (pass.guest)(&mut steps) } else { Ok(()) };
        end(process, if guest.is_ok() { Signal::TERM } else { Signal::KILL });
        let status = watching.join().map_err(|_| defect())??;
        Ok((ready, status, guest))
    })?;
    let log = read(&place.log);
    let said = log
        .lines()
        .find_map(|line| line.strip_prefix("innkeeper: "))
        .map(str::to_owned);
    let mut outcome = Outcome {
        ran: Ran {
            pass: pass.name,
            refused: None,
            warnings: warnings(&log),
            operations: steps.done,
        },
        failure: None,
        log,
    };
    let last = outcome
        .ran
        .operations
        .last()
        .map_or("the start", |step| &step.operation);
    match guest {
        Ok(()) if !ready => {
            let reason = said.unwrap_or_else(|| format!("the daemon ended with status {status}"));
            if !pass.may_be_refused {
                outcome.failure = Some(reason.clone());
            }
            outcome.ran.refused = Some(reason);
        }
        Ok(()) if !calls.confined() => {
            outcome.failure = Some("the daemon served without a filter of system calls".into());
        }
        Ok(()) if status != 0 => outcome.failure = Some(format!("the daemon ended with status {status}")),
        Ok(()) => {}
        Err(error) => outcome.failure = Some(format!("after {last}: {}", whole(&error))),
    }
    Ok(outcome)
}

/// Ends a daemon; it may have ended by itself.
fn end(process: i32, signal: Signal) {
    if let Some(process) = Pid::from_raw(process) {
        let _ended = kill_process(process, signal);
    }
}

fn read(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A line has time, level, module and text.
fn warnings(log: &str) -> Vec<String> {
    let lines = log.lines().filter_map(|line| line.split_once(" WARN "));
    let texts = lines.filter_map(|(_, rest)| rest.split_once(": "));
    texts.map(|(_, text)| text.to_owned()).collect()
}

fn defect() -> Error {
    Error::Watch(std::io::Error::other("the thread that watches it ended"))
}
