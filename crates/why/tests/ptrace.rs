//! Commands that fail in known ways, run under ptrace on this kernel without privilege.

mod made;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use made::made;
use why::ptrace::{Error, Event, Failure, Outcome, Program, Report, run};

fn shell(script: &str) -> Report {
    run(["sh", "-c", script].map(Into::into).to_vec()).unwrap()
}

fn find<'a>(report: &'a Report, call: &str, argument: &str) -> Option<&'a Failure> {
    let mut failures = report.failures.iter();
    failures
        .find(|failure| failure.call.contains(call) && failure.arguments.iter().any(|shown| shown.contains(argument)))
}

#[test]
fn a_failed_open_is_told_with_path_and_errno() {
    let report = shell("cat /no/such/file 2>/dev/null");
    let failure = find(&report, "openat", "\"/no/such/file\"").unwrap();
    assert_eq!(failure.outcome, Outcome::Errno(libc::ENOENT));
    assert_eq!(failure.arguments[0], "AT_FDCWD");
    assert_eq!(
        failure.program.as_deref(),
        Some("cat"),
        "the child of the shell was followed over its exec"
    );
    assert_eq!(report.status, 1);
}

#[test]
fn descriptors_are_told_with_their_files() {
    let report = shell("cd / && echo x 2>/dev/null >/dev/full");
    let failure = find(&report, "write", "</dev/full>").unwrap();
    assert_eq!(failure.outcome.name(), "ENOSPC");
}

#[test]
fn the_status_of_the_command_is_kept() {
    assert_eq!(shell("exit 7").status, 7);
    assert_eq!(shell("kill -TERM $$").status, 128 + 15);
    assert_eq!(
        shell("trap 'exit 9' USR1; kill -USR1 $$; exit 1").status,
        9,
        "signals reach the command"
    );
}

#[test]
fn a_command_stopped_by_sigstop_waits_for_sigcont() {
    let report = shell("(sleep 0.2; kill -CONT $$) & kill -STOP $$; exit 5");
    assert_eq!(report.status, 5);
}

#[test]
fn places_in_which_a_program_was_looked_for_are_known_once_it_is_found() {
    let report = shell("PATH=/no/such:$PATH; env true; nowhere; true");
    let searching = |path: &str| find(&report, "", path).map(|failure| failure.searching);
    assert_eq!(searching("\"/no/such/env\""), Some(true), "{report:?}");
    assert_eq!(searching("\"/no/such/true\""), Some(true));
    assert_eq!(searching("\"/no/such/nowhere\""), Some(false));
}

#[test]
fn what_outlives_the_command_goes_on_untraced() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("number");
    shell(&format!("sleep 1000 & echo $! >{}", file.display()));
    let number = fs::read_to_string(file).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", number.trim())).unwrap();
    assert!(status.contains("TracerPid:\t0\n"), "{status}");
    shell(&format!("kill -KILL {number}"));
}

#[test]
fn a_command_that_cannot_be_executed_is_told_with_the_call_that_says_so() {
    let not_run = |report: &Report| report.not_run.as_ref().map(|not_run| not_run.errno);
    let report = run(vec!["/no/such/program".into()]).unwrap();
    assert_eq!(not_run(&report), Some(libc::ENOENT));
    let failure = find(&report, "execve", "\"/no/such/program\"").unwrap();
    assert_eq!(failure.outcome, Outcome::Errno(libc::ENOENT));
    let report = run(vec!["/etc/passwd".into()]).unwrap();
    assert_eq!(not_run(&report), Some(libc::EACCES));
    assert!(find(&report, "execve", "\"/etc/passwd\"").is_some());
    assert_eq!(not_run(&shell("exec /no/such/program")), None, "the shell was");
    assert!(matches!(run(Vec::new()), Err(Error::Command)));
}

#[test]
fn a_program_may_have_any_name() {
    let directory = tempfile::tempdir().unwrap();
    let cat = directory.path().join(OsStr::from_bytes(b"cat\xff"));
    fs::copy("/bin/cat", &cat).unwrap();
    let report = run(vec![cat.into(), "/no/such/file".into()]).unwrap();
    let failure = find(&report, "openat", "\"/no/such/file\"").unwrap();
    assert_eq!(failure.program.as_deref(), Some("cat\u{fffd}"));
}

#[test]
#[ignore = "makes the calls that other tests look at"]
fn runs_what_is_set_uid() {
    let program = std::env::var_os("SET_UID").unwrap();
    let report = run(vec![program.clone()]).unwrap();
    let sentence = format!("{} is set-uid, which the kernel ignores", program.display());
    assert!(report.withheld[0].starts_with(&sentence), "{:?}", report.withheld);
}

