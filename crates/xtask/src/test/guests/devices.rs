//! Tests of one device each: `innkeeper boot` with the device's option, and a script in the guest that uses it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{BOOT_LIMIT, boot};
use crate::guest::Lab;
use crate::guest::qemu::Variant;
use crate::setup::copy_root;
use crate::test::workspace;

/// Holds the scripts, one a device; its README says what they are.
const FOLDER: &str = "crates/xtask/guest/devices";

/// The script of one device, named as the option of `innkeeper boot` that adds the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) name: String,
    path: PathBuf,
}

/// All scripts, sorted by name.
pub(super) fn scripts() -> Result<Vec<Script>> {
    scripts_in(&workspace()?.join(FOLDER))
}

fn scripts_in(folder: &Path) -> Result<Vec<Script>> {
    let list = || format!("cannot list the scripts of devices in {}", folder.display());
    let mut scripts = Vec::new();
    for entry in fs::read_dir(folder).with_context(list)? {
        let path = entry.with_context(list)?.path();
        if path.extension().is_some_and(|extension| extension == "sh") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            scripts.push(Script { name, path });
        }
    }
    scripts.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(scripts)
}

impl Script {
    /// Boots a guest with the device and runs the script there, which must end with status 0. Returns its last line.
    pub(super) fn run(&self, lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
        let root = directory.join("root");
        fs::create_dir(&root)?;
        copy_root(&lab.parts.boot.root, &root)?;
        let file = format!("{}.sh", self.name);
        fs::copy(&self.path, root.join(&file))
            .with_context(|| format!("cannot copy {} into the root", self.path.display()))?;
        let mut command = boot::command(lab, variant, &root, &lab.parts.boot.kernel, BOOT_LIMIT)?;
        command.arg(format!("--{}", self.name));
        let format = if variant.packed { "packed" } else { "split" };
        command.args(["--ring", format, "--", "/bin/sh", &format!("/{file}"), format]);
        let printed = boot::finish(command, 0)?;
        Ok(last_line(&printed).to_owned())
    }
}

/// The last line that is not blank, as a terminal shows it.
fn last_line(printed: &str) -> &str {
    let lines = printed.lines().rev().map(str::trim);
    lines.into_iter().find(|line| !line.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_the_files_of_the_folder_that_end_in_sh() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["second.sh", "first.sh", "README.md"] {
            fs::write(folder.path().join(file), "").unwrap();
        }
        let names: Vec<_> = scripts_in(folder.path())
            .unwrap()
            .into_iter()
            .map(|script| script.name)
            .collect();
        assert_eq!(names, ["first", "second"]);
    }

    #[test]
    fn the_last_line_with_words_is_what_was_seen() {
        assert_eq!(last_line("one\r\ntwo words\r\n\r\n"), "two words");
        assert_eq!(last_line(""), "");
    }
}
