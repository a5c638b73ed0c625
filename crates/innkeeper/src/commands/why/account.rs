//! The account of one failed call, independent of its output format.

use serde::Serialize;
use why::Certainty;
use why::alignment::Turn;
use why::context::{Interpreter, Needed};
use why::hints::{self, Fact, Hint};
use why::host_log::HostLog;
use why::instruction::{Coverage, Exact, Jump, Test};
use why::manual;
use why::meaning::meaning;
use why::origin::{Answer, Origin};
use why::ptrace::{Failure, Outcome};
use why::recording::Found;
use why::source::Source;

/// Characters of a manual page's entry that are told.
const MANUAL_MAX: usize = 300;

/// Where a call is refused that no function of the kernel is entered for.
const FILTER: &str = "a seccomp filter, before the call began";

/// A failed call and what is known of it.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    /// The call as a program writes it, with its arguments.
    pub(super) call: String,
    /// Name of the call alone.
    pub(super) name: String,
    /// Name of the errno, or SIGSYS.
    pub(super) errno: String,
    pub(super) program: Option<String>,
    pub(super) thread: i32,
    /// How often the same call of the same program failed in the same way.
    pub(super) times: u32,
    /// For a person: what was wrong.
    #[serde(rename = "why")]
    pub(super) reason: Option<Line>,
    /// The kernel function that made the errno, or who else did.
    #[serde(rename = "where")]
    pub(super) place: Option<Line>,
    /// What the host of a FUSE mount was asked.
    pub(super) host: Option<Line>,
    /// What that was told before, if it did not decide by itself.
    pub(super) proof: Option<Line>,
    /// The instruction that made it, and the test before it.
    pub(super) exact: Option<Line>,
    /// The lines of the kernel's source that this instruction and this test come from.
    pub(super) source: Option<Line>,
    /// Which blocks of the function were run.
    pub(super) deep: Option<Line>,
    /// The values that the jump that decided was about.
    pub(super) tested: Option<Line>,
    /// The values that decided, as they were then.
    pub(super) value: Option<Line>,
    /// What the kernel logged meanwhile.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) log: Vec<Line>,
    /// What the installed manual page says.
    pub(super) manual: Option<Line>,
    /// What to do.
    #[serde(rename = "try")]
    pub(super) attempt: Option<Line>,
    /// The functions that handed the errno on, outermost first.
    pub(super) chain: Vec<String>,
}

/// One line of what is told, and how far it is to be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) certainty: &'static str,
}

impl Line {
    fn new(text: String, certainty: Certainty) -> Option<Self> {
        let certainty = word(certainty);
        Some(Self { text, certainty })
    }
}

/// Puts together what is known of a failure; `seen` says that the kernel's functions were, if not those of this call.
pub(super) fn tell(failure: &Failure, found: Option<&Found>, seen: bool, log: Option<&HostLog>) -> Told {
    let answer = found.map(|(answer, _)| answer);
    // What there is to do about a FUSE server is to give its log.
    let open = answer.filter(|answer| log.is_none() || answer.request.is_none());
    let value = value(failure, answer);
    Told {
        call: format!("{}({})", failure.call, failure.arguments.join(", ")),
        name: failure.call.clone(),
        errno: failure.outcome.name(),
        program: failure.program.clone(),
        thread: failure.thread,
        times: 1,
        reason: reason(failure, answer),
        place: place(failure, answer, seen),
        host: host(failure, answer, log),
        proof: answer.and_then(proof),
        exact: found.and_then(|(_, exact)| instruction(exact.as_ref()?)),
        source: None,
        deep: None,
        tested: None,
        log: logged(failure),
        manual: manual(failure, answer, value.as_ref()),
        value,
        attempt: open.and_then(|answer| attempt(failure, answer)),
        chain: answer.map(|answer| answer.chain.clone()).unwrap_or_default(),
    }
}

/// How far a SIGSYS is to be taken for a filter's.
fn by_filter(failure: &Failure) -> Certainty {
    if failure.inferred {
        Certainty::Likely
    } else {
        Certainty::Certain
    }
}

