//! `innkeeper why` in guests: its findings with the kernel's tracer, and the restored state of the tracer.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::boot::{self, copy_modules};
use crate::guest::Lab;
use crate::guest::qemu::Variant;
use crate::setup::copy_root;

/// For the whole script: under TCG the kernel takes seconds to change all its functions, which each run has it do.
const LIMIT: Duration = Duration::from_secs(1800);

const SCRIPT: &str = include_str!("../../../guest/tracefs.sh");

/// After how many seconds runs are killed: while they set the tracer up, while it runs, or while it is put back.
const STEPS: &str = "0.3 1 2 4";

/// A kernel that traces graphs in instances, and probes the returns of all functions by one event.
pub(super) fn own_instance(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    let root = root(lab, directory, &script(""))?;
    check(lab, variant, &root, &lab.parts.boot.kernel)
}

/// The same, killed at more steps.
pub(super) fn own_instance_at_steps(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    let root = root(lab, directory, &script(STEPS))?;
    check(lab, variant, &root, &lab.parts.boot.kernel)
}

/// A kernel whose one tracer all share.
pub(super) fn shared_top(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    top(lab, variant, directory, "")
}

/// The same, killed at more steps.
pub(super) fn shared_top_at_steps(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    top(lab, variant, directory, STEPS)
}

fn top(lab: &Lab, variant: Variant, directory: &Path, steps: &str) -> Result<String> {
    let root = root(lab, directory, &script(steps))?;
    copy_modules(lab, &root)?;
    check(lab, variant, &root, &lab.parts.kernel_with_modules.join("vmlinuz"))
}

fn script(steps: &str) -> String {
    format!("STEPS='{steps}'\n{SCRIPT}")
}

/// A root with innkeeper and a script.
pub(super) fn root(lab: &Lab, directory: &Path, script: &str) -> Result<PathBuf> {
    let root = directory.join("root");
    fs::create_dir_all(&root)?;
    copy_root(&lab.parts.boot.root, &root)?;
    fs::copy(&lab.programs.innkeeper, root.join("bin/innkeeper")).context("cannot copy innkeeper into the root")?;
    fs::write(root.join("script"), script)?;
    Ok(root)
}

/// Runs the script in a guest and looks at what it left in the root.
fn check(lab: &Lab, variant: Variant, root: &Path, kernel: &Path) -> Result<String> {
    boot(lab, variant, root, kernel)?;
    let told = |name: &str| fs::read_to_string(root.join("told").join(name)).with_context(|| format!("no told/{name}"));
    let said = told("said")?;
    ensure!(
        said.contains("= -1 ENOENT") && said.contains("  where:  "),
        "no kernel function was named:\n{said}"
    );
    let (never, first) = (told("never-used")?, told("first")?);
    first_use(&never, &first)?;
    let before = told("before")?;
    let mut ways = 0;
    for entry in fs::read_dir(root.join("told"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with("after-") {
            same(&name, &before, &told(&name)?)?;
            ways += 1;
        }
    }
    ensure!(
        told("left-behind")? != before && told("healed")?.contains("tracefs was restored after an earlier run"),
        "a run was killed with its guardian, and the next one printed:\n{}",
        told("healed")?
    );
    let settings = before.lines().count();
    Ok(format!("{settings} settings as before, {ways} times"))
}

/// The first run changes nothing but the size of a buffer that was never used, where it takes that one: the kernel then gives
/// it the size that it has announced, in whole pages, and has no way back.
fn first_use(never: &str, first: &str) -> Result<()> {
    const SIZE: &str = "./buffer_size_kb:";
    const PAGE_KIB: u64 = 4;
    let size = |settings: &str| {
        settings
            .lines()
            .find_map(|line| line.strip_prefix(SIZE))
            .map(str::to_owned)
    };
    let (before, after) = (
        size(never).context("no size of the buffer")?,
        size(first).unwrap_or_default(),
    );
    if before == after {
        return same("a first run", never, first);
    }
    let announced = before
        .split_once("expanded: ")
        .and_then(|(_, size)| size.trim_end_matches(')').parse().ok());
    let announced: u64 =
        announced.with_context(|| format!("the buffer had {before} KiB before, and has {after} KiB"))?;
    ensure!(
        (announced..announced + PAGE_KIB).contains(&after.parse()?),
        "the buffer must have {announced} KiB, and has {after}"
    );
    let rest = |settings: &str| {
        let rest = settings.lines().filter(|line| !line.contains("size_kb:"));
        rest.collect::<Vec<_>>().join("\n")
    };
    same("a first run", &rest(never), &rest(first))
}

/// Fails with the first lines that differ.
fn same(way: &str, before: &str, after: &str) -> Result<()> {
    let [before, after] = [before, after].map(|text| text.lines().collect::<BTreeSet<_>>());
    let some = |lines: Vec<&&str>| lines.into_iter().take(8).copied().collect::<Vec<_>>().join("\n");
    let (gone, come) = (
        some(before.difference(&after).collect()),
        some(after.difference(&before).collect()),
    );
    ensure!(
        gone.is_empty() && come.is_empty(),
        "tracefs changed after {way}: removed lines:\n{gone}\nnew lines:\n{come}"
    );
    Ok(())
}

/// Runs the script in a guest.
pub(super) fn boot(lab: &Lab, variant: Variant, root: &Path, kernel: &Path) -> Result<()> {
    let mut command = boot::command(lab, variant, root, kernel, LIMIT)?;
    command.args(["--", "/bin/sh", "/script"]);
    boot::finish(command, 0).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_gets_its_announced_size_at_its_first_use_and_no_other() {
        let settings = |size: &str, tracer: &str| format!("./buffer_size_kb:{size}\n./current_tracer:{tracer}\n");
        let never = settings("7 (expanded: 1408)", "nop");
        first_use(&never, &never).unwrap();
        first_use(&never, &settings("1410", "nop")).unwrap();
        assert!(first_use(&never, &settings("7", "nop")).is_err());
        assert!(first_use(&never, &settings("16384", "nop")).is_err());
        assert!(first_use(&never, &settings("1410", "function")).is_err());
        assert!(first_use(&settings("2048", "nop"), &settings("1410", "nop")).is_err());
    }
}
