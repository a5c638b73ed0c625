//! The printed table: a line for each contender of each workload, then a line for each other figure.

use std::fmt::Write as _;

use crate::figures::Values;
use crate::measure::{Spread, Unit};
use crate::show::report::{Description, Measured, Measurement};
use crate::warning;

/// The title of the column of ratios, here and in the picture.
pub(crate) const RATIO: &str = "innkeeper / other";

/// What is compared.
pub(crate) fn introduction(contenders: &[Description]) -> String {
    let mut text = String::new();
    for contender in contenders {
        let line = match (&contender.command, contender.ring) {
            (Some(command), Some(ring)) => {
                let plural = if contender.queues == 1 { "" } else { "s" };
                format!("{ring} ring, {} request queue{plural}: {command}", contender.queues)
            }
            _ => "no daemon: the same system calls by this process, the same tools on the directory itself".into(),
        };
        add(&mut text, format_args!("{}: {line}\n", contender.name));
    }
    text
}

/// A table whose column of contenders is as wide as their names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    names: usize,
}

impl Table {
    pub(crate) fn new(contenders: &[Description]) -> Self {
        let lengths = contenders.iter().map(|contender| contender.name.chars().count());
        Self {
            names: lengths.max().unwrap_or_default().max("contender".len()) + 1,
        }
    }

    /// Of the workloads over the ring.
    pub(crate) fn heading(self, rounds: u32, seconds: f64, not_counted: Option<&std::io::Error>) -> String {
        let mut text = format!(
            "\nOver the ring, without a guest kernel: one process sends requests and sleeps until replies come. Medians of {rounds} rounds of\n\
             {seconds} s; the contenders take turns. CPU and calls: processor time and system calls of the daemon for each operation.\n\
             {RATIO}: innkeeper's rate divided by the other's; above 1, innkeeper is faster. In brackets: least and most.\n\n"
        );
        let line = self.line(
            "workload",
            "contender",
            &[
                ("per second", 13),
                ("p50 us", 11),
                ("p99 us", 9),
                ("CPU us", 10),
                ("calls", 10),
            ],
            RATIO,
        );
        text.push_str(&line);
        if let Some(error) = not_counted {
            add(
                &mut text,
                format_args!("(system calls are not counted: {error}; run as root to count them)\n"),
            );
        }
        text
    }

    /// Of the tools.
    pub(crate) fn tools_heading(self, rounds: u32) -> String {
        let mut text = format!(
            "\nTools on a mount of each daemon (innkeeper mount). Medians of {rounds} runs; the contenders take turns. Each run has a new daemon\n\
             and a new mount, whose caches are empty; the host's caches have all files. CPU: processor time of the daemon for the run.\n\
             {RATIO}: the other's time divided by innkeeper's; above 1, innkeeper is faster. In brackets: least and most.\n\n"
        );
        text.push_str(&self.line("workload", "contender", &[("seconds", 13), ("CPU s", 11)], RATIO));
        text
    }

    /// The lines of one tool.
    pub(crate) fn tool_lines(self, measured: &Measured) -> String {
        self.lines_of(measured, |_, result| {
            let cpu = result
                .cpu_ns
                .map_or_else(|| "-".into(), |cpu| format!("{:.3}", cpu / 1e9));
            vec![(format!("{:.3}", result.p50_ns / 1e9), 13), (cpu, 11)]
        })
    }

    /// The lines of one workload.
    pub(crate) fn lines(self, measured: &Measured) -> String {
        self.lines_of(measured, |unit, result| {
            let rate = match unit {
                Unit::Bytes => result.rate.median / f64::from(1 << 20),
                Unit::Operations | Unit::Entries | Unit::Runs => result.rate.median,
            };
            let calls = result
                .syscalls
                .map_or_else(|| "-".into(), |calls| format!("{calls:.2}"));
            vec![
                (format!("{rate:.0}"), 13),
                (format!("{:.1}", result.p50_ns / 1000.0), 11),
                (format!("{:.1}", result.p99_ns / 1000.0), 9),
                (format!("{:.2}", result.cpu_ns.unwrap_or_default() / 1000.0), 10),
                (calls, 10),
            ]
        })
    }

    fn lines_of(self, measured: &Measured, cells: impl Fn(Unit, &Measurement) -> Vec<(String, usize)>) -> String {
        let mut text = String::new();
        for (index, result) in measured.results.iter().enumerate() {
            let title = match (index, measured.unit) {
                (0, _) => measured.name.as_str(),
                (1, Unit::Bytes) => "  (MiB)",
                (1, Unit::Entries) => "  (entries)",
                _ => "",
            };
            let cells = cells(measured.unit, result);
            let cells: Vec<(&str, usize)> = cells.iter().map(|(cell, width)| (&**cell, *width)).collect();
            let ratio = result.ratio.map(times).unwrap_or_default();
            text.push_str(&self.line(title, &result.contender, &cells, &ratio));
        }
        for warning in warning::lines(&measured.warnings) {
            add(&mut text, format_args!("  warning: {warning}\n"));
        }
        text
    }