fn reason(failure: &Failure, answer: Option<&Answer>) -> Option<Line> {
    if let Some(interpreter) = missing_interpreter(failure) {
        let certainty = answer.map_or(Certainty::Likely, |answer| answer.certainty);
        return Line::new(interpreter, certainty);
    }
    let errno = failure.outcome.name();
    let (text, certainty) = match (failure.outcome, answer) {
        (Outcome::Sigsys, _) => (
            "a seccomp filter refused it before the kernel began",
            by_filter(failure),
        ),
        (Outcome::Errno(libc::EPERM | libc::EACCES | libc::ENOSYS), None) if failure.filtered => (
            "a seccomp filter is on this thread and may have refused it",
            Certainty::Unknown,
        ),
        (Outcome::Errno(_), Some(answer)) if hint(failure, answer).is_some() => {
            // The function may refuse in several places for one errno, and the table has the one that is met most.
            (hint(failure, answer)?.reason, answer.certainty.unproved())
        }
        // What the errno means in general need not be what this function means by it.
        (Outcome::Errno(_), _) => (meaning(&errno).unwrap_or("the kernel refused it"), Certainty::Likely),
    };
    Line::new(text.to_owned(), certainty)
}

/// That what a program needs to run is not there: the program itself is, or it could not have been asked.
fn missing_interpreter(failure: &Failure) -> Option<String> {
    let Interpreter { program, name, needed } = failure.context.interpreter.as_ref()?;
    if failure.outcome != Outcome::Errno(libc::ENOENT) {
        return None;
    }
    let program = program.display();
    Some(match needed {
        Needed::Script if name.ends_with('\r') => {
            format!(
                "the first line of {program} ends with CR and LF, and CR is taken for a part of the interpreter's name"
            )
        }
        Needed::Script => format!("{program} is there, and the interpreter that its first line names is not: {name:?}"),
        Needed::Loader => format!("{program} is there, and the loader that it needs is not: {name:?}"),
    })
}

fn hint(failure: &Failure, answer: &Answer) -> Option<Hint> {
    hints::hint(answer.origin.function(), &failure.outcome.name(), &answer.chain)
}

/// What to do.
fn attempt(failure: &Failure, answer: &Answer) -> Option<Line> {
    let hint = hint(failure, answer)?;
    let text = (!hint.attempt.is_empty()).then(|| hint.attempt.to_owned());
    Line::new(text?, Certainty::Likely)
}

/// What the limits, rights and settings were that this may be about.
fn value(failure: &Failure, answer: Option<&Answer>) -> Option<Line> {
    let of_function = answer
        .and_then(|answer| hint(failure, answer))
        .map_or(&[][..], |hint| hint.facts);
    let facts = if of_function.is_empty() {
        hints::facts_of_call(&failure.call, &failure.outcome.name())
    } else {
        of_function
    };
    // Which mount a path is on is known by its names alone.
    let certainty = if facts.contains(&Fact::Mount) {
        Certainty::Likely
    } else {
        Certainty::Certain
    };
    Line::new(failure.context.tell(facts)?, certainty)
}

/// The kernel's log, which may be about somebody else.
fn logged(failure: &Failure) -> Vec<Line> {
    let line = |line: &why::kernel_log::Line| {
        let about_it = line.names(failure.thread, failure.program.as_deref());
        let certainty = if about_it {
            Certainty::Likely
        } else {
            Certainty::Unknown
        };
        let (seconds, rest) = (line.time / 1_000_000, line.time % 1_000_000);
        Line::new(format!("[{seconds}.{rest:06}] {}", line.text), certainty)
    };
    failure.log.iter().filter_map(line).collect()
}

