//! The fuzz targets: the programs in `fuzz/src/bin`, which cargo finds in the same place.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::test::workspace;

/// Where cargo looks for a package's programs.
const PROGRAMS: &str = "src/bin";

/// One program of the fuzz workspace.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) name: String,
    /// First line of the program's documentation; empty if it has none.
    about: String,
}

/// All targets, sorted by name.
pub(super) struct Targets(Vec<Target>);

impl Targets {
    pub(super) fn find() -> Result<Targets> {
        Targets::below(&fuzz_workspace()?)
    }

    fn below(fuzz: &Path) -> Result<Targets> {
        let directory = fuzz.join(PROGRAMS);
        let list = || format!("cannot list the fuzz targets in {}", directory.display());
        let mut targets = Vec::new();
        for entry in fs::read_dir(&directory).with_context(list)? {
            let path = entry.with_context(list)?.path();
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let source = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            targets.push(Target {
                name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
                about: source
                    .lines()
                    .find_map(|line| line.strip_prefix("//! "))
                    .unwrap_or_default()
                    .to_owned(),
            });
        }
        targets.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Targets(targets))
    }

    /// The target of this name; an error lists the names that exist.
    pub(super) fn get(&self, name: &str) -> Result<&Target> {
        let target = self.0.iter().find(|target| target.name == name);
        target.with_context(|| {
            let names: Vec<&str> = self.0.iter().map(|target| target.name.as_str()).collect();
            format!("there is no fuzz target {name}: choose one of {}", names.join(", "))
        })
    }
}

/// One line for each target.
impl fmt::Display for Targets {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|target| writeln!(to, "{:10} {}", target.name, target.about))
    }
}

/// The workspace of the fuzz targets, apart from the one that xtask lies in.
pub(super) fn fuzz_workspace() -> Result<PathBuf> {
    Ok(workspace()?.join("fuzz"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_the_programs_in_the_folder() {
        let directory = tempfile::tempdir().unwrap();
        let programs = directory.path().join(PROGRAMS);
        fs::create_dir_all(&programs).unwrap();
        fs::write(programs.join("second.rs"), "#![no_main]\n").unwrap();
        fs::write(programs.join("first.rs"), "//! What it does.\n//! More.\n").unwrap();
        fs::write(programs.join("README.md"), "//! no target").unwrap();
        let targets = Targets::below(directory.path()).unwrap();
        assert_eq!(targets.to_string(), "first      What it does.\nsecond     \n");
        assert_eq!(targets.get("second").unwrap().name, "second");
        let error = targets.get("third").unwrap_err().to_string();
        assert_eq!(error, "there is no fuzz target third: choose one of first, second");
    }

    #[test]
    fn every_target_of_the_workspace_has_a_line_about_it() {
        let targets = Targets::find().unwrap();
        assert!(!targets.0.is_empty());
        for target in &targets.0 {
            assert!(!target.about.is_empty(), "{} has no line of documentation", target.name);
        }
    }
}
