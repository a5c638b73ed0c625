use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::bench::in_memory;
use crate::mount::{end_of, permitted, wait_for};
use crate::{assert_refused, innkeeper};

const TOOLS: [&str; 6] = ["untar", "git-status", "git-clone", "rm", "grep", "compile"];

/// The least that there is to do.
const TINY: [&str; 4] = ["--rounds", "1", "--tree-files", "24"];
/// So much that something can happen meanwhile.
const ENDLESS: [&str; 4] = ["--rounds", "1000000", "--tree-files", "3000"];

fn bench(directory: &Path, size: [&str; 4], tools: &[&str]) -> Command {
    let mut command = innkeeper(["bench"]);
    command.arg(directory).args(size);
    for tool in tools {
        command.args(["--workload", tool]);
    }
    command
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

/// Whether the programs of all tools are there, as they are wherever the project is built.
fn installed() -> bool {
    let all = ["tar", "git", "rm", "grep", "cc"];
    let installed = all
        .iter()
        .all(|program| Command::new(program).arg("--version").output().is_ok());
    if !installed {
        eprintln!("SKIPPED: not all of {all:?} are installed");
    }
    installed
}

#[test]
fn tools_work_on_a_mount_of_each_daemon_and_on_the_host_and_leave_nothing_behind() {
    if !permitted() || !installed() {
        return;
    }
    for options in [&[][..], &["--packed", "--queues", "2"]] {
        let directory = in_memory();
        let results = tempfile::tempdir().unwrap();
        let (json, svg) = (results.path().join("json"), results.path().join("svg"));
        let own = env!("CARGO_BIN_EXE_innkeeper");
        let mut command = bench(directory.path(), TINY, &TOOLS);
        command
            .args(options)
            .arg("--json")
            .arg(&json)
            .arg("--plot")
            .arg(&svg)
            .args(["--against"])
            .arg(format!(
                "{own} share {{directory}} --socket-path {{socket}} --ring split"
            ));
        let output = command.output().unwrap();
        let table = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stderr.is_empty(), "no line of progress where no terminal is");
        assert!(!table.contains("Over the ring"), "no ring was driven: {table}");
        let report: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
        let workloads = report["workloads"].as_array().unwrap();
        assert_eq!(workloads.len(), TOOLS.len());
        for (workload, tool) in workloads.iter().zip(TOOLS) {
            assert_eq!(workload["name"], tool);
            assert_eq!(workload["unit"], "runs");
            assert!(
                table.lines().any(|line| line.starts_with(tool)),
                "{tool} is missing in {table}"
            );
            let results = workload["results"].as_array().unwrap();
            assert_eq!(results.len(), 3, "ours, the other and the host");
            for result in results {
                let (rate, time) = (&result["rate"]["median"], &result["p50_ns"]);
                let product = rate.as_f64().unwrap() * time.as_f64().unwrap();
                assert!((product / 1e9 - 1.0).abs() < 1e-6, "a rate is runs a second");
            }
            // Faster is more: our rate in times of the other's, which is the other's time in times of ours.
            let time = |who: usize| results[who]["p50_ns"].as_f64().unwrap();
            let ratio = results[1]["ratio"]["median"].as_f64().unwrap();
            assert!((ratio - time(1) / time(0)).abs() < 1e-6);
            let cpu = |who: usize| &results[who]["cpu_ns"];
            assert!(cpu(0).as_f64().unwrap() > 0.0 && cpu(2).is_null());
        }
        let svg = fs::read_to_string(svg).unwrap();
        assert_eq!(svg.matches("<rect class=\"bar").count(), 2 * TOOLS.len() + 2);
        assert!(is_empty(directory.path()));
    }
}

/// A bench that goes on until somebody ends it, and what it has started.
struct Endless {
    bench: Child,
    /// Held so that it can go on printing.
    _lines: Lines<BufReader<ChildStdout>>,
    mount: u32,
    daemon: u32,
}

impl Endless {
    fn start(directory: &Path) -> Self {
        let mut command = bench(directory, ENDLESS, &["grep"]);
        let mut bench = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(bench.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("Tools on a mount")));
        let child = |is_it: &dyn Fn(u32, &str) -> bool| {
            let mut found = None;
            wait_for(|| {
                found = children(bench.id()).into_iter().find(|&child| {
                    let line = fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
                    is_it(child, &line.replace('\0', " "))
                });
                found.is_some()
            });
            found.unwrap()
        };
        let mount = child(&|child, line| line.contains(" mount ") && mounts(child).contains("fuse.innkeeper"));
        let daemon = child(&|_, line| line.contains(" share ") && line.contains("/workshop/"));
        Self {
            mount,
            daemon,
            bench,
            _lines: lines,
        }
    }
}

