//! What is printed: a line for each contender of each workload.

use std::fmt::Write as _;

use super::measure::{Rounds, Spread};
use super::workload::{Unit, Workload};

/// One workload, measured.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) workload: Workload,
    /// In the order of the contenders, the first being ours and the last the host.
    pub(super) rounds: Vec<Rounds>,
}

pub(super) fn heading() -> String {
    format!(
        "{:<24}{:<14}{:>13}  {:>9}{:>9}{:>10}   {}\n",
        "workload", "who", "rate/s", "p50 us", "p99 us", "CPU us", "innkeeper's rate in times of it (least to most)"
    )
}

/// The lines of one workload.
pub(super) fn lines(measured: &Measured, names: &[String]) -> String {
    let mut text = String::new();
    let unit = measured.workload.kind.unit();
    for (index, (name, rounds)) in names.iter().zip(&measured.rounds).enumerate() {
        let title = match (index, unit) {
            (0, _) => measured.workload.to_string(),
            (1, Unit::Bytes) => "  (MiB)".into(),
            (1, Unit::Entries) => "  (entries)".into(),
            _ => String::new(),
        };
        let rate = rounds.median(|round| round.rate);
        let rate = match unit {
            Unit::Bytes => format!("{:.0}", rate / f64::from(1 << 20)),
            Unit::Operations | Unit::Entries => format!("{rate:.0}"),
        };
        let micro = |figure: f64| figure / 1000.0;
        let ratio = if index == 0 {
            None
        } else {
            measured.rounds[0].ratio(rounds)
        };
        let line = format!(
            "{title:<24}{name:<14}{rate:>13}  {:>9.1}{:>9.1}{:>10.2}   {}",
            micro(rounds.median(|round| round.p50)),
            micro(rounds.median(|round| round.p99)),
            micro(rounds.median(|round| round.cpu)),
            ratio.map(times).unwrap_or_default(),
        );
        // A string takes whatever is written to it.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn times(ratio: Spread) -> String {
    format!("{:5.2}  ({:.2} to {:.2})", ratio.median, ratio.least, ratio.most)
}
