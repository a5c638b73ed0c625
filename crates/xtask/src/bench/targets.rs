//! Innkeeper's performance targets relative to virtiofsd, and whether it meets them.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde_json::Value;

/// Reports of `innkeeper bench`: contenders are innkeeper, virtiofsd without a pool, virtiofsd with one, the host.
#[derive(Debug)]
pub(super) struct Measured {
    /// All on one processor.
    pub(super) together: Value,
    /// Driver and daemons on different processors, with the figures that are no rates.
    pub(super) apart: Value,
    /// The same where the file system is in memory: of creating and removing, which else measure the host's file system too.
    pub(super) in_memory: Value,
    /// Wherever the kernel puts them.
    pub(super) two_queues: Value,
    pub(super) one_queue: Value,
    /// Tools of the host.
    pub(super) through_mount: Value,
}

const OURS: usize = 0;
const WITHOUT_POOL: usize = 1;
const PEERS: [usize; 2] = [1, 2];
const HOST: usize = 3;

/// Operations on names, which are to be twice as fast.
const METADATA: [&str; 9] = [
    "getattr",
    "getattr@16",
    "lookup",
    "lookup@16",
    "open-read-close",
    "open-read-close@16",
    "create-write-unlink",
    "create-write-unlink@16",
    "readdirplus",
];

/// Those of them that take as long as the host's file system does.
const CREATING: [&str; 2] = ["create-write-unlink", "create-write-unlink@16"];

const RATES: [&str; 20] = [
    "getattr",
    "getattr@16",
    "lookup",
    "lookup@16",
    "lookup-miss",
    "lookup-miss@16",
    "open-read-close",
    "open-read-close@16",
    "create-write-unlink",
    "create-write-unlink@16",
    "readdirplus",
    "read-4k",
    "read-4k@4",
    "read-4k@32",
    "write-4k",
    "write-4k@4",
    "write-4k@32",
    "read-1m",
    "write-1m",
    "mixed@2",
];

/// What is measured over the ring and is no rate.
const FIGURES: [&str; 3] = ["ready", "idle", "memory"];

/// Tools on a mount that are to be faster than on one of virtiofsd, and those that are only shown.
const FASTER_TOOLS: [&str; 4] = ["untar", "git-status", "rm", "grep"];
const OTHER_TOOLS: [&str; 2] = ["git-clone", "compile"];

/// The options that name all workloads over the ring.
pub(super) fn rates() -> Vec<&'static str> {
    workloads(&RATES)
}

/// The options that name the workloads that create files.
pub(super) fn creating() -> Vec<&'static str> {
    workloads(&CREATING)
}

/// The options that name all other figures.
pub(super) fn figures() -> Vec<&'static str> {
    workloads(&FIGURES)
}

/// The options that name all tools.
pub(super) fn tools() -> Vec<&'static str> {
    [workloads(&FASTER_TOOLS), workloads(&OTHER_TOOLS)].concat()
}

