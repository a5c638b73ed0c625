//! `cargo xtask demo`: a Linux guest on a host directory, in one command.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::run::shown;
use crate::setup::{self, copy_root};
use crate::test::build_innkeeper;

/// What the guest does: shows where its files come from, and leaves one.
const SCRIPT: &str = "echo; echo \"In the guest, Linux $(uname -r). What is mounted:\"; grep -v ' /proc\\| /sys\\| /dev' /proc/mounts; \
                      echo \"Written by the guest, Linux $(uname -r)\" > /note";

pub(crate) fn run() -> Result<()> {
    let parts = setup::to_boot()?;
    let innkeeper = build_innkeeper()?;
    let directory = tempfile::Builder::new()
        .prefix("innkeeper-demo-")
        .tempdir()
        .context("cannot create a temporary directory for the root")?;
    let root = directory.path().join("root");
    fs::create_dir(&root).context("cannot create the root")?;
    copy_root(&parts.root, &root)?;

    println!(
        "\n{} on the host is the guest's root: there is no disk image.",
        root.display()
    );
    let mut command = Command::new(innkeeper);
    command.arg("boot").arg(&root).arg("--kernel").arg(&parts.kernel);
    command.args(["--", "/bin/sh", "-c", SCRIPT]);
    println!("$ {}\n", shown(&command));
    let status = command.status().context("cannot start innkeeper")?;
    ensure!(status.success(), "innkeeper ended with {status}");

    let note = root.join("note");
    let text = fs::read_to_string(&note).with_context(|| format!("the guest left no {}", note.display()))?;
    println!("\nBack on the host, {} holds:\n{text}", note.display());
    Ok(())
}
