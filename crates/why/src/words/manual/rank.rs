//! Ranks the entries of a page by how well they match a failure.

use std::collections::BTreeSet;

use super::entry::Entry;
use super::identifiers::names;

/// A whole name counts as much as several parts of names.
const WHOLE: f64 = 4.0;
/// What a flag takes away that an entry asks for and that was not given, and one that it forbids and that was.
const ABSENT: f64 = 0.5;
const CONTRADICTED: f64 = 3.0;
/// Long entries have some word or other in common with anything: added to an entry's words before it is measured by them.
const SHORT: f64 = 8.0;
/// By how much the first must be ahead of the second to stand out.
const AHEAD: f64 = 0.15;
/// What is part of many names and texts, and says nothing.
const COMMON: [&str; 22] = [
    "sys", "x64", "get", "and", "the", "for", "not", "that", "this", "its", "are", "was", "has", "have", "from",
    "with", "which", "only", "call", "does", "there", "where",
];
/// What stands before flags that are missing.
const MISSING: [&str; 5] = ["none", "neither", "without", "not", "nor"];
/// What stands between a flag and `not`.
const IS: [&str; 4] = ["is", "was", "are", "were"];
/// Constants that are no flags.
const NO_FLAGS: [&str; 2] = ["CAP_", "RLIMIT_"];

/// Puts first the entries that have most in common with what is known of the failure: names of kernel functions, of
/// arguments, flags and limits, each as it is (`may_open`, `O_TMPFILE`), and words of an explanation. Equal ones stay in their
/// order, and those about other calls last. Whether the first one stands out.
pub fn rank(entries: &mut [Entry], words: &[&str]) -> bool {
    let said: Vec<_> = entries.iter().map(Said::of).collect();
    let known = Known::of(words);
    let mut ranked: Vec<_> = entries.iter().cloned().zip(known.scores(&said)).collect();
    ranked.sort_by(|(one, of_one), (other, of_other)| {
        let better = of_other.total().total_cmp(&of_one.total());
        one.elsewhere.cmp(&other.elsewhere).then(better)
    });
    let stands_out = match &ranked[..] {
        [(first, high), (second, low), ..] => {
            // Flags that may have been given, and are not known, tell no two entries apart.
            let flags_tell = !known.flags.is_empty();
            let ahead = if flags_tell {
                high.total() - low.total()
            } else {
                high.common - low.common
            };
            first.elsewhere != second.elsewhere || ahead > AHEAD
        }
        _ => true,
    };
    for (place, (entry, _)) in entries.iter_mut().zip(ranked) {
        *place = entry;
    }
    stands_out
}

/// What an entry says.
#[derive(Default)]
struct Said {
    words: BTreeSet<String>,
    parts: BTreeSet<String>,
    /// Flags that must be given for it to apply, and such that must not.
    given: BTreeSet<String>,
    missing: BTreeSet<String>,
}

impl Said {
    fn of(entry: &Entry) -> Self {
        let mut said = Self::default();
        for sentence in entry.text.split(". ").chain([&*entry.heading]) {
            said.read(sentence);
        }
        said
    }

    fn read(&mut self, sentence: &str) {
        let mut missing = false;
        let mut last_flag: Option<&str> = None;
        for name in names(sentence) {
            let word = name.to_lowercase();
            if MISSING.contains(&&*word) {
                // As in `O_CREAT is not set`.
                match last_flag.take() {
                    Some(flag) if self.given.remove(flag) => drop(self.missing.insert(flag.to_owned())),
                    _ => missing = true,
                }
            }
            if is_flag(name) {
                let set = if missing { &mut self.missing } else { &mut self.given };
                set.insert(name.to_owned());
                last_flag = Some(name);
            } else if !IS.contains(&name) {
                last_flag = None;
            }
            self.parts.extend(telling_parts(&word).map(str::to_owned));
            self.words.insert(word);
        }
    }

    /// `perm` is said by `permission`, and `flags` by `flag`.
    fn has(&self, part: &str) -> bool {
        let alike = |said: &String| said.starts_with(part) || part.starts_with(&**said);
        self.parts.iter().any(alike)
    }
}

/// What is known of the failure.
struct Known {
    words: BTreeSet<String>,
    parts: BTreeSet<String>,
    flags: BTreeSet<String>,
}

impl Known {
    fn of(words: &[&str]) -> Self {
        let all = || words.iter().flat_map(|word| names(word));
        let lower: BTreeSet<_> = all().map(str::to_lowercase).collect();
        let telling = |word: &String| word.len() > 2 && !COMMON.contains(&&**word);
        Self {
            parts: lower
                .iter()
                .flat_map(|word| telling_parts(word))
                .map(str::to_owned)
                .collect(),
            words: lower.into_iter().filter(telling).collect(),
            flags: all().filter(|name| is_flag(name)).map(str::to_owned).collect(),
        }
    }

    fn scores(&self, entries: &[Said]) -> Vec<Score> {
        let mut common = vec![0.0; entries.len()];
        // What an entry has in common with the failure counts for as much of the others as have not.
        let mut count = |has: &dyn Fn(&Said) -> bool, weight: f64| {
            let having: Vec<_> = entries.iter().map(has).collect();
            let without = having.iter().filter(|has| !**has).count();
            for (score, _) in common.iter_mut().zip(having).filter(|(_, has)| *has) {
                *score += weight * without as f64 / entries.len() as f64;
            }
        };
        for word in &self.words {
            count(&|said| said.words.contains(word), WHOLE);
        }
        for part in &self.parts {
            count(&|said| said.has(part), 1.0);
        }
        let scored = common.into_iter().zip(entries);
        scored
            .map(|(common, said)| Score {
                common: common / (SHORT + said.parts.len() as f64).sqrt(),
                against: self.against(said),
            })
            .collect()
    }

    /// How much speaks against an entry.
    fn against(&self, said: &Said) -> f64 {
        let absent = said.given.difference(&self.flags).count();
        let contradicted = said.missing.intersection(&self.flags).count();
        ABSENT * absent as f64 + CONTRADICTED * contradicted as f64
    }
}

/// What speaks for an entry and against it.
struct Score {
    common: f64,
    against: f64,
}

impl Score {
    fn total(&self) -> f64 {
        self.common - self.against
    }
}

/// `O_TMPFILE`, and neither `EINVAL` nor what is a limit or a right.
fn is_flag(name: &str) -> bool {
    name.contains('_')
        && !name.contains(|letter: char| letter.is_ascii_lowercase())
        && !NO_FLAGS.iter().any(|other| name.starts_with(other))
}

fn telling_parts(name: &str) -> impl Iterator<Item = &str> {
    name.split('_').filter(|part| part.len() > 2 && !COMMON.contains(part))
}
