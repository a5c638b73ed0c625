//! `why --doctor`: the method that a run would use here, and the requirements of a better one.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use serde::Serialize;
use why::doctor::{BackEnd, Examination, Finding, State, System};

/// Version of the JSON object.
const VERSION: u32 = 1;
/// The status where a run would name no function of the kernel.
const CALLS_ALONE: u8 = 1;

#[derive(Serialize)]
struct Object<'e> {
    version: u32,
    #[serde(flatten)]
    examination: &'e Examination,
}

pub(super) fn run(json: bool) -> ExitCode {
    let examination = System::this().examine();
    let text = if json {
        let object = Object {
            version: VERSION,
            examination: &examination,
        };
        match serde_json::to_string(&object) {
            Ok(object) => object + "\n",
            Err(error) => return super::failed(&error.to_string()),
        }
    } else {
        text(&examination)
    };
    if let Err(error) = super::unless_unread(io::stdout().write_all(text.as_bytes())) {
        return super::failed(&format!("cannot write to standard output: {error}"));
    }
    match examination.next {
        BackEnd::PtraceAlone => CALLS_ALONE.into(),
        _ => ExitCode::SUCCESS,
    }
}

fn text(examination: &Examination) -> String {
    let Examination {
        kernel,
        next,
        back_ends,
        conditions,
    } = examination;
    let mut text = format!(
        "On Linux {kernel} the next run takes the back end \"{}\".\n\nBack ends, the best first:\n",
        next.name()
    );
    lines(&mut text, back_ends);
    text.push_str("\nWhat they rest on:\n");
    lines(&mut text, conditions);
    text
}

fn lines(text: &mut String, findings: &[Finding]) {
    for Finding {
        name,
        state,
        text: told,
    } in findings
    {
        let state = match state {
            State::Yes => "yes",
            State::No => "no",
            State::Unknown => "?",
        };
        // Writing to a string cannot fail.
        let _written = writeln!(text, "  {name:17} {state:4} {told}");
    }
}
