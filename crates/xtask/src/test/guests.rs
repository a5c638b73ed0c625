//! What is tested in real guests.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::{build_innkeeper, target};
use crate::accelerator::Accelerator;
use crate::guest::daemon::Program;
use crate::guest::qemu::{Device, Variant};
use crate::guest::{Guest, Lab};
use crate::run::shown;
use crate::setup::{self, Parts, copy_root};
use crate::tree;

/// Seconds that each kind of guest may take under TCG on a busy machine.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
const SUITE_LIMIT: Duration = Duration::from_secs(600);
const TREE_LIMIT: Duration = Duration::from_secs(1200);

/// What pjdfstest 0.2.2 has for Linux: as many as pass on the file systems of the host itself.
const SUITE_PASSES: u32 = 382;

/// Feature bits.
const VERSION_1: usize = 32;
const RING_PACKED: usize = 34;

/// A lane whose queue nobody uses sleeps a few times while it is set up; a used one far more than this.
const IDLE: u64 = 15;

/// The job that tells what was negotiated and uses every queue.
const BOOT: &str = include_str!("../../guest/boot.sh");

/// Returns what was seen, in a few words.
type Body = fn(&Lab, Variant, &Path) -> Result<String>;

struct Case {
    name: String,
    variant: Variant,
    body: Body,
}

/// All cases; for a daemon that is not ours those that the peer can pass: split rings, one queue.
fn cases(ours: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, variant: Variant, body: Body| {
        let variant_works = ours || !variant.packed && variant.queues == 1 && variant.device != Device::NewGeneric;
        if variant_works {
            cases.push(Case {
                name: format!("{name}/{variant}"),
                variant,
                body,
            });
        }
    };
    for device in [Device::HostFs, Device::NewFs, Device::NewGeneric] {
        for packed in [false, true] {
            for queues in [1, 4] {
                add("root", Variant { device, packed, queues }, root);
            }
        }
    }
    for packed in [false, true] {
        let variant = Variant {
            device: Device::HostFs,
            packed,
            queues: 1,
        };
        if ours {
            add("crash", variant, crash);
        }
        add("posix", variant, posix);
        add("tree", variant, copied_tree);
    }
    if ours {
        let variant = |device, packed, queues| Variant { device, packed, queues };
        add("boot", variant(Device::HostFs, false, 1), boot);
        add("boot", variant(Device::NewFs, true, 4), boot);
        add("boot-modules", variant(Device::HostFs, false, 1), boot_with_modules);
    }
    cases
}

pub(crate) fn names(ours: bool) -> Vec<String> {
    cases(ours).into_iter().map(|case| case.name).collect()
}

/// Runs the cases whose name contains `filter`, on our daemon or on `daemon`.
pub(crate) fn run(parts: &Parts, filter: Option<&str>, daemon: Option<&str>) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the guests need root: their files have many owners and device nodes"
    );
    let mut cases = cases(daemon.is_none());
    cases.retain(|case| filter.is_none_or(|text| case.name.contains(text)));
    ensure!(
        !cases.is_empty(),
        "no guest has this in its name: see `cargo xtask test --list`"
    );

    let daemon = match daemon {
        None => Program::Innkeeper(build_innkeeper()?),
        Some("virtiofsd") => Program::virtiofsd(&setup::peer()?),
        Some(command) => Program::Other(command.split_whitespace().map(str::to_owned).collect()),
    };
    let accelerator = Accelerator::probe(&parts.qemu, &parts.kernel);
    println!("guests run on {accelerator:?}");
    let lab = Lab {
        parts: parts.clone(),
        accelerator,
        daemon,
    };
    let base = target()?.join("guests");
    let mut failed = 0;
    for case in &cases {
        let directory = base.join(case.name.replace('/', "-"));
        let started = Instant::now();
        let result = fresh(&directory).and_then(|()| (case.body)(&lab, case.variant, &directory));
        let seconds = started.elapsed().as_secs_f64();
        match result {
            Ok(seen) => {
                println!("  ok      {:32} {seconds:6.1} s  {seen}", case.name);
                fs::remove_dir_all(&directory).with_context(|| format!("cannot remove {}", directory.display()))?;
            }
            Err(error) => {
                failed += 1;
                println!("  FAILED  {:32} {seconds:6.1} s  {error:#}", case.name);
                println!("          files and console log: {}", directory.display());
                println!("          repeat with `cargo xtask test --guest {}`", case.name);
            }
        }
    }
    println!("guests: {} passed, {failed} failed", cases.len() - failed);
    if failed == 0 {
        Ok(())
    } else {
        bail!("{failed} guests failed")
    }
}

fn fresh(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))
}

