//! Tasks to measure: the names that users type.

use std::str::FromStr;

use crate::ring::session::DEPTH_MOST;
use crate::ring::workload::{DEFAULT, KINDS, Workload};
use crate::tools::tool::{TOOLS, Tool};

/// What a user can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Rate(Workload),
    Tool(Tool),
    Figure(Figure),
}

impl Task {
    pub(crate) fn tool(&self) -> Option<Tool> {
        match self {
            Self::Tool(tool) => Some(*tool),
            Self::Rate(_) | Self::Figure(_) => None,
        }
    }
}

/// What is measured otherwise than by rounds of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
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
pub(crate) fn all() -> Vec<Task> {
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
