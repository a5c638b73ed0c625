//! Programs from crates.io, at pinned versions with the lock file that they were released with.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::pins::Tool;
use crate::run::{exists, quietly};

/// The only target that the guests and the packages above know.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the tool unless it is there, and returns its binary.
pub(crate) fn install(cache: &Cache, tool: &Tool) -> Result<PathBuf> {
    let part = cache.ensure(&part(tool), tool.version, |part| {
        let build = tempfile::tempdir_in(cache.root()).context("cannot create a directory for the build")?;
        let mut command = Command::new("cargo");
        command
            .args(["install", "--locked", "--version", tool.version, tool.name])
            .arg("--root")
            .arg(part);
        // The variables of the cargo that runs us are about this workspace.
        command
            .current_dir(cache.root())
            .env_remove("RUSTFLAGS")
            .env("CARGO_TARGET_DIR", build.path());
        if tool.fixed {
            // With the target named, the flag misses the macros and build scripts, which cannot be linked that way.
            command
                .args(["--target", TARGET])
                .env("RUSTFLAGS", "-C target-feature=+crt-static");
        }
        if !tool.optimised {
            command.arg("--debug").env("CARGO_PROFILE_DEV_DEBUG", "0");
        }
        quietly(&mut command)
    })?;
    Ok(part.join("bin").join(tool.name))
}

/// For a tool that the user may have in any version. Returns its program.
pub(crate) fn install_unless_there(cache: &Cache, tool: &Tool) -> Result<PathBuf> {
    if exists(tool.name) {
        println!("  there    {} (the user's own)", tool.name);
        return Ok(tool.name.into());
    }
    install(cache, tool)
}

/// Where `install` puts the tool, whether or not it is there.
pub(crate) fn binary(tool: &Tool) -> Result<PathBuf> {
    Ok(Cache::open()?.part(&part(tool)).join("bin").join(tool.name))
}

fn part(tool: &Tool) -> String {
    format!("tool-{}", tool.name)
}