fn workloads(names: &[&'static str]) -> Vec<&'static str> {
    names.iter().flat_map(|name| ["--workload", name]).collect()
}

/// One thing to reach.
#[derive(Debug, PartialEq)]
struct Target {
    what: String,
    wanted: String,
    got: String,
    held: bool,
}

/// The targets by number, each with what was measured.
pub(super) fn table(measured: &Measured) -> Result<String> {
    let mut text = format!("{:<71}{:<14}{:<28}\n", "target", "wanted", "measured");
    let mut add = |number: u32, targets: Vec<Target>| {
        for Target {
            what,
            wanted,
            got,
            held,
        } in targets
        {
            let held = if held { "held" } else { "NOT HELD" };
            // A string takes whatever is written to it.
            let _ = writeln!(text, "{number}. {what:<68}{wanted:<14}{got:<28}{held}");
        }
    };
    for (placement, report) in [("together", &measured.together), ("apart", &measured.apart)] {
        add(1, slower(report, placement)?);
        add(2, metadata(report, placement, &METADATA)?);
        add(3, reads(report, placement)?);
        add(4, vec![disturbed(report, placement)?]);
        add(5, vec![sequential(report, placement)?]);
    }
    add(2, metadata(&measured.in_memory, "apart, on tmpfs", &CREATING)?);
    add(3, vec![queues(measured)?]);
    add(6, through_mount(&measured.through_mount)?);
    add(7, footprint(&measured.apart)?);
    add(8, vec![ready(&measured.apart)?]);
    Ok(text)
}

/// Every workload that is slower, and the slowest in any case.
fn slower(report: &Value, placement: &str) -> Result<Vec<Target>> {
    let mut workloads = Vec::new();
    for name in RATES.iter().filter(|name| !name.starts_with("mixed")) {
        workloads.push((name, against_best(report, name)?));
    }
    let target = |what, beside: &Beside| Target {
        what,
        wanted: "1.0 x".into(),
        got: match beside.ratio < 1.0 {
            true => format!("{:.2} x (1.0 in {} rounds)", beside.ratio, beside.as_fast),
            false => format!("{:.2} x", beside.ratio),
        },
        held: !beside.is_slower(),
    };
    let slower = workloads.iter().filter(|(_, beside)| beside.is_slower());
    let mut targets: Vec<_> = slower
        .map(|(name, beside)| {
            target(
                format!("{name}, {placement}: not slower than virtiofsd at its best"),
                beside,
            )
        })
        .collect();
    let slowest = workloads.iter().min_by(|(_, a), (_, b)| a.ratio.total_cmp(&b.ratio));
    let (name, beside) = slowest.context("there are no workloads")?;
    targets.push(target(format!("slowest workload, {placement}: {name}"), beside));
    Ok(targets)
}

fn metadata(report: &Value, placement: &str, workloads: &[&str]) -> Result<Vec<Target>> {
    let target = |name: &&str| {
        let ratio = against_best(report, name)?.ratio;
        Ok(Target {
            what: format!("{name}, {placement}: rate beside virtiofsd's best"),
            wanted: "2.0 x".into(),
            got: format!("{ratio:.2} x"),
            held: ratio >= 2.0,
        })
    };
    workloads.iter().map(target).collect()
}

fn reads(report: &Value, placement: &str) -> Result<Vec<Target>> {
    let latencies = PEERS.map(|peer| number(report, "read-4k", peer, "/p50_ns"));
    let best = latencies.into_iter().collect::<Result<Vec<_>>>()?;
    let part = number(report, "read-4k", OURS, "/p50_ns")? / best.into_iter().fold(f64::INFINITY, f64::min);
    let ratio = against_best(report, "read-4k@32")?.ratio;
    Ok(vec![
        Target {
            what: format!("read-4k, {placement}: latency in parts of virtiofsd's best"),
            wanted: "0.70".into(),
            got: format!("{part:.2}"),
            held: part <= 0.7,
        },
        Target {
            what: format!("read-4k@32, {placement}: rate beside virtiofsd's best"),
            wanted: "2.0 x".into(),
            got: format!("{ratio:.2} x"),
            held: ratio >= 2.0,
        },
    ])
}

fn disturbed(report: &Value, placement: &str) -> Result<Target> {
    let p99 = |who| number(report, "mixed@2", who, "/p99_ns");
    let part = p99(OURS)? / p99(WITHOUT_POOL)?;
    Ok(Target {
        what: format!("getattr p99 beside cold reads, {placement}, of virtiofsd's"),
        wanted: "0.10".into(),
        got: format!("{part:.2}"),
        held: part <= 0.1,
    })
}

fn sequential(report: &Value, placement: &str) -> Result<Target> {
    let rate = |who| number(report, "read-1m", who, "/rate/median");
    let part = rate(OURS)? / rate(HOST)?;
    Ok(Target {
        what: format!("read-1m, {placement}: rate in parts of the host's"),
        wanted: "0.90".into(),
        got: format!("{part:.2}"),
        held: part >= 0.9,
    })
}

/// By rate where driver and daemon have a processor each for both queues, else by CPU time.
fn queues(measured: &Measured) -> Result<Target> {
    let of = |report, field| number(report, "read-4k@32", OURS, field);
    let ratio = of(&measured.two_queues, "/rate/median")? / of(&measured.one_queue, "/rate/median")?;
    let cpu = of(&measured.two_queues, "/cpu_ns")? / of(&measured.one_queue, "/cpu_ns")?;
    let processors = measured.one_queue["processors"].as_u64().unwrap_or(1);
    let by_cpu = processors < 4;
    Ok(Target {
        what: if by_cpu {
            format!("read-4k@32 with 2 queues beside 1: CPU time ({processors} processors)")
        } else {
            "read-4k@32 with 2 queues beside 1: rate".into()
        },
        wanted: if by_cpu { "1.1 x at most" } else { "1.5 x" }.into(),
        got: format!("rate {ratio:.2} x, CPU {cpu:.2} x"),
        held: if by_cpu { cpu <= 1.1 } else { ratio >= 1.5 },
    })
}

fn through_mount(report: &Value) -> Result<Vec<Target>> {
    let target = |name: &&str| {
        let ratio = against_best(report, name)?.ratio;
        Ok(Target {
            what: format!("{name} on a mount: speed beside virtiofsd's best"),
            wanted: "above 1.0 x".into(),
            got: format!("{ratio:.2} x"),
            held: ratio > 1.0,
        })
    };
    FASTER_TOOLS.iter().map(target).collect()
}

fn footprint(report: &Value) -> Result<Vec<Target>> {
    let target = |name: &str, wanted: &str, most: f64| {
        let (ours, theirs) = (figure(report, name, OURS)?, figure(report, name, WITHOUT_POOL)?);
        Ok(Target {
            what: name.into(),
            wanted: wanted.into(),
            got: format!("{ours:.2} (virtiofsd {theirs:.2})"),
            held: ours <= most,
        })
    };
    [
        ("CPU time in 2 s of idleness", "0 ms", 0.5),
        ("memory a known file", "200 bytes", 200.0),
        ("descriptors a known file", "0", 0.001),
    ]
    .into_iter()
    .map(|(name, wanted, most)| target(name, wanted, most))
    .collect()
}

fn ready(report: &Value) -> Result<Target> {
    let time = figure(report, "ready to serve", OURS)?;
    let peer = figure(report, "ready to serve", WITHOUT_POOL)?;
    Ok(Target {
        what: "ready to serve after its start".into(),
        wanted: "10 ms".into(),
        got: format!("{time:.1} ms (virtiofsd {peer:.1})"),
        held: time <= 10.0,
    })
}

/// How we are beside a peer.
struct Beside {
    /// Our rate in times of its rate: the median of the rounds.
    ratio: f64,
    /// Rounds in which we were as fast.
    as_fast: usize,
}

impl Beside {
    /// One good round among several may be luck.
    fn is_slower(&self) -> bool {
        self.ratio < 1.0 && self.as_fast < 2
    }
}

/// Beside virtiofsd, at whichever pool it is faster with.
fn against_best(report: &Value, workload: &str) -> Result<Beside> {
    let ours = rates_of_rounds(report, workload, OURS)?;
    let beside = |peer| {
        let theirs = rates_of_rounds(report, workload, peer)?;
        Ok(Beside {
            ratio: number(report, workload, peer, "/ratio/median")?,
            as_fast: ours
                .iter()
                .zip(theirs)
                .filter(|(ours, theirs)| **ours >= *theirs)
                .count(),
        })
    };
    let peers = PEERS.into_iter().map(beside).collect::<Result<Vec<_>>>()?;
    let best = peers.into_iter().min_by(|a, b| a.ratio.total_cmp(&b.ratio));
    best.context("no contender to compare with")
}

/// The rates of contender `who`, round by round.
fn rates_of_rounds(report: &Value, workload: &str, who: usize) -> Result<Vec<f64>> {
    let rounds = found(report, workload, who, "/rounds")?
        .as_array()
        .into_iter()
        .flatten();
    Ok(rounds.filter_map(|round| round["rate"].as_f64()).collect())
}

/// A number in the result of contender `who`.
fn number(report: &Value, workload: &str, who: usize, pointer: &str) -> Result<f64> {
    let number = found(report, workload, who, pointer)?.as_f64();
    number.with_context(|| format!("{pointer} of {workload} in the report is not a number"))
}

/// Whatever is there in the result of contender `who`.
fn found<'r>(report: &'r Value, workload: &str, who: usize, pointer: &str) -> Result<&'r Value> {
    let mut workloads = report["workloads"].as_array().into_iter().flatten();
    let measured = workloads.find(|measured| measured["name"] == workload);
    let found = measured.and_then(|measured| measured["results"][who].pointer(pointer));
    found.with_context(|| format!("the report has no {pointer} of {workload}"))
}

