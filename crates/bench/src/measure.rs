//! Rounds in turns, and their summary.

use std::time::Duration;

use serde::Serialize;

use crate::machine::other_work::OtherWork;
use crate::tally::Tally;

/// What a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unit {
    Operations,
    Entries,
    Bytes,
    /// Of a tool, from its start to its end.
    Runs,
}

/// One round of one contender.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Round {
    /// Items a second.
    pub(crate) rate: f64,
    /// CPU time of the daemon an operation, in nanoseconds; of the host, that of its own calls, and of a tool nothing.
    #[serde(rename = "cpu_ns")]
    pub(crate) cpu: Option<f64>,
    /// Latency of an operation in nanoseconds.
    #[serde(rename = "p50_ns")]
    pub(crate) p50: f64,
    #[serde(rename = "p99_ns")]
    pub(crate) p99: f64,
}

impl Round {
    /// `cpu`: what the daemon used in that time.
    pub(crate) fn new(tally: &Tally, cpu: Duration) -> Self {
        let seconds = tally.elapsed.as_secs_f64();
        let operations = tally.operations.max(1) as f64;
        Self {
            rate: tally.items as f64 / seconds,
            cpu: Some(cpu.as_nanos() as f64 / operations),
            p50: tally.latency.value_at_quantile(0.5) as f64,
            p99: tally.latency.value_at_quantile(0.99) as f64,
        }
    }
}

impl Round {
    /// The one run of a tool that makes a round.
    pub(crate) fn of_run(elapsed: Duration, cpu: Option<Duration>) -> Self {
        let nanoseconds = elapsed.as_nanos() as f64;
        Self {
            rate: 1.0 / elapsed.as_secs_f64(),
            cpu: cpu.map(|cpu| cpu.as_nanos() as f64),
            p50: nanoseconds,
            p99: nanoseconds,
        }
    }
}

/// The middle of some figures and how far they lie apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// `None` for no figures at all.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (&least, &most) = (sorted.first()?, sorted.last()?);
        let (lower, upper) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self {
            median: f64::midpoint(lower, upper),
            least,
            most,
        })
    }
}

/// All rounds of a contender in a workload.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds {
    pub(crate) all: Vec<Round>,
    /// System calls an operation, counted in a round of its own.
    pub(crate) syscalls: Option<f64>,
}

/// All rounds of a workload, in the order of the contenders, and what else the machine did meanwhile.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) rounds: Vec<Rounds>,
    pub(crate) other_work: OtherWork,
}

impl Rounds {
    /// Of one figure of each round; there is always at least one.
    pub(crate) fn spread(&self, figure: impl Fn(&Round) -> f64) -> Spread {
        Spread::of(self.all.iter().map(figure)).unwrap_or_default()
    }

    /// The interquartile range of the rates divided by their median; `None` for less than two rounds.
    pub(crate) fn interquartile(&self) -> Option<f64> {
        let mut rates: Vec<f64> = self.all.iter().map(|round| round.rate).collect();
        rates.sort_by(f64::total_cmp);
        if rates.len() < 2 {
            return None;
        }
        let range = quantile(&rates, 0.75) - quantile(&rates, 0.25);
        Some(range / quantile(&rates, 0.5).max(f64::MIN_POSITIVE))
    }

    /// This rate divided by the rate of `other`, round by round: neighbours in time have the same noise.
    pub(crate) fn ratio(&self, other: &Self) -> Option<Spread> {
        let pairs = self.all.iter().zip(&other.all);
        Spread::of(
            pairs
                .filter(|(_, other)| other.rate > 0.0)
                .map(|(own, other)| own.rate / other.rate),
        )
    }
}

/// Between neighbours in `sorted`, which is not empty, as far as the quantile lies between them.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let place = part * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_of_the_sorted_figures() {
        let spread = |figures: &[f64]| Spread::of(figures.iter().copied()).map(|s| (s.median, s.least, s.most));
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some((2.0, 1.0, 3.0)));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]), Some((2.5, 1.0, 4.0)));
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn ratios_are_taken_between_neighbours() {
        let rounds = |rates: [f64; 3]| Rounds {
            all: rates
                .map(|rate| Round {
                    rate,
                    cpu: None,
                    p50: 0.0,
                    p99: 0.0,
                })
                .to_vec(),
            syscalls: None,
        };
        // The machine was slow in the second round: both had half, and the ratio is as before.
        let ratio = rounds([200.0, 100.0, 220.0])
            .ratio(&rounds([100.0, 50.0, 100.0]))
            .unwrap();
        assert_eq!((ratio.median, ratio.least), (2.0, 2.0));
    }
}
