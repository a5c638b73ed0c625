//! Attaching to running processes and detaching from them, on this kernel without privilege.
#![expect(unsafe_code, reason = "clone(2) has no safe interface")]

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread::{sleep, spawn};
use std::time::Duration;

use why::ptrace::{Error, Outcome, Process, Refusal, Report, Watch, attach};

const TICK: Duration = Duration::from_millis(20);
/// An end that no test waits for.
const LONG: Duration = Duration::from_secs(600);

/// A process that ends with the test.
struct Running(Child);

impl Running {
    fn shell(script: &str) -> Self {
        let child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        // What it prints says that it has begun.
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "begun\n");
        Self(child)
    }

    fn number(&self) -> i32 {
        self.0.id().cast_signed()
    }

    fn field(&self, name: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.number())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().split(' ').next().unwrap().to_owned()
    }

    fn until(&self, name: &str, wanted: &str) {
        while self.field(name) != wanted {
            sleep(TICK);
        }
    }

    fn until_traced(&self) {
        while self.field("TracerPid:") == "0" {
            sleep(TICK);
        }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.number().to_string()]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Who traced it to its end, as its parent, has heard of that.
        let _ended_before = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// Fails to open a file again and again, and adds a line to another one each time.
fn failing(progress: &std::path::Path) -> Running {
    let file = progress.display();
    Running::shell(&format!(
        "echo begun; exec >/dev/null 2>&1; while :; do cat /no/such/file; echo >>{file}; sleep 0.02; done"
    ))
}

fn lines(file: &std::path::Path) -> usize {
    fs::read_to_string(file).unwrap_or_default().lines().count()
}

/// It runs on, and nobody has a hand on it.
fn assert_goes_on(process: &Running, progress: &std::path::Path) {
    process.until("TracerPid:", "0");
    let before = lines(progress);
    while lines(progress) < before + 2 {
        sleep(TICK);
    }
}

fn attached(number: i32, time: Duration) -> Result<Report, Error> {
    let begun = &mut |threads| assert!(threads > 0);
    let time = Some(time);
    attach(Process { number, time, begun }, &mut ())
}

/// Attaches again and for longer until something was seen: on a busy machine a process does little in a short time.
fn attached_until(number: i32, seen: impl Fn(&Report) -> bool) -> Report {
    let mut time = Duration::from_millis(250);
    loop {
        let report = attached(number, time).unwrap();
        if seen(&report) || time > Duration::from_secs(10) {
            return report;
        }
        time *= 4;
    }
}

fn failed_with(report: &Report, argument: &str) -> bool {
    let mut shown = report.failures.iter().flat_map(|failure| &failure.arguments);
    shown.any(|shown| shown.contains(argument))
}

/// One of the ignored functions below, in a process of its own that works on another.
fn helper(case: &str, number: i32) -> Command {
    let mut helper = Command::new(std::env::current_exe().unwrap());
    helper.args([
        OsStr::new(case),
        "--exact".as_ref(),
        "--ignored".as_ref(),
        "--nocapture".as_ref(),
    ]);
    helper.env("PROCESS", number.to_string()).stdout(Stdio::null());
    helper
}

fn of_helper() -> i32 {
    std::env::var("PROCESS").unwrap().parse().unwrap()
}

#[test]
#[ignore = "is another process of the tests below"]
fn stays_attached() {
    attached(of_helper(), LONG).unwrap();
}

#[test]
#[ignore = "is another process of the tests below"]
fn is_refused_as_another_user() {
    let refused = attached(of_helper(), LONG).unwrap_err();
    assert!(
        matches!(refused, Error::Refused(Refusal::User { user: 0, .. })),
        "{refused}"
    );
    assert!(
        refused
            .to_string()
            .contains("belongs to user 0: run innkeeper as that user or as root")
    );
}

