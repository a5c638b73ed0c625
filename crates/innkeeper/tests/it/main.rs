//! Innkeeper as its users run it: tests run the command and read its output.

/// `bench`: what it prints, refuses and leaves behind.
mod bench;
/// `bench` with tools that work on mounts.
mod bench_tools;
/// `blk`: a disk of a confined daemon.
mod blk;
/// `boot`: what it refuses, and real guests.
mod boot;
/// What a guest can make the daemon hold.
mod budgets;
/// `check`: no call is missing in the lists, and none too many.
mod check;
/// The checks of `share` that the escape suite switches off.
#[cfg(not(feature = "unchecked"))]
mod checks;
/// What `share` may still do once it serves, in each sandbox.
mod confined;
/// `share --log-errors`: what it tells of errors that guests get.
mod error_log;
/// The table of crates in ARCHITECTURE.md, kept true.
mod layering;
/// `share` as managers of virtual machines start it.
mod managed;
/// `mount`: real mounts on this host.
mod mount;
/// What the subcommands of all devices have in common.
mod net;
/// `share` of an ordinary user, with and without maps of users and groups.
mod ordinary;
/// `man` and `completions`.
mod pages;
/// README.md: its length, and every command in it.
mod readme;
mod serve;
/// A daemon and a guest in a session with it.
mod session;
/// `share`: what it prints, refuses and leaves behind.
mod share;
/// `vsock` and `connect`, with a guest of the tests' own.
mod vsock;

use std::ffi::OsStr;
use std::process::{Command, Output};

/// The binary under test.
fn innkeeper<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_innkeeper"));
    command.args(arguments);
    command
}

/// Standard error without the line that announces a boot.
fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines()
        .filter(|line| !line.contains(": booting "))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Checks that a run failed with `status`, in one sentence that has all of `parts`.
#[track_caller]
fn assert_refused(output: &Output, status: i32, parts: &[&str]) {
    let said = complaint(output);
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert!(
        said.starts_with("innkeeper: ") && said.lines().count() == 1,
        "not one sentence: {said}"
    );
    for part in parts {
        assert!(said.contains(part), "{part:?} is missing in: {said}");
    }
}
mod why;
