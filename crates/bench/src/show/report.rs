//! All measurements as JSON for other programs.

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::error::Error;
use crate::figures::Values;
use crate::measure::{Round, Spread, Taken, Unit};
use crate::warning::{Warning, warnings};

/// Goes up when a field changes its meaning or goes away.
const VERSION: u32 = 1;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    version: u32,
    kernel: String,
    /// That driver and daemons might use together.
    processors: usize,
    rounds: u32,
    seconds_per_round: f64,
    /// The first is ours, the last the host.
    pub(crate) contenders: Vec<Description>,
    pub(crate) workloads: Vec<Measured>,
    figures: Vec<Figure>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Description {
    pub(crate) name: String,
    /// Nothing for the host.
    pub(crate) command: Option<String>,
    pub(crate) ring: Option<&'static str>,
    pub(crate) queues: u16,
}

/// One workload, by contender.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) name: String,
    pub(crate) unit: Unit,
    /// Why the figures may not repeat; empty if nothing speaks against them.
    pub(crate) warnings: Vec<Warning>,
    pub(crate) results: Vec<Measurement>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Measurement {
    pub(crate) contender: String,
    /// Items a second.
    pub(crate) rate: Spread,
    /// Medians of the rounds, in nanoseconds.
    pub(crate) p50_ns: f64,
    pub(crate) p99_ns: f64,
    pub(crate) cpu_ns: Option<f64>,
    /// System calls of the daemon an operation; of the host, its own; nothing where they cannot be counted.
    pub(crate) syscalls: Option<f64>,
    /// Our rate divided by this one's; nothing for ourselves.
    pub(crate) ratio: Option<Spread>,
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
    pub(crate) fn new(processors: usize, rounds: u32, seconds_per_round: f64, contenders: Vec<Description>) -> Self {
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
    pub(crate) fn add(&mut self, name: String, unit: Unit, taken: &Taken) -> &Measured {
        let rounds = &taken.rounds[..];
        let names = self.contenders.iter().map(|contender| &*contender.name);
        let warnings = warnings(names.zip(rounds), taken.other_work);
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
            warnings,
            results: results.collect(),
        };
        self.workloads.push(measured);
        &self.workloads[self.workloads.len() - 1]
    }

    pub(crate) fn add_figure(&mut self, values: &Values) {
        self.figures.push(Figure {
            name: values.name,
            unit: values.unit,
            values: values.values.clone(),
        });
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let mut text = serde_json::to_string_pretty(self).map_err(|error| Error::Output {
            path: path.into(),
            source: error.into(),
        })?;
        text.push('\n');
        write(path, &text)
    }
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|source| Error::Output {
        path: path.into(),
        source,
    })
}
