//! Tests of one device each: `innkeeper boot` with the device's option, and a script in the guest that uses it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{BOOT_LIMIT, boot};
use crate::guest::Lab;
use crate::guest::qemu::Variant;
use crate::setup::copy_root;
use crate::test::workspace;

/// Holds the scripts, one a device; its README says what they are.
const FOLDER: &str = "crates/xtask/guest/devices";
/// What they have in common, which they read from the guest's root.
const FEATURES: &str = include_str!("../../../guest/features.sh");

/// The script of one device, named as the option of `innkeeper boot` that adds the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) name: String,
    path: PathBuf,
    /// What the host has to provide, around `innkeeper boot`: a script beside the other one.
    host: Option<PathBuf>,
}

/// Begins the line of a script that has the options of `innkeeper boot` for it, if they are more than the name.
const OPTIONS: &str = "# boot options: ";
/// Stands for the path of an empty disk among these options.
const DISK: &str = "{disk}";
const DISK_SIZE: u64 = 64 << 20;

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
            let host = Some(path.with_extension("host")).filter(|host| host.exists());
            scripts.push(Script { name, path, host });
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
        fs::copy(&lab.programs.exercise, root.join("bin/exercise")).context("cannot copy `exercise` into the root")?;
        let file = format!("{}.sh", self.name);
        let script = fs::read_to_string(&self.path).with_context(|| format!("cannot read {}", self.path.display()))?;
        fs::write(root.join(&file), &script).with_context(|| format!("cannot write {file} into the root"))?;
        fs::write(root.join("features.sh"), FEATURES).context("cannot write features.sh into the root")?;
        let mut command = boot::command(lab, variant, &root, &lab.parts.boot.kernel, BOOT_LIMIT)?;
        let disk = directory.join("disk");
        let options = self.options(&script, &disk);
        if options.iter().any(|option| option.contains(&*disk.to_string_lossy())) {
            let made = fs::File::create(&disk).and_then(|file| file.set_len(DISK_SIZE));
            made.with_context(|| format!("cannot make {}", disk.display()))?;
        }
        command.args(options);
        let format = if variant.packed { "packed" } else { "split" };
        command.args(["--ring", format, "--", "/bin/sh", &format!("/{file}"), format]);
        let printed = boot::finish(self.on_host(command), 0)?;
        Ok(last_line(&printed).to_owned())
    }

    /// What adds the device to the machine; [`DISK`] is replaced by the path `disk`.
    fn options(&self, script: &str, disk: &Path) -> Vec<String> {
        let fill = |word: &str| word.replace(DISK, &disk.to_string_lossy());
        match script.lines().find_map(|line| line.strip_prefix(OPTIONS)) {
            Some(options) => options.split_whitespace().map(fill).collect(),
            None => vec![format!("--{}", self.name)],
        }
    }

    /// Runs `command` by the host's script, in a network namespace where it disturbs nobody.
    fn on_host(&self, command: Command) -> Command {
        let Some(host) = &self.host else { return command };
        let mut outer = Command::new("unshare");
        outer.args(["--net", "/bin/sh"]).arg(host);
        outer.arg(command.get_program()).args(command.get_args());
        outer
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
    fn a_script_may_say_its_options_and_have_one_for_the_host() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["one.sh", "two.sh", "two.host"] {
            fs::write(folder.path().join(file), "").unwrap();
        }
        let [one, two] = scripts_in(folder.path()).unwrap().try_into().unwrap();
        let disk = Path::new("/d");
        assert_eq!(one.options("echo", disk), ["--one"]);
        let options = two.options("# x\n# boot options: --two a:b --disk {disk},readonly\n", disk);
        assert_eq!(options, ["--two", "a:b", "--disk", "/d,readonly"]);
        let mut command = Command::new("innkeeper");
        command.arg("boot");
        assert_eq!(one.on_host(Command::new("innkeeper")).get_program(), "innkeeper");
        let command = two.on_host(command);
        let host = folder.path().join("two.host");
        let expected = ["--net", "/bin/sh", host.to_str().unwrap(), "innkeeper", "boot"];
        assert!(command.get_args().eq(expected));
    }

    #[test]
    fn the_last_line_with_words_is_what_was_seen() {
        assert_eq!(last_line("one\r\ntwo words\r\n\r\n"), "two words");
        assert_eq!(last_line(""), "");
    }
}
