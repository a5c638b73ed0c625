//! The job `why`: which system calls of a command failed, and which function of the kernel refused them.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode};

use why::call_tree::Certainty;
use why::origin::{Answer, Origin};
use why::ptrace::{self, Failure, Outcome};
use why::recording::{self, Found, Recording, Run, Wanted};
use why::site::{Exact, Jump, Test};
use why::tracefs::guardian;

use crate::args::Why;

/// The status of failures of innkeeper itself, as a shell has them for a command that is not there.
const FAILED: u8 = 125;
const NOT_THERE: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

pub(crate) fn run(job: Why) -> ExitCode {
    if job.guardian {
        return guard();
    }
    if let Some(file) = &job.explain {
        return match read(file) {
            Ok((recording, answers)) => {
                report(&recording.failures, &answers, job.kernel);
                ExitCode::SUCCESS
            }
            Err(sentence) => failed(&sentence),
        };
    }
    let run = match runs(&job) {
        Ok(run) => run,
        Err(error) => {
            eprintln!("innkeeper: {error}");
            return match error {
                ptrace::Error::Execute { source, .. } if source.raw_os_error() == Some(libc::ENOENT) => NOT_THERE,
                ptrace::Error::Execute { .. } => NOT_EXECUTABLE,
                _ => FAILED,
            }
            .into();
        }
    };
    let mut answers = vec![None; run.report.failures.len()];
    match &run.recording {
        Ok(recording) => match recording.explain_exactly() {
            Ok(found) => answers = found,
            Err(error) => eprintln!("innkeeper: {error}"),
        },
        Err(refused) => eprintln!("innkeeper: no kernel functions: {refused}"),
    }
    report(&run.report.failures, &answers, job.kernel);
    if run.report.dropped > 0 {
        eprintln!("innkeeper: {} more calls failed and were not kept", run.report.dropped);
    }
    if let (Some(file), Ok(recording)) = (&job.record, &run.recording)
        && let Err(sentence) = write(file, recording)
    {
        return failed(&sentence);
    }
    run.report.status.into()
}

/// Runs the command, and again for what only an earlier run can tell to look for, if that is wanted. Gives the last run.
fn runs(job: &Why) -> Result<Run, ptrace::Error> {
    let run = |wanted| recording::run(job.command.clone(), this_as_guardian(), &[], wanted);
    let mut last = run(Wanted::default())?;
    let mut returns = Vec::new();
    if let (true, Ok(recording)) = (job.again, &last.recording)
        && !recording.has_returns
    {
        returns = match recording.functions_of_failures() {
            Ok(functions) => functions,
            Err(error) => return Ok(not_again(last, &error.to_string())),
        };
        eprintln!(
            "innkeeper: running the command again, to see what {} of the kernel's functions return",
            returns.len()
        );
        last = run(Wanted {
            returns: returns.clone(),
            ..Wanted::default()
        })?;
    }
    let (true, Ok(recording)) = (job.exact, &last.recording) else {
        return Ok(last);
    };
    let instructions = match recording.suspects() {
        Ok(suspects) if suspects.iter().all(|suspect| suspect.probes().is_empty()) => {
            return Ok(not_again(
                last,
                "no function that made an error has an instruction that loads it",
            ));
        }
        Ok(suspects) => suspects,
        Err(error) => return Ok(not_again(last, &error.to_string())),
    };
    eprintln!(
        "innkeeper: running the command again, with probes in {} of the kernel's functions",
        instructions.len()
    );
    run(Wanted { returns, instructions })
}

fn not_again(run: Run, why: &str) -> Run {
    eprintln!("innkeeper: not run again: {why}");
    run
}

fn failed(sentence: &str) -> ExitCode {
    eprintln!("innkeeper: {sentence}");
    FAILED.into()
}

/// This program as the process that puts tracefs back.
fn this_as_guardian() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["why", "--guardian"]);
    command
}

fn guard() -> ExitCode {
    let failures = guardian::run(io::stdin().lock());
    for failure in &failures {
        eprintln!("innkeeper: tracefs is not as it was: {failure}");
    }
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        FAILED.into()
    }
}

