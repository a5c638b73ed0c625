use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::{assert_refused, innkeeper};

/// Enough of everything to run each message once.
const TINY: [&str; 14] = [
    "--tree-files",
    "24",
    "--known-files",
    "20",
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

/// A place where a disk need not come to rest first.
pub(crate) fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

#[test]
fn every_workload_runs_on_split_and_packed_rings_and_leaves_nothing_behind() {
    // Tools are among them where mounts are possible.
    let count = if crate::mount::permitted() { 26 } else { 20 };
    for options in [&[][..], &["--packed", "--queues", "2"]] {
        let directory = in_memory();
        // A second daemon of ours, given as a user would give another one.
        let own = env!("CARGO_BIN_EXE_innkeeper");
        let other = format!("{own} share {{directory}} --socket-path {{socket}} --ring split");
        let results = tempfile::tempdir().unwrap();
        let (json, svg) = (results.path().join("json"), results.path().join("svg"));
        let files = ["--json", json.to_str().unwrap(), "--plot", svg.to_str().unwrap()];
        let output = bench(directory.path(), &[options, &["--against", &other], &files].concat());
        let table = String::from_utf8(output.stdout).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(
            count == 20 || said.is_empty(),
            "no line of progress where no terminal is: {said}"
        );
        let report: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
        assert_eq!(report["version"], 1);
        // Not those of the driver, which was bound to some of them.
        let processors = rustix::thread::sched_getaffinity(None).unwrap().count();
        assert_eq!(report["processors"], processors);
        assert_eq!(report["workloads"].as_array().unwrap().len(), count);
        for workload in report["workloads"].as_array().unwrap() {
            let name = workload["name"].as_str().unwrap();
            assert!(
                table.lines().any(|line| line.starts_with(name)),
                "{name} is missing in {table}"
            );
            let results = workload["results"].as_array().unwrap();
            assert_eq!(results.len(), 3, "ours, the other and the host");
            for result in results {
                assert!(result["rate"]["median"].as_f64().unwrap() > 0.0, "{name} has no rate");
                assert!(result["p50_ns"].as_f64() <= result["p99_ns"].as_f64(), "{name}");
                assert_eq!(result["rounds"].as_array().unwrap().len(), 1);
                let counted = workload["unit"] != "runs" && crate::mount::permitted();
                assert_eq!(result["syscalls"].is_number(), counted, "{name}: {result}");
            }
            if let ("getattr", Some(calls)) = (name, results[2]["syscalls"].as_f64()) {
                assert!((1.0..1.5).contains(&calls), "one statx each, and {calls} are counted");
            }
            assert!(results[0]["ratio"].is_null());
            assert!(results[1]["ratio"]["median"].as_f64().unwrap() > 0.0);
        }
        let figures = report["figures"].as_array().unwrap();
        let names: Vec<_> = figures.iter().map(|figure| figure["name"].as_str().unwrap()).collect();
        for name in ["ready to serve", "CPU time in 2 s of idleness", "memory a known file"] {
            assert!(names.contains(&name), "{name} is missing in {names:?}");
        }
        assert!(
            figures
                .iter()
                .all(|figure| figure["values"].as_array().unwrap().len() == 2)
        );
        let svg = fs::read_to_string(svg).unwrap();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert_eq!(
            svg.matches("<rect class=\"bar").count(),
            2 * count + 2,
            "a bar each, and the legend"
        );
        let (ring, queues, plural) = if options.is_empty() {
            ("split", 1, "")
        } else {
            ("packed", 2, "s")
        };
        assert!(
            table.contains(&format!("innkeeper: {ring} ring, {queues} request queue{plural}:")),
            "{table}"
        );
        assert!(
            table.contains("innkeeper, ring split: split ring, 1 request queue:"),
            "{table}"
        );
        assert!(is_empty(directory.path()));
    }
}

#[test]
fn a_signal_ends_it_and_files_and_daemons_are_gone() {
    let directory = in_memory();
    let mut command = innkeeper(["bench"]);
    let mut child = command
        .arg(directory.path())
        .args([
            "--seconds-per-round",
            "3600",
            "--workload",
            "getattr",
            "--data-mib",
            "1",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The heading comes when the daemon serves.
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("host: no daemon")));
    let daemons = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
    assert_eq!(daemons.split_whitespace().count(), 1);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(is_empty(directory.path()));
    assert!(!Path::new("/proc").join(daemons.trim()).exists());
}

#[test]
fn a_daemon_that_does_not_start_is_told_in_one_sentence_with_its_last_words() {
    let directory = in_memory();
    let output = bench(directory.path(), &["--against", "/no/such/daemon {socket} {directory}"]);
    assert_refused(
        &output,
        1,
        &["daemon ended (exit status: 127)", "/no/such/daemon", "{socket}"],
    );
    assert!(is_empty(directory.path()));
}

#[test]
fn the_limit_of_open_files_is_the_one_that_was_asked_for() {
    let (directory, results) = (in_memory(), tempfile::tempdir().unwrap());
    let limit = results.path().join("limit");
    // A daemon inherits it, and this one ends at once.
    let daemon = format!("sh -c 'ulimit -n > {}' {{socket}} {{directory}}", limit.display());
    let output = bench(directory.path(), &["--rlimit-nofile", "500", "--against", &daemon]);
    assert_refused(&output, 1, &["sh ended"]);
    assert_eq!(fs::read_to_string(limit).unwrap().trim(), "500");
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