#[test]
#[ignore = "is another process of the tests below"]
fn fails_in_threads() {
    println!("begun");
    let threads: Vec<_> = ["/no/such/one", "/no/such/two", "/no/such/three"]
        .into_iter()
        .map(|path| {
            spawn(move || {
                loop {
                    fs::metadata(path).unwrap_err();
                    sleep(TICK);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// One thread waits, as for a disk, until there is a file; then a call of it fails, and all ends.
#[test]
#[ignore = "is another process of the tests below"]
fn waits_without_stopping() {
    let file = std::env::var_os("UNTIL").unwrap();
    let flags = libc::c_long::from(libc::CLONE_VFORK | libc::SIGCHLD);
    // SAFETY: without CLONE_VM the child has memory of its own, as after fork(2).
    if unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } == 0 {
        while fs::metadata(&file).is_err() {
            sleep(TICK);
        }
        // SAFETY: ends the child alone.
        unsafe { libc::_exit(0) };
    }
    fs::metadata("/no/such/file").unwrap_err();
    std::process::exit(0);
}

/// Keeps which threads it is told of, each time.
#[derive(Default)]
struct Started(Vec<Vec<i32>>);

impl Watch for Started {
    fn started(&mut self, threads: &[i32]) {
        self.0.push(threads.to_vec());
    }
    fn entered(&mut self, _: i32, _: u64) {}
    fn left(&mut self, _: i32, _: bool) {}
    fn ended(&mut self, _: i32) {}
}

/// Else the end of a call whose beginning nobody saw would pass for one of the calls that come after it.
#[test]
fn a_thread_in_the_middle_of_a_call_is_told_of_when_that_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    let helper = helper("waits_without_stopping", 0).env("UNTIL", &file).spawn();
    let process = Running(helper.unwrap());
    let busy = loop {
        let tasks = fs::read_dir(format!("/proc/{}/task", process.number())).unwrap();
        let busy = tasks.flatten().find(|task| {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            status.contains("State:\tD")
        });
        if let Some(task) = busy {
            break task.file_name().to_str().unwrap().parse::<i32>().unwrap();
        }
        sleep(TICK);
    };
    let mut started = Started::default();
    let begun = &mut |threads| {
        assert_eq!(threads, 2);
        fs::write(&file, "").unwrap();
    };
    let process = Process {
        number: process.number(),
        time: None,
        begun,
    };
    let report = attach(process, &mut started).unwrap();
    let [first, second] = <[Vec<i32>; 2]>::try_from(started.0).unwrap();
    assert!(first.len() == 1 && !first.contains(&busy), "{first:?} {busy}");
    assert_eq!(second, [busy]);
    assert!(failed_with(&report, "/no/such/file"));
}

#[test]
fn failures_of_a_running_process_and_its_new_children_are_told_and_it_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let progress = directory.path().join("progress");
    let process = failing(&progress);
    let report = attached_until(process.number(), |report| failed_with(report, "/no/such/file"));
    let found = report.failures.iter().find(|failure| {
        failure.call == "openat" && failure.arguments.iter().any(|shown| shown.contains("/no/such/file"))
    });
    assert_eq!(found.unwrap().outcome, Outcome::Errno(libc::ENOENT));
    assert_eq!(found.unwrap().program.as_deref(), Some("cat"));
    assert_eq!(report.status, 0);
    assert_goes_on(&process, &progress);
}

#[test]
fn every_thread_of_a_process_is_traced_and_let_go() {
    let process = Running(helper("fails_in_threads", 0).spawn().unwrap());
    // The main thread, the one of the test, and three.
    process.until("Threads:", "5");
    let paths = ["/no/such/one", "/no/such/two", "/no/such/three"];
    let report = attached_until(process.number(), |report| {
        paths.iter().all(|path| failed_with(report, path))
    });
    for path in paths {
        assert!(failed_with(&report, path), "{path}");
    }
    for thread in fs::read_dir(format!("/proc/{}/task", process.number())).unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        assert!(status.contains("TracerPid:\t0\n"), "{status}");
        assert!(!status.contains("State:\tt"), "{status}");
    }
}

#[test]
fn a_stopped_process_stays_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let progress = directory.path().join("progress");
    let process = failing(&progress);
    process.signal("-STOP");
    process.until("State:", "T");
    let report = attached(process.number(), Duration::from_millis(100)).unwrap();
    assert_eq!(report.failures, []);
    process.until("TracerPid:", "0");
    process.until("State:", "T");
    process.signal("-CONT");
    assert_goes_on(&process, &progress);
}

#[test]
fn a_process_that_is_stopped_and_continued_while_it_is_traced_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let progress = directory.path().join("progress");
    let process = failing(&progress);
    let mut helper = helper("stays_attached", process.number()).spawn().unwrap();
    process.until_traced();
    process.signal("-STOP");
    sleep(TICK);
    process.signal("-CONT");
    let before = lines(&progress);
    while lines(&progress) < before + 2 {
        sleep(TICK);
    }
    helper.kill().unwrap();
    helper.wait().unwrap();
    assert_goes_on(&process, &progress);
}

#[test]
fn a_process_goes_on_when_its_tracer_is_asked_to_let_go_or_killed() {
    let directory = tempfile::tempdir().unwrap();
    let progress = directory.path().join("progress");
    let process = failing(&progress);
    for signal in ["-INT", "-TERM", "-HUP", "-KILL"] {
        let mut tracer = Running(helper("stays_attached", process.number()).spawn().unwrap());
        process.until_traced();
        tracer.signal(signal);
        let status = tracer.0.wait().unwrap();
        assert_eq!(status.success(), signal != "-KILL", "{signal}: {status}");
        assert_goes_on(&process, &progress);
    }
}

#[test]
fn the_end_of_the_process_is_the_end_of_the_report() {
    let process = Running::shell(
        "echo begun; until grep -q 'TracerPid:.[1-9]' /proc/$$/status; do sleep 0.1; done; cat /no/such/file 2>/dev/null; exit 7",
    );
    let report = attached(process.number(), LONG).unwrap();
    assert_eq!(report.status, 7);
    assert!(
        report
            .failures
            .iter()
            .any(|failure| failure.program.as_deref() == Some("cat"))
    );
}

#[test]
fn a_process_that_is_traced_already_is_refused_with_its_tracers_name() {
    let directory = tempfile::tempdir().unwrap();
    let progress = directory.path().join("progress");
    let process = failing(&progress);
    let mut tracer = Running(helper("stays_attached", process.number()).spawn().unwrap());
    process.until_traced();
    let refused = attached(process.number(), LONG).unwrap_err();
    assert!(matches!(refused, Error::Refused(Refusal::Traced { .. })), "{refused}");
    assert!(refused.to_string().contains("is already traced by "), "{refused}");
    tracer.0.kill().unwrap();
    tracer.0.wait().unwrap();
    assert_goes_on(&process, &progress);
}

#[test]
fn a_process_of_another_user_is_refused() {
    // Of root's rights that matter here a user has none.
    let process = Running::shell("echo begun; exec sleep 60");
    if process.field("Uid:").split('\t').next() != Some("0") {
        return eprintln!("skipped: it takes root to become another user");
    }
    let mut helper = helper("is_refused_as_another_user", process.number());
    match helper.uid(65534).gid(65534).status() {
        Ok(status) => assert!(status.success()),
        Err(error) => eprintln!("skipped: another user cannot run this test: {error}"),
    }
}

#[test]
fn there_is_no_such_process() {
    let refused = attached(i32::MAX, LONG).unwrap_err();
    assert_eq!(refused.to_string(), "there is no process 2147483647");
}