fn children(process: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    children
        .split_whitespace()
        .map(|child| child.parse().unwrap())
        .collect()
}

/// What is mounted where that process sees it.
fn mounts(process: u32) -> String {
    fs::read_to_string(format!("/proc/{process}/mounts")).unwrap_or_default()
}

fn is_gone(process: u32) -> bool {
    // A zombie is nobody's any more, and waits for its parent or for init.
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(") ")
        .next()
        .is_none_or(|rest| rest.is_empty() || rest.starts_with('Z'))
}

#[test]
fn a_signal_ends_it_and_no_mount_nor_daemon_is_left() {
    if !permitted() {
        return;
    }
    let directory = in_memory();
    let mut endless = Endless::start(directory.path());
    assert!(
        !mounts(std::process::id()).contains(directory.path().to_str().unwrap()),
        "nobody else sees the mount"
    );
    let started = children(endless.bench.id());
    kill_process(Pid::from_child(&endless.bench), Signal::INT).unwrap();
    assert_eq!(end_of(&mut endless.bench).code(), Some(130));
    assert!(is_empty(directory.path()));
    for process in started {
        assert!(is_gone(process));
    }
}

#[test]
fn killed_itself_it_leaves_neither_mount_nor_process() {
    if !permitted() {
        return;
    }
    let directory = in_memory();
    let mut endless = Endless::start(directory.path());
    let started = children(endless.bench.id());
    endless.bench.kill().unwrap();
    end_of(&mut endless.bench);
    for process in started {
        wait_for(|| is_gone(process));
    }
}

#[test]
fn a_mount_or_a_daemon_that_ends_in_the_middle_is_an_error_and_no_hang() {
    if !permitted() {
        return;
    }
    for victim in [|endless: &Endless| endless.mount, |endless: &Endless| endless.daemon] {
        let directory = in_memory();
        let endless = Endless::start(directory.path());
        let victim = Pid::from_raw(victim(&endless).cast_signed()).unwrap();
        kill_process(victim, Signal::KILL).unwrap();
        let output = endless.bench.wait_with_output().unwrap();
        // Whether while it was at work, before or after.
        assert_refused(&output, 1, &["cannot drive innkeeper: ", "its last message: "]);
        assert!(is_empty(directory.path()));
    }
}

/// Everything that the tools need, apart from `missing`.
fn programs_without(missing: &[&str], directory: &Path) {
    let path = std::env::var_os("PATH").unwrap();
    for program in ["tar", "git", "rm", "grep", "cc", "as", "ld"] {
        let found = std::env::split_paths(&path).map(|directory| directory.join(program));
        if let Some(found) = found
            .into_iter()
            .find(|found| found.is_file() && !missing.contains(&program))
        {
            symlink(found, directory.join(program)).unwrap();
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_tool_that_is_not_installed_is_told_in_a_sentence_and_the_others_go_on() {
    if !permitted() {
        return;
    }
    let (directory, programs) = (in_memory(), tempfile::tempdir().unwrap());
    programs_without(&["git", "cc"], programs.path());
    let output = bench(directory.path(), TINY, &["git-status", "rm", "git-clone", "compile"])
        .env("PATH", programs.path())
        .output()
        .unwrap();
    let said = said(&output);
    let sentences: Vec<_> = said.lines().collect();
    assert_eq!(sentences.len(), 2, "{said}");
    assert_eq!(
        sentences[0],
        "innkeeper: not measured: git-status, git-clone, since there is no git; install it (Debian: apt-get install git)"
    );
    assert!(sentences[1].contains("compile, since there is no cc;"), "{said}");
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.lines().any(|line| line.starts_with("rm ")), "{table}");
    assert_eq!(
        output.status.code(),
        Some(1),
        "what was asked for by name was not measured"
    );
}

#[test]
fn who_may_not_mount_is_told_so_and_the_ring_is_measured_all_the_same() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: another user's rights are taken by root alone");
        return;
    }
    let directory = in_memory();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let program = directory.path().join("innkeeper");
    fs::copy(env!("CARGO_BIN_EXE_innkeeper"), &program).unwrap();
    let output = Command::new(program)
        .arg("bench")
        .arg(directory.path())
        .args(TINY)
        .args([
            "--workload",
            "grep",
            "--workload",
            "getattr",
            "--data-mib",
            "1",
            "--seconds-per-round",
            "0.001",
        ])
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let said = said(&output);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.starts_with("innkeeper: not measured: grep, since ") && said.contains("as root"),
        "{said}"
    );
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.lines().any(|line| line.starts_with("getattr ")), "{table}");
    assert_eq!(output.status.code(), Some(1));
}