/// The entry of the installed page that fits best. A page speaks of what the call's own function refuses.
fn manual(failure: &Failure, answer: Option<&Answer>, value: Option<&Line>) -> Option<Line> {
    if answer.is_some_and(|answer| matches!(answer.origin, Origin::Filter | Origin::NoCall)) {
        return None;
    }
    let errno = failure.outcome.name();
    let mut entries = manual::entries(&failure.call, &errno)?;
    let arguments = failure.arguments.join(" ");
    let mut words = vec![arguments.as_str()];
    let check = answer.and_then(|answer| answer.check.as_ref());
    words.extend(answer.map(|answer| answer.origin.function()));
    words.extend(check.map(|check| check.function.as_str()));
    words.extend(answer.and_then(|answer| hint(failure, answer)).map(|hint| hint.reason));
    words.extend(value.map(|value| value.text.as_str()));
    let stands_out = manual::rank(&mut entries, &words);
    let count = entries.len();
    let entry = entries.into_iter().next()?;
    let mut text: String = entry.text.chars().take(MANUAL_MAX).collect();
    if text.len() < entry.text.len() {
        text.push_str("...");
    }
    let of = if count > 1 {
        format!(", 1 of {count} entries")
    } else {
        String::new()
    };
    Line::new(
        format!("{}: {text} [{}{of}]", entry.heading, entry.page),
        if stands_out {
            Certainty::Likely
        } else {
            Certainty::Unknown
        },
    )
}

fn place(failure: &Failure, answer: Option<&Answer>, seen: bool) -> Option<Line> {
    let Some(answer) = answer else {
        return match failure.outcome {
            Outcome::Sigsys => Line::new(FILTER.to_owned(), by_filter(failure)),
            Outcome::Errno(_) if seen => Line::new("its functions were not seen".to_owned(), Certainty::Unknown),
            // That, and why, is said once for all.
            Outcome::Errno(_) => None,
        };
    };
    let text = match &answer.origin {
        Origin::Function(function) => format!("{function}()"),
        Origin::Remote { function, asked } => format!("{asked} said so, asked by {function}()"),
        Origin::Filter => FILTER.to_owned(),
        Origin::NoCall => "this kernel has no such system call".to_owned(),
    };
    Line::new(text, answer.certainty)
}

/// What the FUSE server refused, and why by its own log, where there is one. Without any answer the log may still know.
fn host(failure: &Failure, answer: Option<&Answer>, log: Option<&HostLog>) -> Option<Line> {
    let request = answer.and_then(|answer| answer.request.as_ref());
    if answer.is_some() && request.is_none() {
        return None;
    }
    let lost = request.is_some_and(|request| request.lost);
    let capped = |certainty: Certainty| if lost { certainty.unproved() } else { certainty };
    if let Some((line, certainty)) = log.and_then(|log| log.find(failure, request)) {
        let cause = match (&line.call, &line.rule) {
            (Some(call), _) => match call.rsplit_once(" = ") {
                Some((call, errno)) => format!("{call} = -1 {errno}  on the host"),
                None => format!("{call} failed on the host"),
            },
            (None, Some(rule)) => format!("refused by a rule: {rule}"),
            (None, None) => "refused without a call of the host that failed".to_owned(),
        };
        let name = line.name().map_or_else(String::new, |name| format!(" \"{name}\""));
        let (operation, unique) = (&line.operation, line.unique);
        return Line::new(
            format!("{cause}, for {operation}{name}, request {unique}"),
            capped(certainty),
        );
    }
    let request = request?;
    let not_there = log.map_or("", |_| "; the host's log has no line of it");
    let operation = &request.operation;
    match request.unique {
        Some(unique) => {
            let text = format!("refused {operation}, request {unique}{not_there}");
            Line::new(text, capped(Certainty::Certain))
        }
        None => Line::new(format!("refused {operation}{not_there}"), Certainty::Likely),
    }
}

fn proof(answer: &Answer) -> Option<Line> {
    if let Some(turn) = &answer.turn {
        return turned(turn);
    }
    let check = answer.check.as_ref()?;
    let said = check.errno.map_or_else(|| "no".to_owned(), negative);
    Line::new(format!("{}() said {said} before", check.function), answer.certainty)
}

/// Where the call turned back, for want of what its functions returned.
fn turned(turn: &Turn) -> Option<Line> {
    let landmark = turn.landmark.as_ref()?;
    let back = turn.unwinding.as_ref();
    let back = back.map_or_else(
        || "returned".to_owned(),
        |function| format!("went back by {function}()"),
    );
    let missing = turn.missing.as_ref();
    let missing = missing.map_or_else(String::new, |function| {
        format!("; calls that succeed go on to {function}()")
    });
    Line::new(format!("after {landmark}() it {back}{missing}"), Certainty::Likely)
}

