//! The POSIX suite, and the copy of a tree with everything that a copy can get wrong; plain and over DAX.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::guest::daemon::Sharing;
use crate::guest::qemu::Variant;
use crate::guest::{Guest, Lab};
use crate::tree;

/// Under TCG on a busy machine.
const SUITE_LIMIT: Duration = Duration::from_secs(600);
const TREE_LIMIT: Duration = Duration::from_secs(1200);

/// What pjdfstest 0.2.2 has for Linux: as many as pass on the file systems of the host itself.
const SUITE_PASSES: u32 = 382;

const SUITE_JOB: &str = include_str!("../../../guest/pjdfstest.sh");
const SUITE_SETTINGS: &str = include_str!("../../../guest/pjdfstest.toml");
const TREE_JOB: &str = include_str!("../../../guest/tree.sh");

/// The POSIX suite passes on the root as it does on a local file system.
pub(super) fn posix(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    let guest = Guest::new(lab, variant, directory, SUITE_JOB)?;
    run_suite(lab, guest)
}

/// The same in a directory that is mounted with DAX.
pub(super) fn posix_over_dax(lab: &Lab, variant: Variant, directory: &Path, options: &str) -> Result<String> {
    let job = format!("options={options}\n{SUITE_JOB}");
    let mut guest = Guest::new(lab, variant, directory, &job)?;
    let share = directory.join("suite");
    fs::create_dir(&share)?;
    guest.share(&share, "suite", Sharing::Dax(64))?;
    run_suite(lab, guest)
}

/// Puts the suite into the root and runs it; returns the summary.
fn run_suite(lab: &Lab, mut guest: Guest<'_>) -> Result<String> {
    let root = guest.root();
    fs::copy(&lab.parts.pjdfstest, root.join("bin/pjdfstest")).context("cannot copy pjdfstest into the root")?;
    fs::write(root.join("etc/pjdfstest.toml"), SUITE_SETTINGS).context("cannot write the settings of pjdfstest")?;
    let result = guest.run(SUITE_LIMIT);
    let printed = match &result {
        Ok(printed) => printed.clone(),
        // The suite's own list of failures says more than its status.
        Err(_) => guest.printed(),
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
    let printed = result?;
    let window = printed.lines().find(|line| line.contains("Cache len"));
    let mut seen = summary.to_owned();
    if window.is_some() {
        let counts = guest.window_counts("suite")?;
        ensure!(
            counts.mapped > 0 && counts.mapped == counts.unmapped,
            "no file was mapped, or mappings leaked: {counts:?}"
        );
        seen.push_str(&format!("; {} mappings", counts.mapped));
    }
    guest.check_daemons_live()?;
    guest.finish()?;
    Ok(seen)
}

/// The number in front of `word`: `12 passed` has 12.
fn number_before(text: &str, word: &str) -> Option<u32> {
    let words: Vec<&str> = text.split([' ', ',']).filter(|part| !part.is_empty()).collect();
    let at = words.iter().position(|part| *part == word)?;
    words.get(at.checked_sub(1)?)?.parse().ok()
}

/// A gigabyte of files goes into the guest from one share and out again to another, and is the same.
pub(super) fn copied_tree(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    copy(lab, variant, directory, TREE_JOB, Sharing::Plain)
}

/// The same with both shares mounted with DAX.
pub(super) fn copied_tree_over_dax(lab: &Lab, variant: Variant, directory: &Path, options: &str) -> Result<String> {
    let job = format!("options={options}\n{TREE_JOB}");
    copy(lab, variant, directory, &job, Sharing::Dax(64))
}

fn copy(lab: &Lab, variant: Variant, directory: &Path, job: &str, sharing: Sharing) -> Result<String> {
    let [source, copy] = ["source", "target"].map(|name| directory.join(name));
    fs::create_dir(&source)?;
    fs::create_dir(&copy)?;
    let bytes = tree::generate(&source)?;
    let mut guest = Guest::new(lab, variant, directory, job)?;
    guest.share(&source, "source", sharing)?;
    guest.share(&copy, "target", sharing)?;
    let started = Instant::now();
    let result = guest.run(TREE_LIMIT);
    let seconds = started.elapsed().as_secs_f64();
    let found = tree::differences(&source, &copy)?;
    result.with_context(|| format!("differences: {found:#?}"))?;
    ensure!(found.is_empty(), "the copy differs: {found:#?}");
    let mut seen = format!("{} MiB in {seconds:.0} s, equal", bytes >> 20);
    if sharing != Sharing::Plain {
        for tag in ["source", "target"] {
            let counts = guest.window_counts(tag)?;
            ensure!(counts.mapped > 0, "DAX was not used for the {tag}");
            ensure!(counts.mapped == counts.unmapped, "mappings leaked: {counts:?}");
            seen.push_str(&format!(", {tag} {} mappings", counts.mapped));
        }
    }
    guest.check_daemons_live()?;
    guest.finish()?;
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_of_the_suite_is_read_by_its_words() {
        let line = "Summary: 0 failed, 16 skipped, 382 passed, 0 expected failures, 398 total";
        assert_eq!(number_before(line, "failed"), Some(0));
        assert_eq!(number_before(line, "passed"), Some(382));
        assert_eq!(number_before("nothing", "passed"), None);
    }
}
