//! The report of `check`, for people and for scripts.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::calls::Comparison;
use crate::serve::exercise::{Need, Ran};

/// Version of the JSON object.
const VERSION: u32 = 1;
/// Columns of a line.
const WIDTH: usize = 100;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    version: u32,
    devices: Vec<Device>,
}

/// What was seen of one device.
#[derive(Debug, Serialize)]
pub(super) struct Device {
    device: String,
    /// By what its daemons were confined.
    sandbox: Option<String>,
    /// What `auto` could not take, and why.
    refused: Vec<String>,
    system_calls: Comparison,
    /// Why it does not work.
    failures: Vec<String>,
    host: Vec<Need>,
    passes: Vec<Ran>,
}

impl Device {
    /// `log`: the lines that its daemons logged.
    pub(super) fn new(
        name: &str,
        log: &str,
        system_calls: Comparison,
        failures: Vec<String>,
        host: Vec<Need>,
        passes: Vec<Ran>,
    ) -> Self {
        let mut refused: Vec<String> = Vec::new();
        for reason in log.lines().filter_map(|line| after(line, ": not confined by ")) {
            if !refused.contains(&reason) {
                refused.push(reason);
            }
        }
        Self {
            device: name.to_owned(),
            sandbox: log.lines().find_map(|line| after(line, ": confined by ")),
            refused,
            system_calls,
            failures,
            host,
            passes,
        }
    }

    fn is_fine(&self) -> bool {
        self.failures.is_empty() && self.system_calls.killed.is_empty()
    }
}

fn after(line: &str, mark: &str) -> Option<String> {
    line.split_once(mark).map(|(_, rest)| rest.to_owned())
}

impl Report {
    pub(super) fn new(devices: Vec<Device>) -> Self {
        Self {
            version: VERSION,
            devices,
        }
    }

    /// Nothing would be killed, and all works.
    pub(super) fn is_fine(&self) -> bool {
        self.devices.iter().all(Device::is_fine)
    }

    pub(super) fn json(&self) -> String {
        // Strings, numbers and lists alone cannot fail.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, device) in self.devices.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            write!(f, "{device}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Comparison {
            declared,
            made,
            killed,
            unused,
            privileged,
            rare,
        } = &self.system_calls;
        writeln!(
            f,
            "{}: {}",
            self.device,
            if self.is_fine() { "works" } else { "does not work" }
        )?;
        for failure in &self.failures {
            writeln!(f, "  failed: {failure}")?;
        }
        writeln!(f, "  sandbox: {}", self.sandbox.as_deref().unwrap_or("not reached"))?;
        for reason in &self.refused {
            writeln!(f, "    without {reason}")?;
        }
        self.operations(f)?;
        writeln!(f, "  system calls: {declared} in the list, {made} of them made")?;
        for killed in killed {
            writeln!(
                f,
                "    would have been killed: {} ({} times)",
                killed.call, killed.times
            )?;
        }
        wrapped(f, "not made", unused)?;
        wrapped(f, "not made without capabilities", privileged)?;
        for (why, calls) in rare {
            writeln!(f, "    rarely made: {} ({why})", calls.join(", "))?;
        }
        for need in &self.host {
            let works = if need.works { "yes" } else { "no" };
            writeln!(f, "  {}: {works}; {}", need.what, need.text)?;
        }
        Ok(())
    }
}

impl Device {
    fn operations(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.passes.iter().map(|pass| pass.operations.len()).sum::<usize>();
        let mut refused: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for step in self.passes.iter().flat_map(|pass| &pass.operations) {
            if let Some(errno) = &step.errno {
                *refused.entry((&step.operation, errno)).or_default() += 1;
            }
        }
        let count: usize = refused.values().sum();
        writeln!(
            f,
            "  operations: {all} in {} daemons, {count} of them refused",
            self.passes.len()
        )?;
        for pass in &self.passes {
            if let Some(reason) = &pass.refused {
                writeln!(f, "    {}: {reason}", pass.pass)?;
            }
        }
        for ((operation, errno), times) in refused {
            writeln!(f, "    {operation}: {errno} ({times} times)")?;
        }
        Ok(())
    }
}

/// A list after its title, if it is not empty.
fn wrapped(f: &mut fmt::Formatter<'_>, title: &str, calls: &[String]) -> fmt::Result {
    if calls.is_empty() {
        return Ok(());
    }
    let mut line = format!("    {title}:");
    for (number, call) in calls.iter().enumerate() {
        let last = number + 1 == calls.len();
        if line.len() + call.len() + 2 > WIDTH {
            writeln!(f, "{line}")?;
            line = "     ".to_owned();
        }
        line.push_str(&format!(" {call}{}", if last { "" } else { "," }));
    }
    writeln!(f, "{line}")
}
