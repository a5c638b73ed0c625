use std::fs;
use std::path::Path;
use std::process::Output;

use crate::{assert_refused, innkeeper};

/// Enough of everything to run each message once.
const TINY: [&str; 10] = [
    "--rounds",
    "1",
    "--seconds-per-round",
    "0.001",
    "--files",
    "3",
    "--entries",
    "300",
    "--data-mib",
    "2",
];

fn bench(directory: &Path, options: &[&str]) -> Output {
    innkeeper(["bench"])
        .arg(directory)
        .args(TINY)
        .args(options)
        .output()
        .unwrap()
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

#[test]
fn every_workload_runs_on_split_and_packed_rings_and_leaves_nothing_behind() {
    for options in [&[][..], &["--packed", "--queues", "2"]] {
        let directory = tempfile::tempdir().unwrap();
        // A second daemon of ours, given as a user would give another one.
        let own = env!("CARGO_BIN_EXE_innkeeper");
        let other = format!("{own} share {{directory}} --socket-path {{socket}} --ring split");
        let output = bench(directory.path(), &[options, &["--against", &other]].concat());
        let table = String::from_utf8(output.stdout).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert_eq!(said, "", "no line of progress where no terminal is");
        for workload in [
            "getattr",
            "lookup",
            "lookup-miss@16",
            "open-read-close",
            "create-write-unlink@16",
            "readdirplus",
            "read-4k@32",
            "write-4k@4",
            "read-1m",
            "write-1m",
        ] {
            let line = table
                .lines()
                .find(|line| line.split_whitespace().next() == Some(workload));
            let rate = line.and_then(|line| line.split_whitespace().nth(2)?.parse::<f64>().ok());
            assert!(rate.is_some_and(|rate| rate > 0.0), "{workload} has no rate in {table}");
        }
        let (ring, queues) = if options.is_empty() {
            ("split", 1)
        } else {
            ("packed", 2)
        };
        assert!(
            table.contains(&format!("innkeeper: {ring}, {queues} request queue(s)")),
            "{table}"
        );
        assert!(table.contains("innkeeper#2: split, 1 request queue(s)"), "{table}");
        assert!(is_empty(directory.path()));
    }
}

#[test]
fn a_daemon_that_does_not_start_is_told_in_one_sentence_with_its_last_words() {
    let directory = tempfile::tempdir().unwrap();
    let output = bench(directory.path(), &["--against", "/no/such/daemon {socket} {directory}"]);
    assert_refused(
        &output,
        1,
        &["daemon ended (exit status: 127)", "/no/such/daemon", "{socket}"],
    );
    assert!(is_empty(directory.path()));
}

#[test]
fn a_directory_that_cannot_be_written_to_is_refused() {
    let output = bench(Path::new("/proc"), &[]);
    assert_refused(&output, 1, &["cannot make files to measure with in /proc"]);
}

#[test]
fn wrong_options_are_told_with_what_would_be_right() {
    for (option, value, part) in [
        ("--workload", "read", "choose one of getattr, lookup"),
        ("--workload", "read-4k@1000", "1 to 64"),
        ("--seconds-per-round", "0", "0.001 to 3600"),
    ] {
        let output = innkeeper(["bench", "/tmp", option, value]).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(part), "{output:?}");
    }
}
