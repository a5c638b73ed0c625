//! `innkeeper why`: the failed system calls of a command, and the kernel functions that refused them.

mod account;
pub(crate) mod args;
mod doctor;
mod everyday;
mod host_log;
mod report;

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitCode};

use clap::Args;
use clap::error::ErrorKind;
use why::host_log::HostLog;
use why::instruction::{Coverage, Exact, Suspect};
use why::ptrace::{self, Outcome};
use why::recording::{self, Found, Recording, Run, Subject, Wanted};
use why::source::{self, Installed, Source};
use why::tracefs::guardian;

use args::{Filter, Why};
use process::say::say;
use process::signals::{ENDING, Signals};
use report::{Report, Seen};

/// The status of failures of innkeeper itself, as a shell has them for a command that is not there.
const FAILED: u8 = 125;
const NOT_THERE: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;
/// Functions each of whose basic blocks is probed.
const DEEP_MAX: usize = 8;

/// The answers to all failures, and what was run of the functions that made them.
type Explained = (Vec<Option<Found>>, Vec<Option<Coverage>>);

pub(crate) fn run(job: Why) -> ExitCode {
    if let Some(journal) = &job.guardian {
        return guard(journal);
    }
    if job.doctor {
        return doctor::run(job.json);
    }
    if let Err(sentence) = job.check() {
        let mut why = Why::augment_args(clap::Command::new("innkeeper why"));
        why.error(ErrorKind::ArgumentConflict, sentence).exit();
    }
    if let Some(file) = &job.explain {
        return match read(file) {
            Ok((recording, (answers, coverage))) => {
                let log = host_log(&job);
                let seen = Seen {
                    answers: &answers,
                    coverage: &coverage,
                    source: source_of(&recording, &answers),
                    kernel: Some(recording.kernel),
                };
                let failures = &recording.failures;
                let report = Report::new(failures, seen, None, &job.filter, log.as_ref());
                tell(&report, &job).map_or_else(|sentence| failed(&sentence), |()| ExitCode::SUCCESS)
            }
            Err(sentence) => failed(&sentence),
        };
    }
    let run = match runs(&job) {
        Ok(run) => run,
        Err(error) => {
            say(&error);
            return FAILED.into();
        }
    };
    for note in &run.notes {
        say(note);
    }
    let mut answers = vec![None; run.report.failures.len()];
    let mut coverage = Vec::new();
    match &run.recording {
        Ok(recording) => match recording
            .explain_exactly()
            .and_then(|found| Ok((found, recording.coverage()?)))
        {
            Ok((found, covered)) => (answers, coverage) = (found, covered),
            Err(error) => say(error),
        },
        Err(refused) => say(format_args!("no kernel functions: {refused}")),
    }
    let recording = run.recording.as_ref().ok();
    let status = match &run.report.not_run {
        Some(not_run) if not_run.errno == libc::ENOENT => NOT_THERE,
        Some(_) => NOT_EXECUTABLE,
        None => run.report.status,
    };
    let (failures, log) = (&run.report.failures, host_log(&job));
    let seen = Seen {
        answers: &answers,
        coverage: &coverage,
        source: recording.and_then(|recording| source_of(recording, &answers)),
        kernel: recording.map(|recording| recording.kernel.clone()),
    };
    let report = Report::new(failures, seen, Some(status), &job.filter, log.as_ref());
    // What cannot be had again comes first.
    let recorded = job.record.as_ref().map_or(Ok(()), |file| match &run.recording {
        Ok(recording) => write(file, recording),
        Err(_) => Err(format!(
            "{} was not written: a recording needs the kernel's functions",
            file.display()
        )),
    });
    let told = tell(&report, &job);
    if run.report.dropped > 0 {
        say(format_args!(
            "{} calls failed between the first and the last ones, and were dropped",
            run.report.dropped
        ));
    }
    for sentence in [&told, &recorded].into_iter().filter_map(|done| done.as_ref().err()) {
        say(sentence);
    }
    if let Some(not_run) = &run.report.not_run {
        say(not_run);
    }
    if told.and(recorded).is_err() {
        return FAILED.into();
    }
    if job.process.is_some() {
        return ExitCode::SUCCESS;
    }
    status.into()
}

/// The debug information of the kernel of a recording, if any answer names an instruction and it is installed here.
fn source_of(recording: &Recording, answers: &[Option<Found>]) -> Option<Source> {
    let is_exact = |found: &Found| matches!(found.1, Some(Exact::Loaded(_)));
    if !answers.iter().flatten().any(is_exact) {
        return None;
    }
    let path = match source::installed(Path::new("/"), &recording.kernel, recording.build.as_deref()?) {
        Installed::Own(path) => path,
        Installed::Other(path) => {
            say(format_args!(
                "no source lines: {} belongs to another build of this kernel",
                path.display()
            ));
            return None;
        }
        Installed::None => return None,
    };
    let source = Source::open(&path).map_err(|error| say(format_args!("no source lines: {error}")));
    source.ok()
}

/// What the host says, where that is wanted and can be read.
fn host_log(job: &Why) -> Option<HostLog> {
    match host_log::read(job.host_log.as_deref()?) {
        Ok(log) => Some(log),
        Err(sentence) => {
            say(format_args!("no host log: {sentence}"));
            None
        }
    }
}

