//! Parses the command line, with suggestions only where they are right.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory, Error, FromArgMatches};

use super::Arguments;

/// Parses the words, or ends the process with help, the version or an error.
pub(crate) fn parse(words: &[OsString]) -> Arguments {
    try_parse(words).unwrap_or_else(|error| error.exit())
}

fn try_parse(words: &[OsString]) -> Result<Arguments, Error> {
    let mut command = Arguments::command();
    let parsed = command
        .try_get_matches_from_mut(words)
        .and_then(|matches| Arguments::from_arg_matches(&matches));
    let parsed = parsed.map_err(|error| with_fitting_suggestions(error, &mut command, words))?;
    if let super::Command::Serve(served) = &parsed.command
        && let Err(reason) = served.service().check_sockets()
    {
        return Err(command.error(ErrorKind::WrongNumberOfValues, reason));
    }
    Ok(parsed)
}

/// Takes out of an error what clap suggests on thin grounds: an option that merely shares some letters with what was typed, and the
/// advice to pass an unknown option as a value.
fn with_fitting_suggestions(mut error: Error, whole: &mut Command, words: &[OsString]) -> Error {
    if error.kind() != ErrorKind::UnknownArgument {
        return error;
    }
    error.remove(ContextKind::Suggested);
    let text = |error: &Error, kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let typed = text(&error, ContextKind::InvalidArg).unwrap_or_default();
    if text(&error, ContextKind::SuggestedArg).is_some_and(|suggested| !is_close(&typed, &suggested)) {
        error.remove(ContextKind::SuggestedArg);
        // That of the error has the suggestion in it.
        whole.build();
        let name = words.get(1).and_then(|word| word.to_str()).unwrap_or_default();
        let command = match whole.find_subcommand_mut(name) {
            Some(command) => command.render_usage(),
            None => whole.render_usage(),
        };
        error.insert(ContextKind::Usage, ContextValue::StyledStr(command));
    }
    error
}

/// Whether somebody who typed the one may have meant the other: a slip or two, or the beginning of it.
fn is_close(typed: &str, meant: &str) -> bool {
    let (typed, meant) = (typed.trim_start_matches('-'), meant.trim_start_matches('-'));
    let slips = strsim::damerau_levenshtein(typed, meant);
    let begins = typed.len() >= 3 && (meant.starts_with(typed) || typed.starts_with(meant));
    begins || slips * 3 <= typed.chars().count().max(meant.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(line: &str) -> String {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        try_parse(&words).unwrap_err().to_string()
    }

    #[test]
    fn a_slip_is_told_with_what_was_meant() {
        for (typed, meant) in [
            ("--read-only", "--readonly"),
            ("--tags", "--tag"),
            ("--socket", "--socket-path"),
            ("--num-queue", "--num-queues"),
        ] {
            let said = complaint(&format!("innkeeper share /srv {typed}"));
            assert!(said.contains(&format!("'{meant}'")), "{said}");
        }
        assert!(complaint("innkeeper shar /srv").contains("'share'"));
    }

    #[test]
    fn an_option_of_another_program_is_told_without_a_guess() {
        for typed in ["--thread-pool-size", "--shared-dir", "--modcaps", "--translate-uid"] {
            let said = complaint(&format!("innkeeper share /srv {typed} 4"));
            assert!(said.contains(&format!("unexpected argument '{typed}'")), "{said}");
            assert!(!said.contains("tip:") && !said.contains("--readonly"), "{said}");
            assert!(said.contains("Usage: innkeeper share"), "{said}");
        }
    }
}
