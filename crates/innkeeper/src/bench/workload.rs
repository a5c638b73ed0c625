//! What is measured: the names that users type, and what one operation of each is.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::session::DEPTH_MOST;
use super::tools::{TOOLS, Tool};

/// What a user can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Rate(Workload),
    Tool(Tool),
    Figure(Figure),
}

impl Task {
    pub(super) fn tool(&self) -> Option<Tool> {
        match self {
            Self::Tool(tool) => Some(*tool),
            Self::Rate(_) | Self::Figure(_) => None,
        }
    }
}

/// What is measured otherwise than by rounds of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Figure {
    /// Time from the start of the daemon to its first answer.
    Ready,
    /// CPU time while nothing is asked.
    Idle,
    /// Memory and descriptors for the files that the guest knows.
    Memory,
}

const FIGURES: [(&str, Figure); 3] = [
    ("ready", Figure::Ready),
    ("idle", Figure::Idle),
    ("memory", Figure::Memory),
];

/// Everything.
pub(super) fn all() -> Vec<Task> {
    let rates = DEFAULT.iter().flat_map(|(kind, depths)| {
        let workload = |&depth| Workload { kind: *kind, depth };
        depths.iter().map(workload).map(Task::Rate)
    });
    let tools = TOOLS.map(|(_, tool)| Task::Tool(tool));
    rates
        .chain(tools)
        .chain(FIGURES.map(|(_, figure)| Task::Figure(figure)))
        .collect()
}

/// One thing to do over and over, so many at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Workload {
    pub(super) kind: Kind,
    /// Operations on their way at the same time, in each queue.
    pub(super) depth: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Getattr,
    Lookup,
    LookupMiss,
    OpenReadClose,
    CreateWriteUnlink,
    Readdirplus,
    Read4k,
    Write4k,
    Read1m,
    Write1m,
    /// GETATTR in one seat, reads of data that is not in the page cache in the others. The former alone counts.
    Mixed,
}

/// What a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Unit {
    Operations,
    Entries,
    Bytes,
    /// Of a tool, from its start to its end.
    Runs,
}

const KINDS: [(&str, Kind); 11] = [
    ("getattr", Kind::Getattr),
    ("lookup", Kind::Lookup),
    ("lookup-miss", Kind::LookupMiss),
    ("open-read-close", Kind::OpenReadClose),
    ("create-write-unlink", Kind::CreateWriteUnlink),
    ("readdirplus", Kind::Readdirplus),
    ("read-4k", Kind::Read4k),
    ("write-4k", Kind::Write4k),
    ("read-1m", Kind::Read1m),
    ("write-1m", Kind::Write1m),
    ("mixed", Kind::Mixed),
];

/// What is measured unless something is named: each operation alone, which shows its latency, and several at a time, as
/// a guest with several programs has them.
const DEFAULT: &[(Kind, &[u16])] = &[
    (Kind::Getattr, &[1, 16]),
    (Kind::Lookup, &[1, 16]),
    (Kind::LookupMiss, &[1, 16]),
    (Kind::OpenReadClose, &[1, 16]),
    (Kind::CreateWriteUnlink, &[1, 16]),
    (Kind::Readdirplus, &[1]),
    (Kind::Read4k, &[1, 4, 32]),
    (Kind::Write4k, &[1, 4, 32]),
    (Kind::Read1m, &[1]),
    (Kind::Write1m, &[1]),
    (Kind::Mixed, &[2]),
];

impl Kind {
    pub(super) fn unit(self) -> Unit {
        match self {
            Self::Readdirplus => Unit::Entries,
            Self::Read1m | Self::Write1m => Unit::Bytes,
            _ => Unit::Operations,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = KINDS.iter().find(|(_, kind)| kind == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.depth {
            1 => write!(f, "{}", self.kind),
            depth => write!(f, "{}@{depth}", self.kind),
        }
    }
}

impl FromStr for Task {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, figure)) = FIGURES.iter().find(|(name, _)| *name == text) {
            return Ok(Self::Figure(*figure));
        }
        if let Some((_, tool)) = TOOLS.iter().find(|(name, _)| *name == text) {
            return Ok(Self::Tool(*tool));
        }
        let (name, depth) = text.split_once('@').unwrap_or((text, "1"));
        let kind = KINDS.iter().find(|(known, _)| *known == name).ok_or_else(|| {
            let kinds = KINDS.iter().map(|(name, _)| *name);
            let tools = TOOLS.iter().map(|(name, _)| *name);
            let figures = FIGURES.iter().map(|(name, _)| *name);
            let names: Vec<_> = kinds.chain(tools).chain(figures).collect();
            format!("choose one of {}", names.join(", "))
        })?;
        let depth = depth.parse().ok().filter(|depth| (1..=DEPTH_MOST).contains(depth));
        Ok(Self::Rate(Workload {
            kind: kind.1,
            depth: depth.ok_or_else(|| format!("behind @ goes how many at a time, 1 to {DEPTH_MOST}"))?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_has_a_name_that_can_be_typed() {
        for task in all() {
            let name = match task {
                Task::Rate(workload) => workload.to_string(),
                Task::Tool(tool) => tool.to_string(),
                Task::Figure(figure) => FIGURES.iter().find(|(_, known)| *known == figure).unwrap().0.into(),
            };
            assert_eq!(name.parse(), Ok(task));
        }
        for wrong in [
            "",
            "read",
            "read-4k@",
            "read-4k@0",
            "read-4k@65",
            "read-4k@x",
            "@4",
            "idle@2",
            "grep@2",
        ] {
            assert!(wrong.parse::<Task>().is_err(), "{wrong} is nothing to measure");
        }
    }
}
