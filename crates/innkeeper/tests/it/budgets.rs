//! Rules of the page docs/share.md, "Budgets".

use std::fs;
use std::process::Stdio;

use driver::fs::{ROOT, field_u64};
use tempfile::TempDir;

use crate::complaint;
use crate::error_log::{program, with_data};
use crate::innkeeper;
use crate::session::Session;

/// A directory with a directory `data`, in which there are `count` files.
fn with_files(count: usize) -> TempDir {
    let directory = with_data();
    for number in 0..count {
        fs::write(directory.path().join(format!("data/f{number}")), "").unwrap();
    }
    directory
}

/// Looks up the file of this number.
fn look_up(session: &mut Session, number: usize) -> Result<u64, i32> {
    let entry = session.ask(|requests| requests.lookup(ROOT, format!("f{number}").as_bytes()))?;
    Ok(field_u64(&entry, 0))
}

/// Resident memory in bytes.
fn resident(session: &Session) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", session.process())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes = line.trim().strip_suffix(" kB").unwrap();
    kilobytes.parse::<usize>().unwrap() << 10
}

#[test]
fn a_guest_that_only_looks_up_grows_the_daemon_by_its_budget_and_old_nodes_work() {
    const LIMIT: usize = 10_000;
    /// For 20,000 nodes, the daemon would need more than three times as much.
    const NOISE: usize = 1 << 20;
    let options = ["--max-nodes", &LIMIT.to_string()];
    let mut session = Session::start(&mut program(), "data", &options, with_files(3 * LIMIT));
    let nodes: Vec<u64> = (0..LIMIT)
        .map(|number| look_up(&mut session, number).unwrap())
        .collect();
    let before = resident(&session);
    for number in LIMIT..3 * LIMIT {
        assert_eq!(look_up(&mut session, number), Err(libc::ENFILE));
    }
    let after = resident(&session);
    assert!(after < before + NOISE, "from {before} to {after} bytes");
    for (number, node) in nodes.into_iter().enumerate() {
        session.ask(|requests| requests.getattr(node)).unwrap();
        assert_eq!(look_up(&mut session, number), Ok(node));
    }
}

#[test]
fn the_log_of_errors_names_the_option_of_the_limit() {
    let mut command = program();
    let options = ["--max-nodes", "64", "--log-errors"];
    let mut session = Session::start(command.stderr(Stdio::piped()), "data", &options, with_files(65));
    for number in 0..64 {
        look_up(&mut session, number).unwrap();
    }
    assert_eq!(look_up(&mut session, 64), Err(libc::ENFILE));
    let made = session.ask(|requests| requests.create(ROOT, b"new", 2, 0o644));
    assert_eq!(made, Err(libc::ENFILE));
    let (said, directory) = session.end();
    assert!(!directory.path().join("data/new").exists());
    let rule = "refused: the guest knows as many files as it may (--max-nodes)";
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines.iter().all(|line| line.ends_with(rule)), "{said}");
}

/// Files of procfs are read by helper threads if there are any.
#[test]
fn reads_that_wait_take_no_more_threads_than_allowed() {
    for most in [0, 1] {
        let options = ["--helper-threads", &most.to_string()];
        let mut session = Session::start(&mut program(), "/proc/self", &options, TempDir::new().unwrap());
        let entry = session.ask(|requests| requests.lookup(ROOT, b"status")).unwrap();
        let node = field_u64(&entry, 0);
        let opened = session.ask(|requests| requests.open(node, 0)).unwrap();
        for _ in 0..10 {
            let read = session.ask(|requests| requests.read(node, field_u64(&opened, 0), 0, 4096));
            assert!(read.unwrap().starts_with(b"Name:"));
        }
        let tasks = fs::read_dir(format!("/proc/{}/task", session.process())).unwrap();
        let names = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap());
        assert_eq!(names.filter(|name| name.starts_with("helper-")).count(), most);
    }
}

#[test]
fn limits_out_of_range_are_refused() {
    for option in ["--max-nodes=63", "--max-deferred-reads=0", "--helper-threads=257"] {
        let output = innkeeper(["share", "/", "--socket-path", "/nowhere/socket", option])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        let (name, _) = option.split_once('=').unwrap();
        assert!(complaint(&output).contains(name), "{}", complaint(&output));
    }
}
