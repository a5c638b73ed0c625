//! The report: the selection of failures, and their output.

use std::fmt::Write as _;

use serde::Serialize;
use why::host_log::{HostLog, is_unprintable};
use why::instruction::Coverage;
use why::ptrace::Failure;
use why::recording::Found;
use why::source::Source;

use super::account::{Line, Told, deep, source_lines, tell, tested};
use super::args::{Filter, Why};
use super::everyday::is_everyday;

/// Version of the JSON report.
const VERSION: u32 = 1;

/// All that is told of a command.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    version: u32,
    /// Release of the kernel whose functions were seen, if they were.
    kernel: Option<String>,
    /// The command's exit status; none for a recording.
    status: Option<u8>,
    failures: Vec<Told>,
    /// Number of everyday failures that are left out.
    hidden: usize,
}

/// What was seen of the failures in the kernel.
pub(super) struct Seen<'s> {
    pub(super) answers: &'s [Option<Found>],
    /// None at all where no function was looked at as a whole.
    pub(super) coverage: &'s [Option<Coverage>],
    /// Release of the kernel whose functions were seen, if they were.
    pub(super) kernel: Option<String>,
    /// Its debug information, where that is installed and has something to tell.
    pub(super) source: Option<Source>,
}

impl Report {
    /// Chooses what is told: what the filter wants, and of that no everyday failures, unless they are wanted or a command
    /// that failed has no others.
    pub(super) fn new(
        failures: &[Failure],
        seen: Seen<'_>,
        status: Option<u8>,
        filter: &Filter,
        log: Option<&HostLog>,
    ) -> Self {
        let coverage = seen.coverage.iter().map(Option::as_ref).chain(std::iter::repeat(None));
        let found = seen.answers.iter().zip(coverage);
        let wanted: Vec<_> = failures
            .iter()
            .zip(found)
            .filter(|(failure, _)| filter.wants(failure))
            .collect();
        let all = filter.all || status != Some(0) && wanted.iter().all(|(failure, _)| is_everyday(failure));
        let mut told: Vec<Told> = Vec::new();
        let mut hidden = 0;
        for (failure, (found, coverage)) in wanted {
            // What was found elsewhere is no reason for anything.
            let told_anyway = filter.all || all && !failure.searching;
            if !told_anyway && is_everyday(failure) {
                hidden += 1;
                continue;
            }
            let mut next = tell(failure, found.as_ref(), seen.kernel.is_some(), log);
            let exact = found.as_ref().and_then(|(_, exact)| exact.as_ref());
            next.source = exact
                .zip(seen.source.as_ref())
                .and_then(|(exact, source)| source_lines(exact, source));
            next.deep = coverage.and_then(deep);
            next.tested = coverage.and_then(tested);
            match told.iter_mut().find(|before| before.is_like(&next)) {
                Some(before) => {
                    before.times += 1;
                    // Values that only one of them had are not those of all.
                    before.tested.take_if(|tested| Some(&*tested) != next.tested.as_ref());
                }
                None => told.push(next),
            }
        }
        Self {
            version: VERSION,
            kernel: seen.kernel,
            status,
            failures: told,
            hidden,
        }
    }

    /// As the options want it.
    pub(super) fn print(&self, job: &Why) -> Result<String, serde_json::Error> {
        if job.json {
            return Ok(serde_json::to_string(self)? + "\n");
        }
        let mut text = String::new();
        for told in &self.failures {
            told.print(job.kernel, &mut text);
        }
        if self.failures.is_empty() {
            text.push_str("innkeeper: no failed calls to report\n");
        }
        if self.hidden > 0 {
            // Writing to a string cannot fail.
            let _written = writeln!(
                text,
                "innkeeper: everyday failures left out: {}; --all reports them",
                self.hidden
            );
        }
        Ok(text)
    }
}

impl Told {
    /// Whether a reader would learn nothing new from the other.
    fn is_like(&self, other: &Self) -> bool {
        let key = |told: &Self| {
            (
                told.call.clone(),
                told.errno.clone(),
                told.program.clone(),
                told.place.clone(),
            )
        };
        key(self) == key(other)
    }

    fn print(&self, chain: bool, text: &mut String) {
        let line = |text: &mut String, line: String| {
            text.extend(line.chars().flat_map(printable));
            text.push('\n');
        };
        let result = if self.errno == "SIGSYS" { "" } else { "-1 " };
        let program = self.program.as_deref().unwrap_or("?");
        let times = if self.times > 1 {
            format!(", {} times", self.times)
        } else {
            String::new()
        };
        line(
            text,
            format!(
                "{} = {result}{}    {program}[{}]{times}",
                self.call, self.errno, self.thread
            ),
        );
        let before = [
            ("why", self.reason.as_ref()),
            ("where", self.place.as_ref()),
            ("host", self.host.as_ref()),
            ("proof", self.proof.as_ref()),
            ("exact", self.exact.as_ref()),
            ("source", self.source.as_ref()),
            ("deep", self.deep.as_ref()),
            ("tested", self.tested.as_ref()),
            ("value", self.value.as_ref()),
        ];
        let behind = [("manual", self.manual.as_ref()), ("try", self.attempt.as_ref())];
        let logged = self.log.iter().map(|line| ("log", Some(line)));
        let lines = before.into_iter().chain(logged).chain(behind);
        for (name, Line { text: told, certainty }) in lines.filter_map(|(name, line)| Some((name, line?))) {
            line(text, format!("  {:8}{told}    {certainty}", format!("{name}:")));
        }
        if chain {
            for (depth, function) in self.chain.iter().enumerate() {
                line(text, format!("  {}{function}", "  ".repeat(depth)));
            }
        }
    }
}

/// A letter of what processes and recordings name as they like, so that no terminal obeys it.
fn printable(letter: char) -> impl Iterator<Item = char> {
    let (shown, escaped) = if is_unprintable(letter) {
        (None, Some(letter.escape_default()))
    } else {
        (Some(letter), None)
    };
    shown.into_iter().chain(escaped.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_terminal_obeys_what_is_told() {
        let shown: String = "a\u{1b}[2J\u{202e}ä".chars().flat_map(printable).collect();
        assert_eq!(shown, "a\\u{1b}[2J\\u{202e}ä");
    }
}
