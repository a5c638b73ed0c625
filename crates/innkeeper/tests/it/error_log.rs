use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use driver::fs::{ROOT, Requests, field_u64};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::session::{Daemon, Session};
use crate::{assert_refused, complaint, innkeeper};

impl Session {
    pub(crate) fn start(command: &mut Command, shared: &str, options: &[&str], directory: TempDir) -> Self {
        command.arg("share").arg(directory.path().join(shared));
        command.arg("--socket-path").arg(directory.path().join("socket"));
        let daemon = Daemon::run(command.args(options).current_dir(directory.path()), directory);
        Self::of(daemon, Requests::new(1000, 100))
    }

    /// The daemon's process id.
    pub(crate) fn process(&self) -> u32 {
        self.daemon.child.id()
    }

    /// Ends the daemon; what it said on standard error, if that was piped.
    pub(crate) fn end(mut self) -> (String, TempDir) {
        assert_eq!(self.daemon.signal(Signal::TERM).code(), Some(0));
        let mut said = String::new();
        if let Some(mut stderr) = self.daemon.child.stderr.take() {
            stderr.read_to_string(&mut said).unwrap();
        }
        let directory = std::mem::replace(&mut self.daemon.directory, TempDir::new().unwrap());
        (said, directory)
    }
}

pub(crate) fn program() -> Command {
    innkeeper([""; 0])
}

pub(crate) fn with_data() -> TempDir {
    let directory = TempDir::new().unwrap();
    fs::create_dir(directory.path().join("data")).unwrap();
    directory
}

/// Without the time, which is in front.
fn untimed(line: &str) -> &str {
    let (time, rest) = line.split_once(' ').unwrap();
    assert!(time.len() == 27 && time.ends_with('Z'), "{time} is no time");
    rest
}

#[test]
fn standard_error_gets_a_line_for_each_errno_and_for_nothing_else() {
    let mut session = Session::start(program().stderr(Stdio::piped()), "data", &["--log-errors"], with_data());
    session.ask(|requests| requests.mkdir(ROOT, b"d", 0o755)).unwrap();
    assert_eq!(
        session.ask(|requests| requests.mkdir(ROOT, b"d", 0o755)),
        Err(libc::EEXIST)
    );
    assert_eq!(
        session.ask(|requests| requests.lookup(99, b"x: \"\n2026-01-01 forged")),
        Err(libc::ESTALE)
    );
    let (said, _) = session.end();
    let pid = format!("pid={}", std::process::id());
    let lines: Vec<_> = said.lines().map(|line| untimed(line).replace(&pid, "PID")).collect();
    assert_eq!(
        lines,
        [
            r#"MKDIR unique=6 uid=1000 gid=100 PID "/d": EEXIST: mkdirat(parent, "d", 0755) = EEXIST"#,
            r#"LOOKUP unique=8 uid=1000 gid=100 PID "?/x: \"\x0a2026-01-01 forged": ESTALE: refused: unknown nodeid"#,
        ]
    );
}

#[test]
fn a_guest_reads_the_log_that_lies_in_its_share() {
    let options = ["--log-errors=json", "--log-errors-to", "data/errors.log"];
    let mut session = Session::start(&mut program(), "data", &options, with_data());
    let forged = b"a\",\"errno\":\"EPERM\"}\n{\"version\":1}\xff";
    assert_eq!(session.ask(|requests| requests.unlink(ROOT, forged)), Err(libc::ENOENT));
    let entry = session.ask(|requests| requests.lookup(ROOT, b"errors.log")).unwrap();
    let node = field_u64(&entry, 0);
    let opened = session.ask(|requests| requests.open(node, 0)).unwrap();
    let log = session.ask(|requests| requests.read(node, field_u64(&opened, 0), 0, 8192));
    let log = String::from_utf8(log.unwrap()).unwrap();
    assert_eq!(log.lines().count(), 1);
    let mut line: Value = serde_json::from_str(&log).unwrap();
    untimed(&format!("{} ", line["time"].take().as_str().unwrap()));
    let name = r#"a\",\"errno\":\"EPERM\"}\x0a{\"version\":1}\xff"#;
    assert_eq!(
        line,
        json!({
            "version": 1, "time": null, "operation": "UNLINK", "unique": 4, "node": 1, "path": format!("/{name}"), "to": null,
            "uid": 1000, "gid": 100, "pid": std::process::id(), "errno": "ENOENT", "call": format!("unlinkat(parent, \"{name}\", 0) = ENOENT"),
            "rule": null
        })
    );
    let (_, directory) = session.end();
    let log = directory.path().join("data/errors.log");
    assert_eq!(fs::metadata(&log).unwrap().mode() & 0o777, 0o600);
    // The next daemon adds to it.
    let mut session = Session::start(&mut program(), "data", &options, directory);
    assert_eq!(session.ask(|requests| requests.unlink(ROOT, b"x")), Err(libc::ENOENT));
    let (_, directory) = session.end();
    assert_eq!(
        fs::read_to_string(directory.path().join("data/errors.log"))
            .unwrap()
            .lines()
            .count(),
        2
    );
}

