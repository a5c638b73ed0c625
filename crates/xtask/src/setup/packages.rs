//! Debian packages, through apt as the machine configures it.

use std::cell::Cell;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{exists, output, quietly};

/// Debian's keys, which every Debian has.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// apt for one set-up: its lists are brought up to date at most once, and only when something is missing.
pub(crate) struct Apt {
    updated: Cell<bool>,
}

impl Apt {
    pub(crate) fn new() -> Apt {
        Apt {
            updated: Cell::new(false),
        }
    }

    /// Installs those packages that are missing and says which were there.
    pub(crate) fn install(&self, packages: &[(&str, &str)]) -> Result<()> {
        let mut missing = Vec::new();
        for &(package, purpose) in packages {
            match version(package) {
                Some(version) => println!("  there    package {package} {version}  ({purpose})"),
                None => missing.push((package, purpose)),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = missing.iter().map(|(package, _)| *package).collect();
        self.require(&format!("sudo apt-get install {}", names.join(" ")))?;
        for (package, purpose) in &missing {
            println!("  install  package {package}  ({purpose})");
        }
        self.update()?;
        quietly(
            apt_get()
                .args(["install", "--yes", "--no-install-recommends"])
                .args(&names),
        )
    }

    /// Brings the package lists up to date, once.
    pub(crate) fn update(&self) -> Result<()> {
        if !self.updated.get() {
            quietly(apt_get().arg("update"))?;
            self.updated.set(true);
        }
        Ok(())
    }

    /// Fails with what the user has to do, where this process cannot do it.
    pub(crate) fn require(&self, instead: &str) -> Result<()> {
        if !exists("apt-get") {
            bail!(
                "setup installs Debian packages, and apt-get is not installed here: run on Debian 12 (setup would run `{instead}`)"
            );
        }
        if !rustix::process::geteuid().is_root() {
            bail!("setup must run as root to install Debian packages: run `{instead}` or run this command as root");
        }
        Ok(())
    }

    /// The package that `package` depends on first: for a kernel's name without a build, its newest build.
    pub(crate) fn first_dependency(&self, package: &str) -> Result<String> {
        let record = output(Command::new("apt-cache").args(["show", "--no-all-versions", package]))?;
        first_dependency(&record).with_context(|| format!("`apt-cache show {package}` names no dependency"))
    }

    /// Unpacks the files of `package` below `directory` without installing it.
    pub(crate) fn unpack(&self, package: &str, directory: &Path) -> Result<()> {
        let download = tempfile::tempdir().context("cannot create a directory for the download")?;
        quietly(apt_get().args(["download", package]).current_dir(download.path()))?;
        extract(download.path(), directory)
    }

    /// Unpacks `package` of the first of `suites` that has it, which this machine need not have among its sources, and
    /// returns that suite. apt does so with lists of its own, verified with Debian's keyring.
    pub(crate) fn unpack_of(&self, suites: &[&'static str], package: &str, directory: &Path) -> Result<&'static str> {
        let mut reasons = Vec::new();
        for &suite in suites {
            match self.try_unpack_of(suite, package, directory) {
                Ok(()) => return Ok(suite),
                Err(error) => reasons.push(format!("{suite}: {}", apt_reason(&format!("{error:#}")))),
            }
        }
        bail!("apt has no package {package} ({})", reasons.join("; "))
    }

    fn try_unpack_of(&self, suite: &str, package: &str, directory: &Path) -> Result<()> {
        let own = tempfile::tempdir().context("cannot create a directory for apt")?;
        let own = own.path();
        let source = format!("deb [signed-by={KEYRING}] {} {suite} main\n", self.mirror()?);
        std::fs::write(own.join("sources.list"), source).context("cannot write apt's sources")?;
        // Nothing is installed here: packages are unpacked without what they depend on.
        std::fs::write(own.join("status"), "").context("cannot write apt's status")?;
        for part in ["lists/partial", "cache/archives/partial", "download"] {
            std::fs::create_dir_all(own.join(part)).context("cannot create apt's directories")?;
        }
        let with_own = || {
            let mut command = apt_get();
            for (name, place) in [
                ("Dir::Etc::sourcelist", own.join("sources.list")),
                ("Dir::Etc::sourceparts", "/dev/null".into()),
                ("Dir::Etc::preferences", "/dev/null".into()),
                ("Dir::Etc::preferencesparts", "/dev/null".into()),
                ("Dir::State::lists", own.join("lists")),
                ("Dir::State::status", own.join("status")),
                ("Dir::Cache", own.join("cache")),
            ] {
                command.arg("-o").arg(format!("{name}={}", place.display()));
            }
            for setting in [
                // The directory is ours alone.
                "APT::Sandbox::User=root",
                "Acquire::Languages=none",
                "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
                // A mirror that lags is signed all the same.
                "Acquire::Check-Valid-Until=false",
            ] {
                command.args(["-o", setting]);
            }
            command
        };
        quietly(with_own().arg("update"))?;
        let download = own.join("download");
        quietly(with_own().args(["download", package]).current_dir(&download))?;
        extract(&download, directory)
    }

    /// Where this machine gets its own release from; the same place serves the other releases.
    pub(crate) fn mirror(&self) -> Result<String> {
        let system = std::fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
        let codename = system
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
            .context("/etc/os-release has no VERSION_CODENAME")?;
        let targets = output(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(SITE)",
            &format!("Release: {codename}"),
            "Component: main",
        ]))?;
        let site = targets.lines().find(|line| !line.is_empty());
        Ok(site
            .with_context(|| format!("apt has no source for {codename} main"))?
            .to_owned())
    }
}

/// Extracts the one package that was downloaded to `download`.
fn extract(download: &Path, directory: &Path) -> Result<()> {
    let mut entries = std::fs::read_dir(download).context("cannot list the download")?;
    let archive = entries.next().context("apt-get downloaded no file")??;
    quietly(Command::new("dpkg").arg("--extract").arg(archive.path()).arg(directory))
}

/// The last line in which apt says what went wrong, or the first line where it says nothing.
fn apt_reason(error: &str) -> &str {
    let mut lines = error.lines().rev().map(str::trim);
    let said = lines.find_map(|line| line.strip_prefix("E: "));
    said.unwrap_or_else(|| error.lines().next().unwrap_or_default())
}

/// apt-get as a script runs it: it asks nothing, and in a language that its messages can be searched in.
fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C")
        .arg("--quiet");
    command
}

fn version(package: &str) -> Option<String> {
    let status =
        output(Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status} ${Version}", package]));
    status.ok()?.strip_prefix("installed ").map(str::to_owned)
}

fn first_dependency(record: &str) -> Option<String> {
    let dependencies = record.lines().find_map(|line| line.strip_prefix("Depends: "))?;
    dependencies
        .split([' ', ',', '|'])
        .next()
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_kernel_package_is_read_from_the_record() {
        let record =
            "Package: linux-image-amd64\nDepends: linux-image-6.12.1+deb12-amd64 (= 6.12.1-1), other\nSize: 1\n";
        assert_eq!(
            first_dependency(record).as_deref(),
            Some("linux-image-6.12.1+deb12-amd64")
        );
        assert_eq!(first_dependency("Package: a\n"), None);
    }

    #[test]
    fn the_reason_is_what_apt_says_last() {
        let error = "`apt-get download x` failed (exit status: 100)\n    E: Unable to locate package x\n";
        assert_eq!(apt_reason(error), "Unable to locate package x");
        assert_eq!(apt_reason("no mirror\nmore"), "no mirror");
    }
}