fn read(file: &Path) -> Result<(Recording, Vec<Option<Found>>), String> {
    let text = fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let recording = Recording::from_json(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    let answers = recording
        .explain_exactly()
        .map_err(|error| format!("{}: {error}", file.display()))?;
    Ok((recording, answers))
}

fn write(file: &Path, recording: &Recording) -> Result<(), String> {
    let text = recording.to_json().map_err(|error| error.to_string())?;
    fs::write(file, text).map_err(|error| format!("cannot write {}: {error}", file.display()))
}

fn report(failures: &[Failure], answers: &[Option<Found>], kernel: bool) {
    for (failure, answer) in failures.iter().zip(answers) {
        match answer {
            Some((answer, exact)) => {
                eprintln!("{}\n{}", head(failure), explained(answer, exact.as_ref(), kernel));
            }
            None => eprintln!("{}", describe(failure)),
        }
    }
}

fn explained(answer: &Answer, exact: Option<&Exact>, kernel: bool) -> String {
    let certainty = word(answer.certainty);
    let mut text = match &answer.origin {
        Origin::Function(function) => format!("  where:  {function}()    {certainty}"),
        Origin::Remote { function, asked } => {
            format!("  where:  {asked} said so, asked by {function}()    {certainty}")
        }
        Origin::Filter => format!("  where:  a seccomp filter, before the call began    {certainty}"),
        Origin::NoCall => format!("  where:  this kernel has no such system call    {certainty}"),
    };
    if let Some(check) = &answer.check {
        let said = check.errno.map_or_else(|| "no".to_owned(), negative);
        text.push_str(&format!("\n  proof:  {}() said {said} before", check.function));
    }
    if let Some(Exact::NotLoaded(function)) = exact {
        text.push_str(&format!(
            "\n  exact:  {function} loaded no such errno itself: it computed it, read it, or was told it unseen    likely"
        ));
    }
    if let Some(Exact::Loaded(exact)) = exact {
        let led = match &exact.test {
            Test::Before(Jump { place, taken }) => match taken {
                Some(true) => format!(", reached by the jump at {place}"),
                Some(false) => format!(", reached past the jump at {place}, which was not taken"),
                None => format!(", reached after the test at {place}"),
            },
            Test::After(Jump { place, taken }) => match taken {
                Some(true) => format!(" in advance, and the test at {place} held"),
                Some(false) => format!(" in advance, and the test at {place} did not hold"),
                None => format!(" in advance, and the test at {place} decided"),
            },
            Test::None => " without a test".to_owned(),
            Test::Unknown => String::new(),
        };
        let (place, made, certainty) = (&exact.place, negative(exact.errno), word(exact.certainty));
        text.push_str(&format!("\n  exact:  {place} loads {made}{led}    {certainty}"));
    }
    if kernel {
        for (depth, function) in answer.chain.iter().enumerate() {
            text.push_str(&format!("\n  {}{function}", "  ".repeat(depth)));
        }
    }
    text
}

fn word(certainty: Certainty) -> &'static str {
    match certainty {
        Certainty::Certain => "certain",
        Certainty::Likely => "likely",
        Certainty::Unknown => "unknown",
    }
}

fn negative(errno: i32) -> String {
    why::errno_name(errno).map_or_else(|| format!("-{errno}"), |name| format!("-{name}"))
}

fn head(failure: &Failure) -> String {
    let program = failure.program.as_deref().unwrap_or("?");
    let call = format!("{}({})", failure.call, failure.arguments.join(", "));
    let result = if matches!(failure.outcome, Outcome::Sigsys) {
        ""
    } else {
        "-1 "
    };
    format!(
        "{call} = {result}{}    {program}[{}]",
        failure.outcome.name(),
        failure.thread
    )
}

fn describe(failure: &Failure) -> String {
    let why = match failure.outcome {
        Outcome::Errno(_) if failure.filtered => {
            "a seccomp filter is on this thread and may have refused it    unknown"
        }
        Outcome::Errno(_) => "the kernel refused it; ptrace sees no kernel function    unknown",
        Outcome::Sigsys => "a seccomp filter refused it before the kernel began    certain",
    };
    format!("{}\n  why:    {why}", head(failure))
}
