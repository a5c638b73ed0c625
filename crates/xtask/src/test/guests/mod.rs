//! What is tested in real guests.

mod boot;
mod dax;
mod root;
mod suites;
mod tracefs;
mod why;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{build_guest_programs, build_innkeeper, target};
use crate::accelerator::Accelerator;
use crate::guest::Lab;
use crate::guest::daemon::Program;
use crate::guest::qemu::{Device, Variant};
use crate::setup::{self, Parts};

/// From init to what a short job prints, under TCG on a busy machine.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// Returns what was seen, in a few words.
type Body = fn(&Lab, Variant, &Path) -> Result<String>;

struct Case {
    name: String,
    variant: Variant,
    body: Body,
}

/// These go through ten states of the kernel's tracer each, which under TCG takes too long for every run: they run when named.
const WHEN_NAMED: [&str; 3] = ["why-instance/", "why-top/", "why-conditions-"];

impl Case {
    /// Whether it runs, given the text that a user wants to see in names.
    fn is_wanted(&self, filter: Option<&str>) -> bool {
        match filter {
            Some(text) => self.name.contains(text),
            None => !self.when_named(),
        }
    }

    fn when_named(&self) -> bool {
        WHEN_NAMED.iter().any(|name| self.name.starts_with(name))
    }
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
                add("root", Variant { device, packed, queues }, root::root);
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
            add("crash", variant, root::crash);
        }
        add("posix", variant, suites::posix);
        add("tree", variant, suites::copied_tree);
    }
    if ours {
        let variant = |device, packed, queues| Variant { device, packed, queues };
        add("boot", variant(Device::HostFs, false, 1), boot::boot);
        add("boot", variant(Device::NewFs, true, 4), boot::boot);
        add(
            "boot-modules",
            variant(Device::HostFs, false, 1),
            boot::boot_with_modules,
        );
        let one = variant(Device::HostFs, false, 1);
        add("why-instance", one, tracefs::own_instance);
        add("why-top", one, tracefs::shared_top);
        add("why-conditions-6.12", one, why::conditions_on_6_12);
        add("why-conditions-6.1", one, why::conditions_on_6_1);
        add("why-6.12", one, why::on_6_12);
        add("why-6.1", one, why::on_6_1);
        add("why-values", one, why::context::values);
        // The one device that shows the guest a window.
        let generic = variant(Device::NewGeneric, true, 1);
        for &(name, body) in dax::CASES {
            add(name, generic, body);
        }
    }
    cases
}

pub(crate) fn names(ours: bool) -> Vec<String> {
    let name = |case: Case| {
        if case.when_named() {
            format!("{} (with --guest alone)", case.name)
        } else {
            case.name
        }
    };
    cases(ours).into_iter().map(name).collect()
}

/// Runs the cases whose name contains `filter`, on our daemon or on `daemon`.
pub(crate) fn run(parts: &Parts, filter: Option<&str>, daemon: Option<&str>) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the guests need root: their files have many owners and device nodes"
    );
    let mut cases = cases(daemon.is_none());
    cases.retain(|case| case.is_wanted(filter));
    ensure!(
        !cases.is_empty(),
        "no guest has this in its name: see `cargo xtask test --list`"
    );

    let daemon = match daemon {
        None => Program::Innkeeper(build_innkeeper()?),
        Some("virtiofsd") => Program::virtiofsd(&setup::peer()?),
        Some(command) => Program::Other(command.split_whitespace().map(str::to_owned).collect()),
    };
    let lab = lab(parts, daemon)?;
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

/// Where guests run, with `daemon` for their shares.
pub(crate) fn lab(parts: &Parts, daemon: Program) -> Result<Lab> {
    let programs = build_guest_programs()?;
    let accelerator = Accelerator::probe(&parts.qemu, &parts.kernel);
    println!("guests run on {accelerator:?}");
    Ok(Lab {
        parts: parts.clone(),
        accelerator,
        daemon,
        programs,
    })
}

/// Makes an empty directory of it.
pub(crate) fn fresh(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
