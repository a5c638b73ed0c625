//! A newer QEMU than the host's release has, from its own Debian tree, without changes to the host's packages.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::packages::Apt;
use crate::cache::Cache;
use crate::pins::{NEW_QEMU_RELEASE, NEW_QEMU_SUITE};
use crate::run::{output, quietly};

const PART: &str = "qemu-11";
const WRAPPER: &str = "qemu-system-x86_64-11";

/// Runs QEMU outside its tree: its own loader and libraries, the host's files and sockets.
const SCRIPT: &str = r#"#!/bin/sh
tree=$(dirname "$(readlink -f "$0")")/tree
libraries=$tree/usr/lib/x86_64-linux-gnu
exec "$tree/usr/lib64/ld-linux-x86-64.so.2" --library-path "$libraries" "$tree/usr/bin/qemu-system-x86_64" \
    -L "$tree/usr/share/qemu" -L "$tree/usr/share/seabios" "$@"
"#;

/// The tree of the newer release, whose C library programs newer than the host's need.
pub(super) fn tree(cache: &Cache) -> PathBuf {
    cache.part(PART).join("tree")
}

/// Returns the program to run.
pub(crate) fn install(cache: &Cache, apt: &Apt) -> Result<PathBuf> {
    let part = cache.ensure(PART, NEW_QEMU_SUITE, |part| {
        apt.require("debootstrap (as root)")?;
        let tree = part.join("tree");
        quietly(
            Command::new("debootstrap")
                .args([
                    "--variant=minbase",
                    &format!("--extra-suites={NEW_QEMU_SUITE}"),
                    NEW_QEMU_RELEASE,
                ])
                .arg(&tree)
                .arg(apt.mirror()?),
        )?;
        let inside = || {
            let mut command = Command::new("chroot");
            command
                .env("DEBIAN_FRONTEND", "noninteractive")
                .env("LC_ALL", "C")
                .arg(&tree)
                .arg("apt-get");
            command
        };
        quietly(inside().args(["--quiet", "update"]))?;
        let install = [
            "--quiet",
            "install",
            "--yes",
            "--no-install-recommends",
            "--target-release",
            NEW_QEMU_SUITE,
        ];
        quietly(inside().args(install).arg("qemu-system-x86"))?;
        // Nobody installs anything in there again: half of the tree is package lists and archives.
        fs::remove_dir_all(tree.join("var")).context("cannot drop the tree's package lists")?;
        let wrapper = part.join(WRAPPER);
        fs::write(&wrapper, SCRIPT).with_context(|| format!("cannot write {}", wrapper.display()))?;
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))
            .context("cannot make the wrapper executable")?;
        let version = output(Command::new(&wrapper).arg("--version"))?;
        println!("           {}", version.lines().next().unwrap_or_default());
        Ok(())
    })?;
    Ok(part.join(WRAPPER))
}