/// Runs the command, and again for what only an earlier run can tell to look for, if that is wanted. Gives the last run.
fn runs(job: &Why) -> Result<Run, ptrace::Error> {
    if let Some(number) = job.process {
        let process = ptrace::Process {
            number,
            time: job.time,
            begun: &mut |threads| say(attached(number, threads, job)),
        };
        return recording::run(Subject::Process(process), this_as_guardian(), Wanted::default());
    }
    let command = || Subject::Command(job.command.clone());
    let run = |wanted| recording::run(command(), this_as_guardian(), wanted);
    let mut last = run(Wanted::default())?;
    let mut returns = Vec::new();
    if let (true, Ok(recording)) = (job.again, &last.recording)
        && !recording.has_returns
    {
        returns = match recording.functions_of_failures() {
            Ok(functions) => functions,
            Err(error) => return Ok(not_again(last, &error.to_string())),
        };
        say(format_args!(
            "running the command again, to trace the return values of {} kernel functions",
            returns.len()
        ));
        last = run(Wanted {
            returns: returns.clone(),
            ..Wanted::default()
        })?;
    }
    let (true, Ok(recording)) = (job.exact || job.deep, &last.recording) else {
        return Ok(last);
    };
    let mut instructions = match recording.suspects() {
        Ok(suspects) if suspects.iter().all(|suspect| suspect.probes().is_empty()) => {
            return Ok(not_again(
                last,
                "no function that made an error has an instruction that loads it",
            ));
        }
        Ok(suspects) => suspects,
        Err(error) => return Ok(not_again(last, &error.to_string())),
    };
    if job.deep
        && let Err(error) = look_deep(&mut instructions, recording, &job.filter)
    {
        return Ok(not_again(last, &error.to_string()));
    }
    say(format_args!(
        "running the command again, with probes in {} kernel functions",
        instructions.len()
    ));
    run(Wanted { returns, instructions })
}

/// What a person who waits wants to know.
fn attached(process: i32, threads: usize, job: &Why) -> String {
    let threads = if threads == 1 {
        "1 thread".to_owned()
    } else {
        format!("{threads} threads")
    };
    let end = if job.time.is_some() { "the time is up" } else { "Ctrl-C" };
    format!("attached to process {process} ({threads}), until it ends or {end}")
}

/// Has the functions looked at as a whole that made the errors which are to be told.
fn look_deep(suspects: &mut [Suspect], recording: &Recording, filter: &Filter) -> Result<(), recording::Error> {
    let answers = recording.explain()?;
    let failures = recording.failures.iter().zip(&answers);
    let told = failures.filter(|(failure, _)| filter.wants(failure) && (filter.all || !everyday::is_everyday(failure)));
    let mut wanted: Vec<(&str, Outcome)> = Vec::new();
    for (failure, answer) in told {
        if let Some(answer) = answer
            && !wanted.contains(&(answer.origin.function(), failure.outcome))
        {
            wanted.push((answer.origin.function(), failure.outcome));
        }
    }
    if wanted.len() > DEEP_MAX {
        say(format_args!(
            "{} functions made errors, and {DEEP_MAX} are analyzed; choose with --syscall and --errno",
            wanted.len()
        ));
        wanted.truncate(DEEP_MAX);
    }
    for suspect in suspects {
        let is_wanted = wanted.contains(&(suspect.function.as_str(), Outcome::Errno(suspect.errno)));
        if is_wanted && !suspect.look_deep() {
            say(format_args!(
                "{} has too many basic blocks to analyze each of them",
                suspect.function
            ));
        }
    }
    Ok(())
}

fn not_again(run: Run, why: &str) -> Run {
    say(format_args!("not run again: {why}"));
    run
}

/// Prints the report where it is wanted.
fn tell(report: &Report, job: &Why) -> Result<(), String> {
    let text = report.print(job).map_err(|error| error.to_string())?;
    let (written, place) = match &job.output {
        Some(file) => (fs::write(file, text), file.display().to_string()),
        None => (io::stderr().write_all(text.as_bytes()), "to standard error".to_owned()),
    };
    unless_unread(written).map_err(|error| format!("cannot write {place}: {error}"))
}

/// Who went away does not want it any more.
fn unless_unread(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

fn failed(sentence: &str) -> ExitCode {
    say(sentence);
    FAILED.into()
}

/// This program as the process that puts tracefs back.
fn this_as_guardian() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["why", "--guardian"]);
    command
}

fn guard(journal: &Path) -> ExitCode {
    // What ends other processes, at a shutdown of a service say, must not come before tracefs is put back.
    let _blocked = Signals::take(&ENDING);
    let failures = guardian::run(journal).unwrap_or_else(|error| vec![error.to_string()]);
    for failure in &failures {
        say(format_args!("tracefs is not restored: {failure}"));
    }
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        FAILED.into()
    }
}

fn read(file: &Path) -> Result<(Recording, Explained), String> {
    let text = fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let recording = Recording::from_json(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    let found = recording
        .explain_exactly()
        .and_then(|answers| Ok((answers, recording.coverage()?)));
    let explained = found.map_err(|error| format!("{}: {error}", file.display()))?;
    Ok((recording, explained))
}

fn write(file: &Path, recording: &Recording) -> Result<(), String> {
    let text = recording.to_json().map_err(|error| error.to_string())?;
    fs::write(file, text).map_err(|error| format!("cannot write {}: {error}", file.display()))
}
