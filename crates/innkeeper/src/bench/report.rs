//! All that was measured, as JSON for other programs.

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::error::Error;
use super::figures::Values;
use super::measure::{Round, Rounds, Spread};
use super::workload::Unit;

/// Goes up when a field changes its meaning or goes away.
const VERSION: u32 = 1;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    version: u32,
    kernel: String,
    /// That driver and daemons might use together.
    processors: usize,
    rounds: u32,
    seconds_per_round: f64,
    /// The first is ours, the last the host.
    pub(super) contenders: Vec<Description>,
    pub(super) workloads: Vec<Measured>,
    figures: Vec<Figure>,
}

#[derive(Debug, Serialize)]
pub(super) struct Description {
    pub(super) name: String,
    /// Nothing for the host.
    pub(super) command: Option<String>,
    pub(super) ring: Option<&'static str>,
    pub(super) queues: u16,
}

/// One workload, by contender.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    pub(super) name: String,
    pub(super) unit: Unit,
    pub(super) results: Vec<Measurement>,
}

#[derive(Debug, Serialize)]
pub(super) struct Measurement {
    pub(super) contender: String,
    /// Items a second.
    pub(super) rate: Spread,
    /// Medians of the rounds, in nanoseconds.
    pub(super) p50_ns: f64,
    pub(super) p99_ns: f64,
    pub(super) cpu_ns: Option<f64>,
    /// System calls of the daemon an operation; of the host, its own; nothing where they cannot be counted.
    pub(super) syscalls: Option<f64>,
    /// Our rate divided by this one's; nothing for ourselves.
    pub(super) ratio: Option<Spread>,
    rounds: Vec<Round>,
}

#[derive(Debug, Serialize)]
struct Figure {
    name: &'static str,
    unit: &'static str,
    /// By daemon, in their order.
    values: Vec<Option<Spread>>,
}

impl Report {
    pub(super) fn new(processors: usize, rounds: u32, seconds_per_round: f64, contenders: Vec<Description>) -> Self {
        Self {
            version: VERSION,
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            processors,
            rounds,
            seconds_per_round,
            contenders,
            workloads: Vec::new(),
            figures: Vec::new(),
        }
    }

    /// Adds the rounds of all contenders, in their order.
    pub(super) fn add(&mut self, name: String, unit: Unit, rounds: &[Rounds]) -> &Measured {
        let results = self.contenders.iter().zip(rounds).enumerate();
        let results = results.map(|(index, (contender, own))| Measurement {
            contender: contender.name.clone(),
            rate: own.spread(|round| round.rate),
            p50_ns: own.spread(|round| round.p50).median,
            p99_ns: own.spread(|round| round.p99).median,
            cpu_ns: Spread::of(own.all.iter().filter_map(|round| round.cpu)).map(|cpu| cpu.median),
            ratio: rounds.first().filter(|_| index > 0).and_then(|ours| ours.ratio(own)),
            syscalls: own.syscalls,
            rounds: own.all.clone(),
        });
        let measured = Measured {
            name,
            unit,
            results: results.collect(),
        };
        self.workloads.push(measured);
        &self.workloads[self.workloads.len() - 1]
    }

    pub(super) fn add_figure(&mut self, values: &Values) {
        self.figures.push(Figure {
            name: values.name,
            unit: values.unit,
            values: values.values.clone(),
        });
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), Error> {
        let mut text = serde_json::to_string_pretty(self).map_err(|error| Error::Output {
            path: path.into(),
            source: error.into(),
        })?;
        text.push('\n');
        write(path, &text)
    }
}

pub(super) fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|source| Error::Output {
        path: path.into(),
        source,
    })
}
