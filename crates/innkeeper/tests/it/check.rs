use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use std::thread;

use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::{assert_refused, innkeeper};

const NOBODY: u32 = 65534;
/// The list of virtiofsd 1.14.
const VIRTIOFSD: u64 = 107;

/// Runs `check` as this user or, if this is root, as an ordinary one.
fn check(user: bool, arguments: &[&str]) -> Option<Output> {
    let directory = TempDir::new().unwrap();
    // Whoever builds may keep others out of the directory of the program.
    let program = directory.path().join("innkeeper");
    fs::copy(env!("CARGO_BIN_EXE_innkeeper"), &program).unwrap();
    let temporary = directory.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let mut command = Command::new(&program);
    command.arg("check").args(arguments).env("TMPDIR", &temporary);
    if user {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root can become another user");
            return None;
        }
        for path in [directory.path(), &temporary] {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().unwrap();
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "nothing is left behind");
    Some(output)
}

#[rstest]
fn no_device_makes_a_call_that_its_list_lacks_or_lists_one_that_nothing_makes(
    #[values("share", "rng")] device: &str,
    #[values(false, true)] user: bool,
) {
    let Some(output) = check(user, &[device, "--json"]) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stdout)
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let [report] = report["devices"].as_array().unwrap().as_slice() else {
        panic!("one device was asked for: {report}")
    };
    let calls = &report["system_calls"];
    let names = |list: &str| calls[list].as_array().unwrap().clone();
    assert_eq!(names("killed"), Vec::<Value>::new());
    let host = report["host"].as_array().unwrap();
    // Only some sandboxes and file systems have handles.
    let handles = host
        .iter()
        .any(|need| need["what"] == "file handles" && need["works"] == true);
    let unused = names("unused").into_iter();
    let unused: Vec<Value> = unused.filter(|call| handles || call != "open_by_handle_at").collect();
    assert_eq!(unused, Vec::<Value>::new());
    assert!(calls["declared"].as_u64().unwrap() < VIRTIOFSD, "{calls}");
    assert_eq!(names("privileged").is_empty(), !user || device == "rng", "{calls}");
    let passes = report["passes"].as_array().unwrap();
    let operations = passes.iter().flat_map(|pass| pass["operations"].as_array().unwrap());
    let named: Vec<&str> = operations.map(|step| step["operation"].as_str().unwrap()).collect();
    if device == "share" {
        for opcode in fuse::wire::Opcode::ALL {
            let name = opcode.name();
            // SETLKW is the same as SETLK to a server without locks; a server never gets a NOTIFY_REPLY that it did not ask for.
            let done = named.iter().any(|step| step.split(' ').next() == Some(&name));
            assert!(
                done || matches!(&*name, "SETLKW" | "NOTIFY_REPLY"),
                "{name} is not tried"
            );
        }
    }
}

#[test]
fn a_signal_ends_it_and_nothing_is_left_behind() {
    let directory = TempDir::new().unwrap();
    let mut command = innkeeper(["check"]);
    let mut check = command.env("TMPDIR", directory.path()).spawn().unwrap();
    let files = || fs::read_dir(directory.path()).unwrap().count();
    while files() == 0 {
        assert_eq!(check.try_wait().unwrap(), None, "it begins with a directory");
        thread::yield_now();
    }
    kill_process(Pid::from_child(&check), Signal::TERM).unwrap();
    assert_eq!(check.wait().unwrap().code(), Some(128 + libc::SIGTERM));
    assert_eq!(files(), 0);
}

#[test]
fn the_report_for_people_says_what_was_chosen_and_what_the_host_has() {
    let output = check(false, &["share"]).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    for part in [
        "share: works",
        "sandbox: ",
        "operations: ",
        "system calls: ",
        "DAX: ",
        "file handles: ",
        "locks",
    ] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
}

#[test]
fn what_cannot_be_checked_is_told_in_a_sentence() {
    let output = innkeeper(["check", "share", "--directory", "/nowhere"])
        .output()
        .unwrap();
    assert_refused(&output, 1, &["/nowhere", "--directory"]);
    let output = innkeeper(["check", "floppy"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("floppy") && said.contains("share"), "{said}");
}
