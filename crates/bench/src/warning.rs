//! Warnings that cast doubt on the figures of a workload.

use serde::Serialize;

use crate::machine::other_work::OtherWork;
use crate::measure::Rounds;

/// Rates scatter if the middle half of the rounds spans more than this part of the median.
const SCATTERED: f64 = 1.0 / 3.0;

/// Why figures may not repeat.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Warning {
    /// The rates of a contender differ much from round to round.
    Scatter {
        contender: String,
        /// Interquartile range of the rates, divided by their median.
        interquartile: f64,
    },
    /// Others used the processors.
    OtherWork {
        /// So many of them on average.
        processors: f64,
    },
}

/// All that is to be said of the rounds of one workload.
pub(crate) fn warnings<'a>(rounds: impl Iterator<Item = (&'a str, &'a Rounds)>, other_work: OtherWork) -> Vec<Warning> {
    let scattered = rounds.filter_map(|(contender, rounds)| {
        let interquartile = rounds.interquartile()?;
        (interquartile > SCATTERED).then(|| Warning::Scatter {
            contender: contender.into(),
            interquartile,
        })
    });
    let other_work = other_work
        .disturbing()
        .map(|processors| Warning::OtherWork { processors });
    scattered.chain(other_work).collect()
}

/// Warnings as lines of text, all contenders that scatter in one.
pub(crate) fn lines(warnings: &[Warning]) -> Vec<String> {
    let scattered = warnings.iter().filter_map(|warning| match warning {
        Warning::Scatter {
            contender,
            interquartile,
        } => Some(format!("{contender}: {:.0} %", interquartile * 100.0)),
        Warning::OtherWork { .. } => None,
    });
    let scattered: Vec<String> = scattered.collect();
    let scatter = (!scattered.is_empty()).then(|| {
        format!(
            "rounds scatter; the middle half of the rates spans more than {:.0} % of their median: {}",
            SCATTERED * 100.0,
            scattered.join("; ")
        )
    });
    let other_work = warnings.iter().filter_map(|warning| match warning {
        Warning::OtherWork { processors } => Some(format!(
            "other work kept {processors:.1} processors busy during the rounds"
        )),
        Warning::Scatter { .. } => None,
    });
    scatter.into_iter().chain(other_work).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Round;

    fn rounds(rates: &[f64]) -> Rounds {
        Rounds {
            all: rates
                .iter()
                .map(|&rate| Round {
                    rate,
                    cpu: None,
                    p50: 0.0,
                    p99: 0.0,
                })
                .collect(),
            syscalls: None,
        }
    }

    fn warned(rates: &[f64]) -> Vec<Warning> {
        let rounds = rounds(rates);
        warnings([("virtiofsd", &rounds)].into_iter(), OtherWork::default())
    }

    #[test]
    fn rounds_scatter_if_their_middle_half_is_wider_than_a_third_of_the_median() {
        assert_eq!(warned(&[80.0, 90.0, 100.0, 110.0, 120.0]), []);
        // One round in seven may be far off.
        assert_eq!(warned(&[100.0, 100.0, 10.0, 100.0, 100.0, 100.0, 100.0]), []);
        let expected = Warning::Scatter {
            contender: "virtiofsd".into(),
            interquartile: 0.4,
        };
        assert_eq!(warned(&[60.0, 80.0, 100.0, 120.0, 140.0]), [expected]);
        assert_eq!(warned(&[100.0]), [], "one round says nothing of others");
    }

    #[test]
    fn warnings_say_who_and_how_much() {
        let scatter = |contender: &str, interquartile| Warning::Scatter {
            contender: contender.into(),
            interquartile,
        };
        let other = Warning::OtherWork { processors: 0.75 };
        assert_eq!(
            lines(&[scatter("innkeeper", 0.4), scatter("virtiofsd", 0.5), other.clone()]),
            [
                "rounds scatter; the middle half of the rates spans more than 33 % of their median: innkeeper: 40 %; virtiofsd: 50 %",
                "other work kept 0.8 processors busy during the rounds"
            ]
        );
        assert!(lines(&[]).is_empty());
        assert_eq!(
            serde_json::to_string(&other).unwrap(),
            r#"{"kind":"other-work","processors":0.75}"#
        );
    }
}
