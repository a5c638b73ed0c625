//! A row of the tables of hints.

use super::fact::Fact;

/// What is known of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint {
    /// What was wrong, in plain words.
    pub reason: &'static str,
    /// What to do; empty if there is nothing that helps in general.
    pub attempt: &'static str,
    /// The values that decide.
    pub facts: &'static [Fact],
}

pub(super) struct Row {
    pub(super) function: &'static str,
    /// Names of the errnos that it is about; any if there are none.
    pub(super) errnos: &'static [&'static str],
    /// The function that must be on the way, if one must.
    pub(super) way: Option<&'static str>,
    pub(super) hint: Hint,
}

pub(super) const fn row(
    function: &'static str,
    errnos: &'static [&'static str],
    reason: &'static str,
    attempt: &'static str,
) -> Row {
    Row {
        function,
        errnos,
        way: None,
        hint: Hint {
            reason,
            attempt,
            facts: &[],
        },
    }
}

impl Row {
    pub(super) const fn value(mut self, facts: &'static [Fact]) -> Self {
        self.hint.facts = facts;
        self
    }

    pub(super) const fn within(mut self, function: &'static str) -> Self {
        self.way = Some(function);
        self
    }

    pub(super) fn fits(&self, function: &str, errno: &str, chain: &[String]) -> bool {
        self.function == function
            && (self.errnos.is_empty() || self.errnos.contains(&errno))
            && self
                .way
                .is_none_or(|way| chain.iter().any(|on_the_way| base(on_the_way) == way))
    }
}

/// A name without the suffixes that a compiler adds.
pub(super) fn base(function: &str) -> &str {
    function.split('.').next().unwrap_or(function)
}