/// Files of procfs are read by helper threads; at 0 of a process' memory is nothing to be read.
#[test]
fn a_read_that_fails_in_a_helper_is_told_once() {
    let mut session = Session::start(
        &mut program(),
        "/proc/self",
        &["--log-errors", "--log-errors-to", "errors.log"],
        TempDir::new().unwrap(),
    );
    let entry = session.ask(|requests| requests.lookup(ROOT, b"mem")).unwrap();
    let node = field_u64(&entry, 0);
    let opened = session.ask(|requests| requests.open(node, 0)).unwrap();
    let handle = field_u64(&opened, 0);
    assert_eq!(
        session.ask(|requests| requests.read(node, handle, 0, 64)),
        Err(libc::EIO)
    );
    let (_, directory) = session.end();
    let log = fs::read_to_string(directory.path().join("errors.log")).unwrap();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert_eq!(
        untimed(&log).replace(&format!("pid={}", std::process::id()), "PID"),
        "READ unique=8 uid=1000 gid=100 PID \"/mem\": EIO: preadv2(file, 64 bytes, at 0) = EIO\n"
    );
}

/// RLIMIT_FSIZE stands for a full disk: EFBIG in place of ENOSPC.
#[test]
fn a_log_that_cannot_be_written_fails_no_request_and_its_lost_lines_are_counted() {
    const ASKED: usize = 100;
    let mut command = Command::new("/bin/sh");
    let limited = "ulimit -f 8; exec \"$@\"";
    command.args(["-c", limited, "sh", env!("CARGO_BIN_EXE_innkeeper")]);
    let mut session = Session::start(
        command.stderr(Stdio::piped()),
        "data",
        &["--log-errors", "--log-errors-to", "errors.log"],
        with_data(),
    );
    for _ in 0..ASKED {
        assert_eq!(session.ask(|requests| requests.lookup(ROOT, b"x")), Err(libc::ENOENT));
    }
    session.ask(|requests| requests.mkdir(ROOT, b"d", 0o755)).unwrap();
    let (said, directory) = session.end();
    let log = fs::read_to_string(directory.path().join("errors.log")).unwrap();
    let written = log.lines().filter(|line| line.ends_with(" = ENOENT")).count();
    let [complaint, count] = said.lines().collect::<Vec<_>>()[..] else {
        panic!("two lines: {said}")
    };
    assert!(
        complaint.contains("cannot write the error log: File too large"),
        "{said}"
    );
    assert!(
        count.contains(&format!("lacks {} lines", ASKED - written)),
        "{written} of {ASKED}: {said}"
    );
}

fn refused(directory: &Path, options: &[&str]) -> std::process::Output {
    let arguments = ["share", "data", "--socket-path", "socket"];
    innkeeper(arguments)
        .args(options)
        .current_dir(directory)
        .output()
        .unwrap()
}

#[test]
fn what_an_earlier_guest_may_have_left_in_place_of_the_log_is_refused() {
    let directory = with_data();
    let at = |name: &str| directory.path().join(name);
    let log_to = |path: &str| refused(directory.path(), &["--log-errors", "--log-errors-to", path]);
    fs::write(at("precious"), "").unwrap();
    fs::create_dir(at("secret")).unwrap();
    symlink("../precious", at("data/link")).unwrap();
    symlink("nowhere", at("data/dangling")).unwrap();
    symlink("../secret", at("data/logs")).unwrap();
    for path in ["data/link", "data/dangling", "data/logs/errors.log"] {
        assert_refused(&log_to(path), 1, &[path, "the path has a symbolic link", "real path"]);
    }
    let data = fs::File::open(at("data")).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(&data, "fifo", fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    for path in ["data/fifo", "data"] {
        assert_refused(&log_to(path), 1, &[path, "not a regular file"]);
    }
    assert_refused(&log_to("missing/errors.log"), 1, &["a directory that exists"]);
    assert_eq!(fs::read(at("precious")).unwrap(), b"");
    assert!(!at("nowhere").exists() && fs::read_dir(at("secret")).unwrap().next().is_none());
}

#[test]
fn the_options_go_together() {
    let directory = with_data();
    for (options, part) in [
        (&["--log-errors-to", "log"][..], "--log-errors"),
        (&["--log-errors=xml"], "text, json"),
    ] {
        let output = refused(directory.path(), options);
        assert_eq!(output.status.code(), Some(2));
        assert!(complaint(&output).contains(part));
    }
}
