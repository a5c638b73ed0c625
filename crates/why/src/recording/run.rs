//! Runs a command, or attaches to a process, while the kernel's functions in it are traced.

use std::ffi::OsString;
use std::process::Command;

use super::data::Recording;
use super::error::Error;
use super::from_session::functions;
use crate::explain::instruction::Suspect;
use crate::kernel::tracefs::{self, Method, Session};
use crate::observe::ptrace::{self, Report};

/// What came of a command and of tracing it.
#[derive(Debug)]
pub struct Run {
    /// The command's calls and end.
    pub report: Report,
    /// What the kernel's tracer saw, or why it saw nothing.
    pub recording: Result<Recording, Refused>,
    /// What else there is to know, a sentence each.
    pub notes: Vec<String>,
}

/// Why the kernel's part is missing.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Tracing was not possible.
    #[error(transparent)]
    Tracefs(#[from] tracefs::Error),
    /// What was traced cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Error),
}

/// What is to be seen beyond what a kernel shows by itself: an earlier run of the command tells what that should be.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Functions whose returns are wanted, for kernels that show those of some alone: [`Recording::functions_of_failures`].
    pub returns: Vec<String>,
    /// Functions whose instructions are probed: [`Recording::suspects`].
    pub instructions: Vec<Suspect>,
}

/// Whose failures are wanted.
pub enum Subject<'p> {
    /// Those of a command, which is run.
    Command(Vec<OsString>),
    /// Those of a process that runs already.
    Process(ptrace::Process<'p>),
}

/// Runs a command or attaches to a process, tracing the kernel's functions in it where that is possible.
///
/// `guardian` is a command that calls [`tracefs::guardian::run`].
///
/// # Errors
/// The command is none, or it or the process cannot be traced by ptrace. That the command cannot be executed, or the kernel's
/// functions not be traced, is part of the result.
pub fn run(subject: Subject<'_>, guardian: Command, wanted: Wanted) -> Result<Run, ptrace::Error> {
    if let Subject::Process(process) = &subject {
        // To set up the tracer takes a while, and this tells most of what can be wrong.
        ptrace::leader(process.number)?;
    }
    let suspects = || wanted.instructions.iter();
    let mut sites: tracefs::Sites = suspects()
        .flat_map(Suspect::probes)
        .map(|address| (address, Vec::new()))
        .collect();
    sites.extend(suspects().flat_map(Suspect::fetches));
    let mut tracing = Tracing(Session::start(guardian, &wanted.returns, &sites));
    let mut notes = tracing
        .0
        .as_ref()
        .map_or_else(|_| Vec::new(), |session| session.notes().to_vec());
    let report = match subject {
        Subject::Command(command) => ptrace::run_watched(command, &mut tracing)?,
        Subject::Process(process) => ptrace::attach(process, &mut tracing)?,
    };
    notes.extend(report.withheld.iter().cloned());
    let recording = tracing.0.map_err(Refused::from).and_then(|session| {
        let (header, formats) = session.descriptions();
        let (header, formats) = (header.clone(), formats.to_vec());
        let refused = session.refused().to_vec();
        let has_returns = session.method() != Method::None;
        let mut seen = session.finish();
        let failures = seen.failures.drain(..);
        notes.extend(failures.map(|failure| format!("tracefs is not restored: {failure}")));
        let functions = functions(&mut notes);
        let available = std::mem::take(&mut seen.traceable);
        let recording = Recording::new(
            header,
            formats,
            seen,
            has_returns,
            &report.failures,
            &functions,
            &mut notes,
        )?;
        Ok(Recording {
            loading: recording.loading(&available, &functions)?,
            suspects: wanted.instructions,
            refused,
            ..recording
        })
    });
    Ok(Run {
        report,
        recording,
        notes,
    })
}

/// Tells the session of the command's calls; what comes in between ends it.
struct Tracing(Result<Session, tracefs::Error>);

impl ptrace::Watch for Tracing {
    fn started(&mut self, threads: &[i32]) {
        if let Ok(session) = &mut self.0
            && let Err(error) = session.pin(threads)
        {
            self.0 = Err(error);
        }
    }

    fn entered(&mut self, thread: i32, number: u64) {
        if let Ok(session) = &mut self.0 {
            session.capture().entered(thread, number);
        }
    }

    fn left(&mut self, thread: i32, failed: bool) {
        if let Ok(session) = &mut self.0 {
            session.capture().left(thread, failed);
        }
    }

    fn ended(&mut self, thread: i32) {
        if let Ok(session) = &mut self.0 {
            session.capture().ended(thread);
        }
    }
}