/// A guest boots from the directory, negotiates what the variant says, and uses each of its queues.
fn root(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    let mut guest = Guest::new(lab, variant, directory, BOOT)?;
    let seen = boot_and_check(&guest, variant)?;
    guest.check_daemons_live()?;
    guest.finish()?;
    Ok(seen)
}

fn boot_and_check(guest: &Guest<'_>, variant: Variant) -> Result<String> {
    fs::write(guest.root().join("from-host"), "the host's words")?;
    let mut console = guest.start()?;
    console.wait_for("innkeeper-guest: used", BOOT_LIMIT)?;
    let lanes = guest.request_lanes()?;
    fs::write(guest.root().join("counted"), "")?;
    let printed = guest.end_of_job(console, BOOT_LIMIT)?;

    let bits = feature_bits(&printed)?;
    ensure!(
        bits.contains(&VERSION_1),
        "the guest negotiated {bits:?} without bit {VERSION_1}"
    );
    let packed = bits.contains(&RING_PACKED);
    ensure!(
        packed == variant.packed,
        "bit {RING_PACKED} is {packed} in the guest, which negotiated {bits:?}"
    );
    ensure!(
        printed.contains("root rootfs / virtiofs rw"),
        "the root is not our share:\n{printed}"
    );
    ensure!(
        printed.contains("host said the host's words"),
        "the guest read something else:\n{printed}"
    );
    let written = fs::read_to_string(guest.root().join("from-guest")).context("the guest's file is not there")?;
    ensure!(written == "guest says this\n", "the guest's file holds {written:?}");
    if let Some(lanes) = &lanes {
        ensure!(
            lanes.len() == usize::from(variant.queues),
            "the daemon runs these request lanes: {lanes:?}"
        );
        ensure!(
            lanes.iter().all(|&(_, sleeps)| sleeps > IDLE),
            "a request queue was not used: {lanes:?}"
        );
    }
    let bits: Vec<String> = bits.iter().map(usize::to_string).collect();
    Ok(format!("feature bits {}", bits.join(" ")))
}

/// The numbers of the bits that the guest's driver negotiated; sysfs prints them from bit 0 on.
fn feature_bits(printed: &str) -> Result<Vec<usize>> {
    let line = printed.lines().find_map(|line| line.strip_prefix("features "));
    let line = line.with_context(|| format!("no feature bits in\n{printed}"))?;
    Ok(line
        .char_indices()
        .filter(|(_, bit)| *bit == '1')
        .map(|(number, _)| number)
        .collect())
}

/// QEMU is killed in the middle of requests; the next one on the same socket finds a daemon that works.
fn crash(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    let mut guest = Guest::new(lab, variant, directory, include_str!("../../guest/crash.sh"))?;
    for _ in 0..2 {
        let mut console = guest.start()?;
        console.wait_for("innkeeper-guest: ready", BOOT_LIMIT)?;
        console.kill()?;
        guest.check_daemons_live()?;
    }
    fs::write(guest.root().join("job"), BOOT)?;
    boot_and_check(&guest, variant)?;
    guest.check_daemons_live()?;
    guest.finish()?;
    Ok("two QEMUs killed, the third served".to_owned())
}

/// The POSIX suite passes as it does on a local file system.
fn posix(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    let mut guest = Guest::new(lab, variant, directory, include_str!("../../guest/pjdfstest.sh"))?;
    let result = guest.run(SUITE_LIMIT);
    let printed = match &result {
        Ok(printed) => printed.clone(),
        // The suite's own list of failures says more than its status.
        Err(_) => fs::read_to_string(guest.root().join("job.out")).unwrap_or_default(),
    };
    let failures: Vec<&str> = printed
        .lines()
        .filter(|line| line.contains("FAILED"))
        .map(str::trim)
        .collect();
    let summary = printed.lines().rev().find(|line| line.contains("Summary:"));
    let Some(summary) = summary else {
        return Err(result.err().unwrap_or_else(|| anyhow!("no summary:\n{printed}")));
    };
    let [failed, passed] = ["failed", "passed"].map(|word| number_before(summary, word));
    ensure!(
        failed == Some(0) && passed == Some(SUITE_PASSES),
        "wanted {SUITE_PASSES} passed and 0 failed: {summary}\n{}",
        failures.join("\n")
    );
    guest.check_daemons_live()?;
    guest.finish()?;
    Ok(summary.to_owned())
}

/// The number in front of `word`: `12 passed` has 12.
fn number_before(text: &str, word: &str) -> Option<u32> {
    let words: Vec<&str> = text.split([' ', ',']).filter(|part| !part.is_empty()).collect();
    let at = words.iter().position(|part| *part == word)?;
    words.get(at.checked_sub(1)?)?.parse().ok()
}

