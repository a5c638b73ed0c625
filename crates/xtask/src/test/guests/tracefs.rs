//! `innkeeper why` in guests: what it finds with the kernel's tracer, and that it leaves the tracer as it was.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::boot::copy_modules;
use crate::guest::Lab;
use crate::guest::daemon::Program;
use crate::guest::qemu::Variant;
use crate::run::shown;
use crate::setup::copy_root;

/// For the whole script: under TCG the kernel takes seconds to change all its functions, which each run has it do.
const LIMIT_SECONDS: u32 = 600;

const SCRIPT: &str = include_str!("../../../guest/tracefs.sh");

/// A kernel that traces graphs in instances, and probes the returns of all functions by one event.
pub(super) fn own_instance(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    let root = root(lab, directory)?;
    check(lab, variant, &root, &lab.parts.kernel)
}

/// A kernel whose one tracer all share.
pub(super) fn shared_top(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    let root = root(lab, directory)?;
    copy_modules(lab, &root)?;
    check(lab, variant, &root, &lab.parts.kernel_with_modules.join("vmlinuz"))
}

fn root(lab: &Lab, directory: &Path) -> Result<PathBuf> {
    let root = directory.join("root");
    fs::create_dir_all(&root)?;
    copy_root(&lab.parts.root, &root)?;
    fs::copy(&lab.programs.innkeeper, root.join("bin/innkeeper")).context("cannot copy innkeeper into the root")?;
    fs::write(root.join("script"), SCRIPT)?;
    Ok(root)
}

/// Runs the script in a guest and looks at what it left in the root.
fn check(lab: &Lab, variant: Variant, root: &Path, kernel: &Path) -> Result<String> {
    boot(lab, variant, root, kernel)?;
    let told = fs::read_to_string(root.join("told/normal"))?;
    ensure!(
        told.contains("= -1 ENOENT") && told.contains("  where:  "),
        "no function of the kernel was named:\n{told}"
    );
    Ok("a function was named".to_owned())
}

fn boot(lab: &Lab, variant: Variant, root: &Path, kernel: &Path) -> Result<()> {
    let Program::Innkeeper(innkeeper) = &lab.daemon else {
        bail!("only our own program boots")
    };
    let mut command = Command::new("timeout");
    command.arg(LIMIT_SECONDS.to_string()).arg(innkeeper);
    command.arg("boot").arg(root).arg("--kernel").arg(kernel);
    command.arg("--qemu").arg(variant.program(&lab.parts));
    command.args(["--", "/bin/sh", "/script"]);
    let output = command
        .output()
        .with_context(|| format!("cannot start `{}`", shown(&command)))?;
    let [printed, said] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    ensure!(
        output.status.success(),
        "`{}` ended with {}\nprinted:\n{printed}\nand said:\n{said}",
        shown(&command),
        output.status
    );
    Ok(())
}
