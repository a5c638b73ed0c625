//! What is tested in real guests.

mod boot;
mod dax;
mod root;
mod suites;
mod tracefs;
mod uml;
mod why;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{build_guest_programs, target};
use crate::guest::Lab;
use crate::guest::daemon::Program;
use crate::guest::qemu::{Device, Variant};
use crate::guest::uml::probe;
use crate::setup::{self, Parts};

/// From init to what a short job prints, under TCG on a busy machine.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// Guests that run at the same time; each has a gigabyte of memory, or two.
const AT_ONCE_AT_MOST: usize = 4;

/// Returns what was seen, in a few words.
type Body = fn(&Lab, Variant, &Path) -> Result<String>;

struct Case {
    name: String,
    variant: Variant,
    body: Body,
}

/// With these as well the whole would take longer than it may: they run when named. What they look at is looked at in every
/// run by others: on the other kernel, in a QEMU, or in fewer guests.
const WHEN_NAMED: [&str; 8] = [
    "why-instance/",
    "why-instance-steps/",
    "why-top-steps/",
    "why-conditions-6.12/",
    "uml-split-tree",
    "uml-packed-tree",
    "uml-split-guests",
    "uml-packed-guests",
];

impl Case {
    /// Whether it runs, given the text that a user wants to see in names.
    fn is_wanted(&self, filter: Option<&str>) -> bool {
        match filter {
            Some(text) => self.name.contains(text),
            None => !self.when_named(),
        }
    }

    fn is_uml(&self) -> bool {
        self.variant.device == Device::Uml
    }

    fn when_named(&self) -> bool {
        WHEN_NAMED.iter().any(|name| self.name.starts_with(name))
    }

    /// Runs it in a directory of its own below `base`, says how it went, and answers whether it passed.
    fn run(&self, lab: &Lab, base: &Path) -> bool {
        let directory = base.join(self.name.replace('/', "-"));
        let started = Instant::now();
        let result = fresh(&directory)
            .and_then(|()| (self.body)(lab, self.variant, &directory))
            .and_then(|seen| {
                fs::remove_dir_all(&directory).with_context(|| format!("cannot remove {}", directory.display()))?;
                Ok(seen)
            });
        let seconds = started.elapsed().as_secs_f64();
        match &result {
            Ok(seen) => println!("  ok      {:32} {seconds:6.1} s  {seen}", self.name),
            // In one piece, since others print too.
            Err(error) => println!(
                "  FAILED  {:32} {seconds:6.1} s  {error:#}\n          files and console log: {}\n          \
                 repeat with `cargo xtask test --guest {}`",
                self.name,
                directory.display(),
                self.name
            ),
        }
        result.is_ok()
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
    let variant = |device, packed, queues| Variant { device, packed, queues };
    // Those that take minutes come first, so that no processor waits for one at the end.
    if ours {
        let one = variant(Device::HostFs, false, 1);
        add("why-6.12", one, why::on_6_12);
        add("why-6.1", one, why::on_6_1);
        add("why-instance", one, tracefs::own_instance);
        add("why-top", one, tracefs::shared_top);
        add("why-instance-steps", one, tracefs::own_instance_at_steps);
        add("why-top-steps", one, tracefs::shared_top_at_steps);
        add("why-conditions-6.12", one, why::conditions_on_6_12);
        add("why-conditions-6.1", one, why::conditions_on_6_1);
        add("why-values", one, why::context::values);
        // The one device that shows the guest a window.
        let generic = variant(Device::NewGeneric, true, 1);
        for &(name, body) in dax::CASES {
            add(name, generic, body);
        }
    }
    for packed in [false, true] {
        let one = variant(Device::HostFs, packed, 1);
        if ours {
            add("crash", one, root::crash);
        }
        add("posix", one, suites::posix);
        add("tree", one, suites::copied_tree);
    }
    if ours {
        add("boot", variant(Device::HostFs, false, 1), boot::boot);
        add("boot", variant(Device::NewFs, true, 4), boot::boot);
        add(
            "boot-modules",
            variant(Device::HostFs, false, 1),
            boot::boot_with_modules,
        );
    }
    for device in [Device::HostFs, Device::NewFs, Device::NewGeneric] {
        for packed in [false, true] {
            for queues in [1, 4] {
                add("root", variant(device, packed, queues), root::root);
            }
        }
    }
    if ours {
        // Last: they are the only ones that take seconds.
        for packed in [false, true] {
            let uml = variant(Device::Uml, packed, 1);
            let format = if packed { "packed" } else { "split" };
            cases.extend(uml::CASES.iter().map(|&(name, body)| Case {
                name: format!("uml-{format}-{name}"),
                variant: uml,
                body,
            }));
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

    let mut skipped = 0;
    if cases.iter().any(Case::is_uml)
        && let Err(reason) = uml_runs(parts)
    {
        let all = cases.len();
        cases.retain(|case| !case.is_uml());
        skipped = all - cases.len();
        println!("  skipped {skipped} guests that are User-Mode Linux: {reason}");
        ensure!(
            !cases.is_empty(),
            "all guests with this in their name are User-Mode Linux"
        );
    }

    let programs = build_guest_programs()?;
    let daemon = match daemon {
        // What runs in guests runs here as well, and is built once.
        None => Program::Innkeeper(programs.innkeeper.clone()),
        Some("virtiofsd") => Program::virtiofsd(&setup::peer()?),
        Some(command) => Program::Other(command.split_whitespace().map(str::to_owned).collect()),
    };
    let lab = Lab::new(parts, programs, daemon);
    let base = target()?.join("guests");
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Relaxed)) {
            let passed = case.run(&lab, &base);
            failed.fetch_add(usize::from(!passed), Relaxed);
        }
    };
    std::thread::scope(|scope| (0..at_once()).for_each(|_| drop(scope.spawn(work))));
    let failed = failed.into_inner();
    println!(
        "guests: {} passed, {failed} failed, {skipped} skipped",
        cases.len() - failed
    );
    if failed == 0 {
        Ok(())
    } else {
        bail!("{failed} guests failed")
    }
}

/// Whether the set-up has User-Mode Linux and this host runs it; why not, if not.
fn uml_runs(parts: &Parts) -> Result<(), String> {
    let uml = parts.uml.as_ref().map_err(String::clone)?;
    probe(uml).map_err(|error| format!("this host does not run it: {error:#}"))
}

/// A guest keeps little more than a processor busy, its daemon's part included.
fn at_once() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| processors.get().min(AT_ONCE_AT_MOST))
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
        assert!(names(false).iter().all(|name| !name.contains("uml")));
        assert!(names(true).contains(&"root/qemu11-generic/packed/4q".to_owned()));
        assert!(names(true).contains(&"uml-split-root".to_owned()));
    }
}
