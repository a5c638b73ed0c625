//! The host's log of refused requests: the log of `innkeeper share --log-errors`, as text or as JSON.
//!
//! Guests may be able to write to it, so that any line may contain anything.

use serde::Deserialize;

use super::certainty::Certainty;
use super::request::Refused;
use crate::observe::failure::Failure;

/// Of the JSON form; other versions may mean something else by the same fields.
const VERSION: u32 = 1;
/// Bytes of a line; `share` writes 4,000 at most.
const LINE_MAX: usize = 8192;

/// The lines of a log that can be understood.
#[derive(Clone, Debug, Default)]
pub struct HostLog {
    lines: Vec<Line>,
}

/// A request that the host refused. Names in it are escaped, and nothing in it moves a terminal's cursor.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Line {
    /// The operation, such as `LOOKUP`.
    pub operation: String,
    /// The guest's number of the request.
    pub unique: u64,
    /// Number of the thread that asked, in the guest.
    pub pid: u32,
    /// Name or number of what the guest was told.
    pub errno: String,
    /// What the request was about, from the share's top; `?` where the host knew no path.
    pub path: Option<String>,
    /// The system call of the host that failed, with its errno: `statx(...) = ENOENT`.
    pub call: Option<String>,
    /// The rule that refused the request, if no call failed.
    pub rule: Option<String>,
}

impl HostLog {
    /// Reads a log. Lines that it does not understand, such as one that was cut, are left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| line.len() <= LINE_MAX);
        let lines = lines.filter_map(|line| {
            if line.starts_with('{') {
                Line::from_json(line)
            } else {
                Line::from_text(line)
            }
        });
        Self {
            lines: lines.filter(Line::is_printable).collect(),
        }
    }

    /// The line about the request that made this call fail. The last of several: a log outlives its guests, which begin
    /// to count anew.
    ///
    /// It is certain if it has the request's own number. Without one, what is told of the request has to fit; and if
    /// nothing is known of a request, so has the name in the call's arguments.
    #[must_use]
    pub fn find(&self, failure: &Failure, refused: Option<&Refused>) -> Option<(&Line, Certainty)> {
        let errno = failure.outcome.name();
        let asked =
            |line: &&Line| line.errno == errno && refused.is_none_or(|refused| refused.operation == line.operation);
        let same_thread = |line: &&Line| i64::from(line.pid) == i64::from(failure.thread);
        let mut fitting = self.lines.iter().rev().filter(asked);
        if let Some(unique) = refused.and_then(|refused| refused.unique) {
            let mut numbered = fitting.filter(|line| line.unique == unique);
            let other = numbered.clone().next();
            // In another process namespace the mount knows the thread by another number.
            return match numbered.find(same_thread) {
                Some(line) => Some((line, Certainty::Certain)),
                None => other.map(|line| (line, Certainty::Likely)),
            };
        }
        let mut own = fitting.clone().filter(same_thread);
        let named = own.clone().find(|line| line.is_named_in(&failure.arguments));
        let line = match refused {
            Some(_) => named.or_else(|| own.next()),
            None => fitting.find(|line| same_thread(line) && line.is_named_in(&failure.arguments)),
        };
        line.map(|line| (line, Certainty::Likely))
    }
}

impl Line {
    fn from_json(line: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
            #[serde(flatten)]
            line: Line,
        }
        let Versioned { version, line } = serde_json::from_str(line).ok()?;
        (version == VERSION).then_some(line)
    }

    /// `TIME LOOKUP unique=1 uid=0 gid=0 pid=2 "/path" to "/path": ENOENT: statx(...) = ENOENT`, without paths where there
    /// are none, and with `refused: rule` in place of the call.
    fn from_text(line: &str) -> Option<Self> {
        let (time, rest) = line.split_once(' ')?;
        if !time.ends_with('Z') {
            return None;
        }
        let (operation, mut rest) = rest.split_once(' ')?;
        let unique = number(&mut rest, "unique=")?;
        let _user = number(&mut rest, "uid=")?;
        let _group = number(&mut rest, "gid=")?;
        let pid = number(&mut rest, "pid=")?;
        let mut path = None;
        if rest.starts_with('"') {
            path = Some(quoted(&mut rest)?.to_owned());
        }
        if let Some(second) = rest.strip_prefix(" to ") {
            rest = second;
            quoted(&mut rest)?;
        }
        let rest = rest.strip_prefix(": ")?;
        let (errno, cause) = rest.split_once(": ").unwrap_or((rest, ""));
        let rule = cause.strip_prefix("refused: ");
        let call = (rule.is_none() && !cause.is_empty()).then_some(cause);
        Some(Self {
            operation: operation.to_owned(),
            unique,
            pid: u32::try_from(pid).ok()?,
            errno: errno.to_owned(),
            path,
            call: call.map(str::to_owned),
            rule: rule.map(str::to_owned),
        })
    }

    /// The name that the request was about: the last one of its path.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        let (_, name) = self.path.as_deref()?.rsplit_once('/')?;
        (!name.is_empty()).then_some(name)
    }

    fn is_named_in(&self, arguments: &[String]) -> bool {
        let Some(name) = self.name() else { return false };
        let mut parts = arguments
            .iter()
            .flat_map(|argument| argument.trim_matches('"').split('/'));
        parts.any(|part| part == name)
    }

    fn is_printable(&self) -> bool {
        let texts = [&self.path, &self.call, &self.rule];
        let mut texts = texts.into_iter().flatten().chain([&self.operation, &self.errno]);
        texts.all(|text| !text.chars().any(is_unprintable))
    }
}

/// What is not to be printed: control characters, separators of lines, and marks that turn or hide what is beside them.
/// `share` escapes them in its log.
#[must_use]
pub fn is_unprintable(letter: char) -> bool {
    let turns = ['\u{61c}', '\u{feff}'].contains(&letter)
        || ('\u{200b}'..='\u{200f}').contains(&letter)
        || ('\u{2028}'..='\u{202e}').contains(&letter)
        || ('\u{2060}'..='\u{206f}').contains(&letter);
    letter.is_control() || turns
}

/// Takes `key` and a number, and a space after it, off the start of `rest`.
fn number(rest: &mut &str, key: &str) -> Option<u64> {
    let digits = rest.strip_prefix(key)?;
    let end = digits
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(digits.len());
    let (number, after) = digits.split_at(end);
    *rest = after.strip_prefix(' ').unwrap_or(after);
    number.parse().ok()
}

/// Takes a path in quotation marks, in which a `\` stands before a mark that is not the end, off the start of `rest`.
fn quoted<'t>(rest: &mut &'t str) -> Option<&'t str> {
    let text = rest.strip_prefix('"')?;
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => {
                *rest = &text[at + 1..];
                return Some(&text[..at]);
            }
            _ => {}
        }
    }
    None
}