/// The median of a figure of daemon `who`.
fn figure(report: &Value, name: &str, who: usize) -> Result<f64> {
    let figures = report["figures"].as_array().into_iter().flatten();
    let found = figures
        .filter(|figure| figure["name"] == name)
        .find_map(|figure| figure["values"][who]["median"].as_f64());
    found.with_context(|| format!("the report has no figure {name:?}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Rounds of a report.
    const ROUNDS: usize = 7;

    /// A report in which we have so many times virtiofsd's rate in each round, and so much of its latency.
    fn report(ratio: f64, latency: f64) -> Value {
        report_with(ratio, &[ratio; ROUNDS], latency)
    }

    /// The same with a median that is that of other rounds.
    fn report_with(ratio: f64, rounds: &[f64], latency: f64) -> Value {
        let ours: Vec<_> = rounds.iter().map(|rate| json!({"rate": rate})).collect();
        let result = |ratio: Value, p50: f64| {
            let rounds = if ratio.is_null() {
                json!(ours)
            } else {
                json!(vec![json!({"rate": 1.0}); ROUNDS])
            };
            json!({
                "rate": {"median": 1.0}, "p50_ns": p50, "p99_ns": p50, "cpu_ns": 1.0,
                "ratio": {"median": ratio}, "rounds": rounds,
            })
        };
        let workload = |name: &str| {
            let results = [
                result(Value::Null, latency),
                result(json!(ratio), 1.0),
                result(json!(ratio + 5.0), 2.0),
                result(json!(1.0), 1.0),
            ];
            json!({"name": name, "results": results})
        };
        let names = RATES.iter().chain(&FASTER_TOOLS);
        let workloads: Vec<_> = names.map(|name| workload(name)).collect();
        let figure = |name: &str| json!({"name": name, "values": [{"median": 0.0}, {"median": 9.0}]});
        let figures = [
            "CPU time in 2 s of idleness",
            "memory a known file",
            "descriptors a known file",
            "ready to serve",
        ]
        .map(figure);
        json!({"processors": 2, "workloads": workloads, "figures": figures})
    }

    fn judged(ratio: f64, latency: f64) -> String {
        judge(report(ratio, latency))
    }

    fn judge(report: Value) -> String {
        table(&Measured {
            together: report.clone(),
            apart: report.clone(),
            in_memory: report.clone(),
            two_queues: report.clone(),
            one_queue: report.clone(),
            through_mount: report,
        })
        .unwrap()
    }

    #[test]
    fn all_targets_hold_where_all_is_well() {
        let table = judged(2.0, 0.1);
        assert!(!table.contains("NOT HELD"), "{table}");
        for number in 1..=8 {
            assert!(
                table.contains(&format!("\n{number}. ")),
                "target {number} is missing in {table}"
            );
        }
    }

    #[test]
    fn the_faster_of_the_peers_counts() {
        let table = judged(0.9, 0.8);
        let line = |part: &str| table.lines().find(|line| line.contains(part)).unwrap();
        assert!(line("1. lookup, together").contains("0.90 x"), "{table}");
        assert!(line("latency in parts").contains("0.80") && line("latency in parts").contains("NOT HELD"));
        assert!(line("p99 beside cold reads").contains("NOT HELD"));
        assert!(
            line("6. untar").contains("0.90 x") && line("6. untar").contains("NOT HELD"),
            "{table}"
        );
        assert!(line("ready to serve").ends_with("  held"), "{table}");
    }

    #[test]
    fn one_good_round_of_many_is_no_speed() {
        let verdict = |rounds: &[f64]| {
            let table = judge(report_with(0.9, rounds, 0.1));
            let line = table
                .lines()
                .find(|line| line.contains("slowest workload, together: getattr"));
            (line.unwrap().to_owned(), table.contains("1. getattr, together"))
        };
        let (slowest, named) = verdict(&[0.9, 0.9, 0.9, 1.1, 0.9, 0.9, 0.9]);
        assert!(
            slowest.contains("0.90 x (1.0 in 1 rounds)") && slowest.ends_with("NOT HELD"),
            "{slowest}"
        );
        assert!(named);
        let (slowest, named) = verdict(&[0.9, 0.9, 0.9, 1.1, 1.0, 0.9, 0.9]);
        assert!(
            slowest.contains("0.90 x (1.0 in 2 rounds)") && slowest.ends_with("  held"),
            "{slowest}"
        );
        assert!(!named);
    }

    #[test]
    fn a_report_without_what_is_needed_is_an_error() {
        let empty = json!({});
        assert!(number(&empty, "getattr", OURS, "/p50_ns").is_err());
        assert!(figure(&empty, "ready to serve", OURS).is_err());
    }
}