fn instruction(exact: &Exact) -> Option<Line> {
    let exact = match exact {
        Exact::Loaded(exact) => exact,
        Exact::NotLoaded(function) => {
            let text =
                format!("{function} loaded no such errno itself: it computed it, read it, or was told it unseen");
            return Line::new(text, Certainty::Likely);
        }
    };
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
    Line::new(
        format!("{} loads {}{led}", exact.place, negative(exact.errno)),
        exact.certainty,
    )
}

/// Where the instruction and the test stand in the kernel's source. For several lines the compiler may have made one instruction.
pub(super) fn source_lines(exact: &Exact, source: &Source) -> Option<Line> {
    let Exact::Loaded(load) = exact else { return None };
    // The debug information is the kernel's own, and the function may be a module's.
    let made = source.line(&load.place).filter(|_| load.unique)?;
    let tested = match &load.test {
        Test::Before(jump) | Test::After(jump) => source.line(&jump.place),
        Test::None | Test::Unknown => None,
    };
    let tested = tested.filter(|tested| *tested != made);
    let tested = tested.map_or_else(String::new, |tested| format!(", tested at {tested}"));
    Line::new(format!("{made}{tested}"), load.certainty.unproved())
}

/// The values that the jump that decided was about.
pub(super) fn tested(coverage: &Coverage) -> Option<Line> {
    Line::new(coverage.compared.clone()?, coverage.certainty)
}

/// Which blocks of the function that made the errno were run, and the jump that decided.
pub(super) fn deep(coverage: &Coverage) -> Option<Line> {
    let Coverage {
        function,
        blocks,
        run,
        jump,
        certainty,
        compared: _,
    } = coverage;
    // The function is named once.
    let within = |place: &String| place.strip_prefix(function.as_str()).unwrap_or(place).to_owned();
    let run: Vec<_> = run.iter().map(within).collect();
    let decided = jump.as_ref().map_or_else(String::new, |Jump { place, taken }| {
        let turn = match taken {
            Some(true) => ", which was taken",
            Some(false) => ", which was not taken",
            None => "",
        };
        format!("; the jump at {place}{turn}, decided")
    });
    let text = format!(
        "{} of {blocks} blocks of {function} were run: {}{decided}",
        run.len(),
        run.join(" ")
    );
    Line::new(text, *certainty)
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

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use why::instruction::Load;

    use super::*;

    #[expect(unsafe_code, reason = "the linker has no other function of this name")]
    #[unsafe(no_mangle)]
    #[inline(never)]
    extern "C" fn innkeeper_of_two_lines(number: u32) -> u32 {
        let first = black_box(number);
        first + black_box(number)
    }

    #[test]
    fn source_lines_are_likely_at_most_and_of_a_function_that_has_its_name_alone() {
        // Nothing else keeps it in the program.
        black_box(innkeeper_of_two_lines as extern "C" fn(u32) -> u32)(1);
        let source = Source::open(&std::env::current_exe().unwrap()).unwrap();
        let place = |offset: u32| format!("innkeeper_of_two_lines+{offset:#x}");
        let line = |offset: &u32| source.line(&place(*offset)).map(|line| line.line);
        let told = |test: u32, unique: bool| {
            let jump = Jump {
                place: place(test),
                taken: Some(true),
            };
            let load = Load {
                place: place(0),
                unique,
                errno: 22,
                test: Test::Before(jump),
                certainty: Certainty::Certain,
            };
            source_lines(&Exact::Loaded(load), &source)
        };
        let alone = told(0, true).unwrap();
        assert_eq!(alone.certainty, "likely");
        assert!(
            alone.text.contains("why/account.rs:") && !alone.text.contains("tested at"),
            "{}",
            alone.text
        );
        assert_eq!(told(0, false), None);
        let other = (1..64).find(|offset| line(offset).is_some_and(|other| Some(other) != line(&0)));
        let both = told(other.unwrap(), true).unwrap().text;
        assert!(both.contains(", tested at ") && both.starts_with(&alone.text), "{both}");
    }
}
