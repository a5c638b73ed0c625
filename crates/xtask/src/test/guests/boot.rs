//! `innkeeper boot` as a user runs it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::BOOT_LIMIT;
use crate::guest::Lab;
use crate::guest::daemon::Program;
use crate::guest::qemu::Variant;
use crate::run::shown;
use crate::setup::copy_root;

pub(super) fn boot(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    boot_command(lab, variant, directory, &lab.parts.boot.kernel)
}

/// The kernel has virtio-fs as a module in the root, so that `boot` has to build an initramfs.
pub(super) fn boot_with_modules(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    copy_modules(lab, &directory.join("root"))?;
    boot_command(lab, variant, directory, &lab.parts.kernel_with_modules.join("vmlinuz"))
}

/// Puts the modules of the kernel that has virtio-fs among them into a root.
pub(super) fn copy_modules(lab: &Lab, root: &Path) -> Result<()> {
    let library = root.join("lib");
    fs::create_dir_all(&library)?;
    let copied = Command::new("cp")
        .arg("-a")
        .arg(lab.parts.kernel_with_modules.join("lib/modules"))
        .arg(&library)
        .status()?;
    ensure!(copied.success(), "cannot copy the modules into the root");
    Ok(())
}

/// `innkeeper boot` on a root that exists, killed after `limit`. More options and the guest's command go behind.
pub(super) fn command(lab: &Lab, variant: Variant, root: &Path, kernel: &Path, limit: Duration) -> Result<Command> {
    let Program::Innkeeper(innkeeper) = &lab.daemon else {
        bail!("only our own program boots")
    };
    let mut command = Command::new("timeout");
    command.arg(limit.as_secs().to_string()).arg(innkeeper);
    command.arg("boot").arg(root).arg("--kernel").arg(kernel);
    command
        .arg("--qemu")
        .arg(variant.program(&lab.parts).context("`innkeeper boot` starts QEMU")?);
    Ok(command)
}

/// Runs `innkeeper boot` to its end, which must have come with `status`; returns what it printed.
pub(super) fn finish(mut command: Command, status: i32) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot start `{}`", shown(&command)))?;
    let [printed, said] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    ensure!(
        output.status.code() == Some(status),
        "`{}` ended with {} and not with status {status}; standard output:\n{printed}\nstandard error:\n{said}",
        shown(&command),
        output.status
    );
    Ok(printed)
}

/// `innkeeper boot` runs a command in the guest, and the command's words, files and exit status come back.
fn boot_command(lab: &Lab, variant: Variant, directory: &Path, kernel: &Path) -> Result<String> {
    const STATUS: i32 = 7;
    let [root, second] = ["root", "second"].map(|name| directory.join(name));
    fs::create_dir_all(&root)?;
    fs::create_dir(&second)?;
    copy_root(&lab.parts.boot.root, &root)?;
    fs::write(second.join("from-host"), "the second share\n")?;
    let script = "mkdir /mnt && mount -t virtiofs second /mnt && cat /mnt/from-host && grep ' / ' /proc/mounts \
                  && uname -r && echo done > /from-guest; exit 7";
    let mut command = command(lab, variant, &root, kernel, BOOT_LIMIT)?;
    command.args(["--num-queues", &variant.queues.to_string()]);
    command.args(["--ring", if variant.packed { "packed" } else { "split" }]);
    command.arg("--share").arg(format!("{}:second", second.display()));
    command.args(["--", "/bin/sh", "-c", script]);
    let printed = finish(command, STATUS)?;
    ensure!(
        printed.contains("the second share"),
        "the second share was not read: {printed}"
    );
    ensure!(
        printed.lines().any(|line| line.contains(" / virtiofs ")),
        "the root is not our share: {printed}"
    );
    let written =
        fs::read_to_string(root.join("from-guest")).with_context(|| format!("no file of the guest: {printed}"))?;
    ensure!(written == "done\n", "the guest's file holds {written:?}");
    let release = printed
        .lines()
        .find(|line| line.contains("cloud"))
        .unwrap_or("?")
        .trim();
    Ok(format!("kernel {release}, status {STATUS} came back"))
}