    /// Cells of the widths that are given with them.
    fn line(self, title: &str, name: &str, cells: &[(&str, usize)], ratio: &str) -> String {
        let mut text = format!("{title:<24}{name:<width$}", width = self.names);
        for (cell, width) in cells {
            add(&mut text, format_args!("{cell:>width$}"));
        }
        add(&mut text, format_args!("   {ratio}"));
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    }
}

/// One figure of all daemons.
pub(crate) fn figure(values: &Values, contenders: &[Description]) -> String {
    let name = format!("{} ({})", values.name, values.unit).replace(" ()", "");
    let mut text = format!("{name:<36}");
    for (index, (contender, value)) in contenders.iter().zip(&values.values).enumerate() {
        let value = value.map_or_else(|| "-".into(), |spread| format!("{:.2}", spread.median));
        // Names may have commas in them.
        let between = if index == 0 { "" } else { ";" };
        add(&mut text, format_args!("{between}  {}: {value}", contender.name));
    }
    text.push('\n');
    text
}

/// Which workloads had warnings; nothing if none had.
pub(crate) fn doubtful(workloads: &[Measured]) -> String {
    let doubtful = workloads.iter().filter(|measured| !measured.warnings.is_empty());
    let names: Vec<&str> = doubtful.map(|measured| &*measured.name).collect();
    if names.is_empty() {
        return String::new();
    }
    format!(
        "\nWarnings for {} of {} workloads, whose figures may not repeat: {}.\nRun them again on an idle machine, or with more --rounds.\n",
        names.len(),
        workloads.len(),
        names.join(", ")
    )
}

fn times(ratio: Spread) -> String {
    // The host is often a hundred times as fast.
    let digits = if ratio.median < 0.1 { 3 } else { 2 };
    format!(
        "{:5.digits$}  ({:.digits$} to {:.digits$})",
        ratio.median, ratio.least, ratio.most
    )
}

fn add(text: &mut String, what: std::fmt::Arguments<'_>) {
    // A string takes whatever is written to it.
    let _ = text.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::other_work::OtherWork;
    use crate::measure::{Round, Rounds, Taken};
    use crate::show::report::Report;

    fn described(name: &str) -> Description {
        Description {
            name: name.into(),
            command: Some(name.into()),
            ring: Some("split"),
            queues: 1,
        }
    }

    /// One workload, in which the second contender has these rates and ours is always 100.
    fn report(rates: [f64; 3]) -> Report {
        let contenders = vec![described("innkeeper"), described("virtiofsd, thread-pool 16")];
        let mut report = Report::new(2, 3, 0.5, contenders);
        let rounds = |rates: [f64; 3]| Rounds {
            all: rates
                .map(|rate| Round {
                    rate,
                    cpu: Some(1000.0),
                    p50: 2000.0,
                    p99: 3000.0,
                })
                .to_vec(),
            syscalls: Some(4.0),
        };
        let taken = Taken {
            rounds: vec![rounds([100.0; 3]), rounds(rates)],
            other_work: OtherWork::default(),
        };
        report.add("getattr".into(), Unit::Operations, &taken);
        report
    }

    #[test]
    fn columns_stand_below_their_headings_whatever_the_names_are() {
        let report = report([40.0, 50.0, 50.0]);
        let table = Table::new(&report.contenders);
        let heading = table.heading(3, 0.5, None);
        let heading = heading.lines().last().unwrap();
        let lines = table.lines(&report.workloads[0]);
        let [ours, other] = lines.lines().collect::<Vec<_>>()[..] else {
            panic!("{lines}")
        };
        for (title, value) in [
            ("per second", "50"),
            ("p50 us", "2.0"),
            ("CPU us", "1.00"),
            ("calls", "4.00"),
        ] {
            let end = heading.find(title).unwrap() + title.len();
            assert!(other[..end].ends_with(value), "{title}: {other}");
        }
        assert_eq!(heading.find("contender"), other.find("virtiofsd"));
        let ratio = heading.find(RATIO).unwrap();
        assert_eq!(&other[ratio..], " 2.00  (2.00 to 2.50)");
        assert!(ours.ends_with("4.00"), "no ratio to itself: {ours}");
    }

    #[test]
    fn the_heading_says_which_side_of_one_is_faster() {
        let table = Table::new(&[described("innkeeper")]);
        for heading in [table.heading(3, 0.5, None), table.tools_heading(3)] {
            assert!(
                heading.contains(RATIO) && heading.contains("above 1, innkeeper is faster"),
                "{heading}"
            );
        }
    }

    #[test]
    fn warnings_stand_below_the_workload_and_at_the_end() {
        let scattered = report([10.0, 50.0, 90.0]);
        let lines = Table::new(&scattered.contenders).lines(&scattered.workloads[0]);
        assert!(
            lines.ends_with("of their median: virtiofsd, thread-pool 16: 80 %\n"),
            "{lines}"
        );
        assert!(doubtful(&scattered.workloads).contains("1 of 1 workloads, whose figures may not repeat: getattr."));
        let steady = report([50.0; 3]);
        assert_eq!(doubtful(&steady.workloads), "");
    }
}
