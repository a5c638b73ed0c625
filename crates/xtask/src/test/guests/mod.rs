//! Tests in real guests.

mod boot;
mod cases;
mod dax;
mod devices;
mod root;
mod suites;
mod tracefs;
mod uml;
mod why;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use self::cases::{Body, Case, Selection, When, cases};
use super::{build_guest_programs, target};
use crate::guest::Lab;
use crate::guest::daemon::Program;
use crate::guest::uml::probe;
use crate::setup::{self, Parts};

/// From init to what a short job prints, under TCG on a busy machine.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// Guests that run at the same time; each has a gigabyte of memory, or two.
const AT_ONCE_AT_MOST: usize = 4;

/// How many guests of one kind were run, and how long they took together.
#[derive(Default)]
struct Tally {
    guests: usize,
    time: Duration,
}

impl Case {
    /// Runs it in a directory of its own below `base` and prints the result; returns whether it passed and how long it took.
    fn run(&self, lab: &Lab, base: &Path) -> (bool, Duration) {
        let directory = base.join(self.name.replace('/', "-"));
        let started = Instant::now();
        let result = fresh(&directory)
            .and_then(|()| (self.body)(lab, self.variant, &directory))
            .and_then(|seen| {
                fs::remove_dir_all(&directory).with_context(|| format!("cannot remove {}", directory.display()))?;
                Ok(seen)
            });
        let time = started.elapsed();
        let seconds = time.as_secs_f64();
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
        (result.is_ok(), time)
    }
}

/// One line for each guest: its name, and whether an ordinary run leaves it out.
pub(crate) fn list(ours: bool) -> Result<Vec<String>> {
    let line = |case: Case| match case.when {
        When::Ordinary => case.name,
        When::WithAll => format!("{} (with --guest all)", case.name),
    };
    Ok(cases(ours)?.into_iter().map(line).collect())
}

/// Runs the cases that `text` after `--guest` selects, on our daemon or on `daemon`.
pub(crate) fn run(parts: &Parts, text: Option<&str>, daemon: Option<&str>) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the guests need root: their files include device nodes and have many owners"
    );
    let selection = Selection::from_text(text);
    let mut cases = cases(daemon.is_none())?;
    cases.retain(|case| selection.has(case));
    ensure!(
        !cases.is_empty(),
        "no guest's name contains this: see `cargo xtask test --list`"
    );

    let mut skipped = 0;
    if cases.iter().any(Case::is_uml)
        && let Err(reason) = uml_runs(parts)
    {
        let all = cases.len();
        cases.retain(|case| !case.is_uml());
        skipped = all - cases.len();
        println!("  skipped {skipped} User-Mode Linux guests: {reason}");
        ensure!(
            !cases.is_empty(),
            "all guests whose names contain this are User-Mode Linux"
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
    let (qemu, uml) = (Mutex::new(Tally::default()), Mutex::new(Tally::default()));
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Relaxed)) {
            let (passed, time) = case.run(&lab, &base);
            failed.fetch_add(usize::from(!passed), Relaxed);
            let kind = if case.is_uml() { &uml } else { &qemu };
            let mut tally = kind.lock().unwrap_or_else(PoisonError::into_inner);
            tally.guests += 1;
            tally.time += time;
        }
    };
    let at_once = at_once();
    std::thread::scope(|scope| (0..at_once).for_each(|_| drop(scope.spawn(work))));
    let failed = failed.into_inner();
    for (kind, tally) in [("QEMU", qemu), ("User-Mode Linux", uml)] {
        let Tally { guests, time } = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
        println!(
            "{kind}: {guests} guests took {:.0} s in total; {at_once} ran at a time",
            time.as_secs_f64()
        );
    }
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
