//! What is printed: a line for each contender of each workload, then a line for each other figure.

use std::fmt::Write as _;

use crate::figures::Values;
use crate::measure::{Spread, Unit};
use crate::show::report::{Description, Measured};

/// What is compared.
pub(crate) fn introduction(contenders: &[Description]) -> String {
    let mut text = String::new();
    for contender in contenders {
        let line = match (&contender.command, contender.ring) {
            (Some(command), Some(ring)) => format!("{ring} ring, {} request queue(s): {command}", contender.queues),
            _ => "the same system calls by this process, the same tools on the directory itself".into(),
        };
        add(&mut text, format_args!("{}: {line}\n", contender.name));
    }
    text
}

pub(crate) fn heading(rounds: u32, seconds: f64, not_counted: Option<&std::io::Error>) -> String {
    let mut text = format!(
        "\nRings driven by one process that sleeps until replies come; medians of {rounds} rounds of {seconds} s in turns.\n\n\
         {:<24}{:<14}{:>13}  {:>9}{:>9}{:>10}{:>10}   {}\n",
        "workload",
        "who",
        "rate/s",
        "p50 us",
        "p99 us",
        "CPU us",
        "calls",
        "innkeeper's rate / its rate (least to most)"
    );
    if let Some(error) = not_counted {
        add(
            &mut text,
            format_args!("(system calls are not counted: {error}; the kernel's tracepoints are for root)\n"),
        );
    }
    text
}

pub(crate) fn tools_heading(rounds: u32) -> String {
    format!(
        "\nTools on a mount of each daemon (innkeeper mount); medians of {rounds} runs in turns. Each run has a new daemon and a new mount, whose\n\
         caches are empty; the host's caches have all files.\n\n{:<24}{:<14}{:>13}  {:>9}   {}\n",
        "workload", "who", "seconds", "CPU s", "innkeeper's speed / its speed (least to most)"
    )
}

/// The lines of one tool.
pub(crate) fn tool_lines(measured: &Measured) -> String {
    let mut text = String::new();
    for (index, result) in measured.results.iter().enumerate() {
        let title = if index == 0 { measured.name.as_str() } else { "" };
        let cpu = result
            .cpu_ns
            .map_or_else(|| "-".into(), |cpu| format!("{:.3}", cpu / 1e9));
        let line = format!(
            "{title:<24}{:<14}{:>13.3}  {cpu:>9}   {}",
            result.contender,
            result.p50_ns / 1e9,
            result.ratio.map(times).unwrap_or_default(),
        );
        add(&mut text, format_args!("{}\n", line.trim_end()));
    }
    text
}

/// The lines of one workload.
pub(crate) fn lines(measured: &Measured) -> String {
    let mut text = String::new();
    for (index, result) in measured.results.iter().enumerate() {
        let title = match (index, measured.unit) {
            (0, _) => measured.name.as_str(),
            (1, Unit::Bytes) => "  (MiB)",
            (1, Unit::Entries) => "  (entries)",
            _ => "",
        };
        let rate = match measured.unit {
            Unit::Bytes => result.rate.median / f64::from(1 << 20),
            Unit::Operations | Unit::Entries | Unit::Runs => result.rate.median,
        };
        let calls = result
            .syscalls
            .map_or_else(|| "-".into(), |calls| format!("{calls:.2}"));
        let line = format!(
            "{title:<24}{:<14}{rate:>13.0}  {:>9.1}{:>9.1}{:>10.2}{calls:>10}   {}",
            result.contender,
            result.p50_ns / 1000.0,
            result.p99_ns / 1000.0,
            result.cpu_ns.unwrap_or_default() / 1000.0,
            result.ratio.map(times).unwrap_or_default(),
        );
        add(&mut text, format_args!("{}\n", line.trim_end()));
    }
    text
}

/// One figure of all daemons.
pub(crate) fn figure(values: &Values, contenders: &[Description]) -> String {
    let name = format!("{} ({})", values.name, values.unit).replace(" ()", "");
    let mut text = format!("{name:<36}");
    for (contender, value) in contenders.iter().zip(&values.values) {
        let value = value.map_or_else(|| "-".into(), |spread| format!("{:.2}", spread.median));
        add(&mut text, format_args!("  {} {value}", contender.name));
    }
    text.push('\n');
    text
}

fn times(ratio: Spread) -> String {
    format!("{:5.2}  ({:.2} to {:.2})", ratio.median, ratio.least, ratio.most)
}

fn add(text: &mut String, what: std::fmt::Arguments<'_>) {
    // A string takes whatever is written to it.
    let _ = text.write_fmt(what);
}