#[test]
fn what_a_program_may_not_under_a_tracer_is_told() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: it takes root to become another user");
    }
    let directory = tempfile::tempdir().unwrap();
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(directory.path(), 0o755);
    let program = directory.path().join("true");
    fs::copy("/bin/true", &program).unwrap();
    mode(&program, 0o4755);
    let report = run(vec![program.clone().into()]).unwrap();
    assert_eq!(report.withheld, Vec::<String>::new(), "root is given it");
    let mut test = Command::new(std::env::current_exe().unwrap());
    test.args(["runs_what_is_set_uid", "--exact", "--ignored"])
        .env("SET_UID", &program);
    match test.uid(65534).gid(65534).status() {
        Ok(status) => assert!(status.success()),
        Err(error) => eprintln!("skipped: another user cannot run this test: {error}"),
    }
}

#[test]
fn of_too_many_failures_the_first_and_the_last_are_kept() {
    let many = "n=0; while [ $n -lt 10500 ]; do [ -e /no/such ]; n=$((n + 1)); done";
    let report = shell(&format!("[ -e /no/such/first ]; {many}; [ -e /no/such/last ]"));
    assert!(find(&report, "", "/no/such/first").is_some());
    assert!(find(&report, "", "/no/such/last").is_some());
    assert_eq!(report.failures.len(), 10_000);
    let dropped: usize = report.failures.iter().map(|failure| failure.dropped_before).sum();
    assert_eq!(report.dropped, dropped as u64, "all of them were alike");
    assert!(dropped >= 500);
    assert_eq!(report.failures[5_000].dropped_before, dropped);
}

#[test]
fn calls_that_succeed_are_not_reported() {
    assert!(find(&shell("cat /dev/null"), "openat", "/dev/null").is_none());
}

#[test]
#[ignore = "makes the calls that other tests look at"]
fn refused_by_the_network() {
    let refused = std::net::TcpStream::connect("127.0.0.1:1").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::ECONNREFUSED));
    let missing = std::os::unix::net::UnixStream::connect("/no/such/socket").unwrap_err();
    assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let large = socket.send_to(&[0; 100_000], "127.0.0.1:9").unwrap_err();
    assert_eq!(large.raw_os_error(), Some(libc::EMSGSIZE));
}

#[test]
fn socket_addresses_are_told_as_people_write_them() {
    let report = made("refused_by_the_network");
    assert_eq!(report.status, 0);
    let arguments = |errno| {
        let mut failures = report.failures.iter();
        let failure = failures.find(|failure| failure.outcome == Outcome::Errno(errno) && failure.call != "openat");
        &failure.unwrap().arguments
    };
    assert_eq!(arguments(libc::ECONNREFUSED)[1..], ["127.0.0.1:1", "16"]);
    let unix = find(&report, "connect", "/no/such/socket").unwrap();
    assert_eq!(unix.arguments[1], "unix \"/no/such/socket\"");
    let sent = arguments(libc::EMSGSIZE);
    assert_eq!(sent[2..], ["100000", "MSG_NOSIGNAL", "127.0.0.1:9", "16"]);
}

#[test]
fn every_call_of_a_program_is_seen_and_its_status_is_told() {
    let mut command = Command::new("sh");
    command.args(["-c", "read line; echo $line; exit 3"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let program = Program::start(command).unwrap();
    let process = program.process;
    assert!(program.stdout.is_some());
    let mut calls = Vec::new();
    let enters = |event| match event {
        Event::Enters(call) => calls.push(call),
        Event::Starts { .. } => {}
    };
    assert_eq!(program.run(enters).unwrap(), 3);
    let writes: Vec<_> = calls
        .iter()
        .filter(|call| i64::try_from(call.number) == Ok(libc::SYS_write))
        .collect();
    assert!(
        writes
            .iter()
            .any(|call| call.thread == process && call.arguments[0] == 1),
        "{calls:?}"
    );
    assert_eq!(
        calls.last().map(|call| i64::try_from(call.number)),
        Some(Ok(libc::SYS_exit_group))
    );
}

#[test]
fn a_thread_of_a_program_is_told_before_its_calls() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["starts_threads", "--exact", "--ignored", "--test-threads=1"]);
    command.stdout(Stdio::null());
    let program = Program::start(command).unwrap();
    let first = program.process;
    let mut started = BTreeSet::from([first]);
    let mut calls_of_others = 0;
    let seen = |event| match event {
        Event::Enters(call) => {
            assert!(started.contains(&call.thread), "{call:?}");
            calls_of_others += usize::from(call.thread != first);
        }
        Event::Starts { thread, started: new } => {
            assert!(started.contains(&thread), "{event:?}");
            assert!(started.insert(new), "{event:?}");
        }
    };
    assert_eq!(program.run(seen).unwrap(), 0);
    assert!(started.len() > THREADS && calls_of_others >= THREADS, "{started:?}");
}

const THREADS: usize = 20;

#[test]
#[ignore = "for the test of threads"]
fn starts_threads() {
    for threads in [1, THREADS - 1] {
        let start = |_| std::thread::spawn(|| std::thread::sleep(std::time::Duration::from_nanos(1)));
        let threads: Vec<_> = (0..threads).map(start).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn a_program_that_is_not_there_is_told() {
    let error = Program::start(Command::new("/no/such/program")).unwrap_err();
    assert!(error.to_string().contains("No such file"), "{error}");
}
