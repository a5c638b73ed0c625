//! Innkeeper, virtiofsd and the host over the ring and through a mount, compared with innkeeper's targets.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::targets::{self, Measured};
use crate::setup;
use crate::test::guests::fresh;
use crate::test::{build_innkeeper, target, workspace};

/// Threads of virtiofsd's pool. None is its default, and better for one request at a time.
const POOLS: [u32; 2] = [0, 16];
const ROUNDS: &str = "7";
/// Files that a guest has looked up when memory is looked at.
const KNOWN: &str = "1000000";
/// A file system in memory, which costs a daemon next to nothing.
const IN_MEMORY: &str = "/dev/shm";

pub(super) fn run() -> Result<()> {
    let peer = setup::peer()?;
    let innkeeper = build_innkeeper()?;
    let directory = target()?.join("bench-fs");
    fresh(&directory)?;
    let peer = peer.to_str().context("the cache's path is not UTF-8")?;
    // No sandbox and no filter of system calls, since ours has none either; extended attributes are off by default.
    let against = POOLS.map(|pool| {
        format!(
            "{peer} --socket-path={{socket}} --shared-dir={{directory}} --sandbox none --seccomp none --cache auto \
             --thread-pool-size {pool}"
        )
    });
    let measure_in = |shared: &Path, name: &str, options: &[&str]| {
        println!("\n=== innkeeper bench {} {}", shared.display(), options.join(" "));
        let json = directory.join(name);
        let mut command = Command::new(&innkeeper);
        command
            .arg("bench")
            .arg(shared)
            .args(["--rounds", ROUNDS])
            .args(options);
        for against in &against {
            command.args(["--against", against]);
        }
        succeed_in(command.arg("--json").arg(&json), &json)
    };
    let measure = |name: &str, options: &[&str]| measure_in(&directory, name, options);
    // Goes away however this ends: it takes memory.
    let in_memory = tempfile::Builder::new()
        .prefix("innkeeper-bench-")
        .tempdir_in(IN_MEMORY)
        .with_context(|| format!("cannot make a directory in {IN_MEMORY}"))?;
    let picture = workspace()?.join("docs/bench.svg");
    let picture = picture.to_str().context("the workspace's path is not UTF-8")?;
    let measured = Measured {
        together: measure(
            "together",
            &[&["--placement", "together", "--plot", picture][..], &targets::rates()].concat(),
        )?,
        apart: measure(
            "apart",
            &[
                &["--placement", "apart", "--known-files", KNOWN][..],
                &targets::rates(),
                &targets::figures(),
            ]
            .concat(),
        )?,
        in_memory: measure_in(
            in_memory.path(),
            "in-memory",
            &[&["--placement", "apart"][..], &targets::creating()].concat(),
        )?,
        two_queues: measure(
            "two-queues",
            &[
                "--placement",
                "free",
                "--queues",
                "2",
                "--workload",
                "read-4k@32",
                "--workload",
                "mixed@2",
            ],
        )?,
        one_queue: measure("one-queue", &["--placement", "free", "--workload", "read-4k@32"])?,
        through_mount: measure(
            "through-mount",
            &[&["--placement", "free"][..], &targets::tools()].concat(),
        )?,
    };
    fs::remove_dir_all(&directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    println!("\n{}", targets::table(&measured)?);
    println!("The first run is drawn in docs/bench.svg.");
    Ok(())
}

/// Runs a measurement and reads what it wrote.
fn succeed_in(command: &mut Command, json: &Path) -> Result<Value> {
    let status = command.status().context("cannot run innkeeper")?;
    ensure!(status.success(), "innkeeper bench ended with {status}");
    let text = fs::read(json).with_context(|| format!("cannot read {}", json.display()))?;
    serde_json::from_slice(&text).context("the report is not JSON")
}
