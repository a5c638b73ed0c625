//! The context of a failed call as `innkeeper why` reports it in a guest: the values, the kernel's log, a running
//! process. Also checks that the functions with hints exist in this kernel.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use why::recording::Recording;

use super::run_in_guest;
use crate::guest::Lab;
use crate::guest::qemu::Variant;

/// Cases of `exercise refuse`, the call and errno, and what must be told of the values: by the case's own preparation, or
/// by how the guest was booted.
const VALUES: &[(&str, &str, &str, &str)] = &[
    ("open-too-many", "openat", "EMFILE", "RLIMIT_NOFILE is "),
    ("write-beyond-limit", "write", "EFBIG", "RLIMIT_FSIZE is "),
    ("mlock-too-much", "mlock", "ENOMEM", "RLIMIT_MEMLOCK is "),
    (
        "bind-low-port",
        "bind",
        "EACCES",
        "net.ipv4.ip_unprivileged_port_start is 1024; it has no CAP_NET_BIND_SERVICE",
    ),
    ("create-on-read-only", "openat", "EROFS", "is mounted with ro"),
    ("mmap-more-than-memory", "mmap", "ENOMEM", "vm.overcommit_memory is 0"),
    ("clone-too-many", "clone", "EAGAIN", "RLIMIT_NPROC is "),
    (
        "io_uring_register-memlock",
        "io_uring_register",
        "ENOMEM",
        "RLIMIT_MEMLOCK is ",
    ),
    ("setuid-as-user", "setuid", "EPERM", "it has no CAP_SETUID"),
    ("seccomp", "mkdir", "EPERM", "a seccomp filter is on this thread"),
];
/// The case of which the kernel writes a line in its log, and what that says.
const LOGGED: (&str, &str) = ("mmap", "not enough memory for the allocation");
/// Hints are for functions of many kernels and their modules; of a hundred so many must be of this one.
const KNOWN: usize = 75;

const SCRIPT: &str = "mount -t tmpfs none /tmp && mkdir -m 1777 /tmp/local && ip link set lo up \
    && mount -t tracefs none /sys/kernel/tracing && chmod 755 / && cp /proc/kallsyms /kallsyms \
    && innkeeper why --all --json --output /report --record /recording -- \
       exercise refuse --local /tmp/local --shared /shared CASES > /cases 2> /told \
    && { while :; do cat /no/such/file; sleep 1; done 2> /dev/null & } \
    && innkeeper why -p $! --for 30s --json --output /attached 2> /told && kill -0 $!";

/// Runs the script and judges what it left.
pub(in super::super) fn values(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    let cases: Vec<_> = VALUES.iter().map(|(case, ..)| *case).collect();
    let script = SCRIPT.replace("CASES", &cases.join(" "));
    let root = run_in_guest(lab, variant, directory, &lab.parts.boot.kernel, &script)?;
    let read = |name: &str| fs::read_to_string(root.join(name)).with_context(|| format!("no /{name} of the guest"));
    let failures = failures(&read("report")?)?;
    for (case, call, errno, value) in VALUES {
        let told = failures
            .iter()
            .filter(|failure| failure["name"] == *call && failure["errno"] == *errno);
        let values: Vec<_> = told
            .map(|failure| failure["value"]["text"].as_str().unwrap_or("nothing"))
            .collect();
        ensure!(
            values.iter().any(|text| text.contains(value)),
            "{case}: expected the value {value:?}, reported {values:?}"
        );
    }
    let (call, text) = LOGGED;
    let logged = |failure: &&Value| failure["log"].to_string().contains(text) && failure["name"] == call;
    let line = failures
        .iter()
        .find(logged)
        .with_context(|| format!("the kernel's log has no line about {call}"))?;
    ensure!(
        line["log"][0]["certainty"] == "likely",
        "the line names the process: {}",
        line["log"]
    );
    // What was recorded tells the same elsewhere.
    let recording = Recording::from_json(&read("recording")?)?;
    let kept = recording
        .failures
        .iter()
        .any(|failure| failure.context.process.is_some());
    ensure!(kept, "the recording has no values");
    let attached = self::failures(&read("attached")?)?;
    let found = attached
        .iter()
        .find(|failure| failure["errno"] == "ENOENT" && failure["call"].to_string().contains("/no/such/file"));
    let place = found
        .map(|failure| failure["where"]["text"].to_string())
        .unwrap_or_default();
    ensure!(
        place.contains("()"),
        "no function was named for the attached process: {attached:?}; reported {}",
        read("told").unwrap_or_default()
    );
    let (known, all, missing) = known_functions(&read("kallsyms")?);
    ensure!(
        known * 100 >= KNOWN * all,
        "{known} of {all} functions with hints are known here, not {missing:?}"
    );
    Ok(format!(
        "{} values and a line of the kernel's log were told, and of a running process {place}; {known} of {all} functions \
         with hints are in this kernel",
        VALUES.len()
    ))
}

fn failures(report: &str) -> Result<Vec<Value>> {
    let report: Value = serde_json::from_str(report)?;
    Ok(report["failures"]
        .as_array()
        .context("the report has no failures")?
        .clone())
}

/// How many functions that hints are known of the kernel has, of how many, and which it has not.
fn known_functions(symbols: &str) -> (usize, usize, Vec<&'static str>) {
    let base = |line: &'_ str| Some(line.split_ascii_whitespace().nth(2)?.split('.').next()?.to_owned());
    let there: BTreeSet<_> = symbols.lines().filter_map(base).collect();
    let wanted: BTreeSet<_> = why::hints::functions().collect();
    let missing: Vec<_> = wanted.iter().copied().filter(|name| !there.contains(*name)).collect();
    (wanted.len() - missing.len(), wanted.len(), missing)
}