/// A gigabyte of files goes into the guest from one share and out again to another, and is the same.
fn copied_tree(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    let [source, copy] = ["source", "target"].map(|name| directory.join(name));
    fs::create_dir(&source)?;
    fs::create_dir(&copy)?;
    let bytes = tree::generate(&source)?;
    let mut guest = Guest::new(lab, variant, directory, include_str!("../../guest/tree.sh"))?;
    guest.share(&source, "source")?;
    guest.share(&copy, "target")?;
    let started = Instant::now();
    let result = guest.run(TREE_LIMIT);
    let seconds = started.elapsed().as_secs_f64();
    let found = tree::differences(&source, &copy)?;
    result.with_context(|| format!("differences: {found:#?}"))?;
    ensure!(found.is_empty(), "the copy differs: {found:#?}");
    guest.check_daemons_live()?;
    guest.finish()?;
    Ok(format!("{} MiB in {seconds:.0} s, equal", bytes >> 20))
}

fn boot(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    boot_command(lab, variant, directory, &lab.parts.kernel)
}

/// The kernel has virtio-fs as a module in the root, so that `boot` has to build an initramfs.
fn boot_with_modules(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    let installed = &lab.parts.kernel_with_modules;
    let library = directory.join("root/lib");
    fs::create_dir_all(&library)?;
    let copied = Command::new("cp")
        .arg("-a")
        .arg(installed.join("lib/modules"))
        .arg(&library)
        .status()?;
    ensure!(copied.success(), "cannot copy the modules into the root");
    boot_command(lab, variant, directory, &installed.join("vmlinuz"))
}

/// `innkeeper boot` runs a command in the guest, and the command's words, files and exit status come back.
fn boot_command(lab: &Lab, variant: Variant, directory: &Path, kernel: &Path) -> Result<String> {
    const STATUS: i32 = 7;
    let Program::Innkeeper(innkeeper) = &lab.daemon else {
        bail!("only our own program boots")
    };
    let [root, second] = ["root", "second"].map(|name| directory.join(name));
    fs::create_dir_all(&root)?;
    fs::create_dir(&second)?;
    copy_root(&lab.parts.root, &root)?;
    fs::write(second.join("from-host"), "the second share\n")?;
    let script = "mkdir /mnt && mount -t virtiofs second /mnt && cat /mnt/from-host && grep ' / ' /proc/mounts \
                  && uname -r && echo done > /from-guest; exit 7";
    let mut command = Command::new("timeout");
    command
        .arg(BOOT_LIMIT.as_secs().to_string())
        .arg(innkeeper)
        .arg("boot")
        .arg(&root);
    command
        .arg("--kernel")
        .arg(kernel)
        .arg("--qemu")
        .arg(variant.program(&lab.parts));
    command.args([
        "--num-queues",
        &variant.queues.to_string(),
        "--cpus",
        &variant.queues.to_string(),
    ]);
    command.args(["--ring", if variant.packed { "packed" } else { "split" }]);
    command.arg("--share").arg(format!("{}:second", second.display()));
    command.args(["--", "/bin/sh", "-c", script]);
    let output = command
        .output()
        .with_context(|| format!("cannot start `{}`", shown(&command)))?;
    let [printed, said] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let all = format!("`{}`\nprinted:\n{printed}\nand said:\n{said}", shown(&command));
    ensure!(
        output.status.code() == Some(STATUS),
        "it ended with {} and not with status {STATUS}: {all}",
        output.status
    );
    ensure!(
        printed.contains("the second share"),
        "the second share was not read: {all}"
    );
    ensure!(
        printed.lines().any(|line| line.contains(" / virtiofs ")),
        "the root is not our share: {all}"
    );
    let written =
        fs::read_to_string(root.join("from-guest")).with_context(|| format!("no file of the guest: {all}"))?;
    ensure!(written == "done\n", "the guest's file holds {written:?}");
    let release = printed
        .lines()
        .find(|line| line.contains("cloud"))
        .unwrap_or("?")
        .trim();
    Ok(format!("kernel {release}, status {STATUS} came back"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feature_bits_are_numbered_from_the_left() {
        assert_eq!(feature_bits("x\nfeatures 01001\n").unwrap(), [1, 4]);
        assert!(feature_bits("x").is_err());
    }

    #[test]
    fn the_summary_of_the_suite_is_read_by_its_words() {
        let line = "Summary: 0 failed, 16 skipped, 382 passed, 0 expected failures, 398 total";
        assert_eq!(number_before(line, "failed"), Some(0));
        assert_eq!(number_before(line, "passed"), Some(382));
        assert_eq!(number_before("nothing", "passed"), None);
    }

    #[test]
    fn a_peer_gets_the_cases_that_it_can_pass() {
        assert!(
            names(false)
                .iter()
                .all(|name| !name.contains("packed") && !name.contains("boot"))
        );
        assert!(names(true).contains(&"root/qemu11-generic/packed/4q".to_owned()));
    }
}
