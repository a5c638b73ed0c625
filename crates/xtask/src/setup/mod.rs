//! `cargo xtask setup`: everything that the real tests and the demo need, made once for each machine.

mod busybox;
mod kernel;
mod packages;
mod qemu11;
mod tools;
mod uml;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;

use crate::cache::Cache;
use crate::choices;
use packages::Apt;

/// What set-up left behind, for tests and demo to use.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    /// Boots from a shared directory as it is.
    pub(crate) kernel: PathBuf,
    /// The installed tree of the kernel that needs modules: `vmlinuz` and `lib/modules`.
    pub(crate) kernel_with_modules: PathBuf,
    /// A guest root with busybox, two GNU programs, pjdfstest and an init; copied for each guest, never booted itself.
    pub(crate) root: PathBuf,
    pub(crate) qemu: PathBuf,
    pub(crate) new_qemu: PathBuf,
    /// User-Mode Linux, or why it is not there: guests other than its own can do without.
    pub(crate) uml: Result<Uml, String>,
}

/// Makes what is missing and says what is there.
pub(crate) fn run() -> Result<Parts> {
    let started = Instant::now();
    let cache = Cache::open()?;
    println!("Setting up in {}", cache.root().display());
    let _lock = cache.lock()?;
    let apt = Apt::new();
    apt.install(choices::PACKAGES)?;
    let kernel = kernel::install(&cache, &apt, &choices::KERNEL)?;
    let kernel_with_modules = kernel::install(&cache, &apt, &choices::KERNEL_WITH_MODULES)?;
    let new_qemu = qemu11::install(&cache, &apt)?;
    let uml = uml::install(&cache, &apt, &qemu11::tree(&cache)).map_err(|error| format!("{error:#}"));
    if let Err(reason) = &uml {
        println!("  skipped  {}  ({reason})", uml::PART);
    }
    let pjdfstest = tools::install(&cache, &choices::PJDFSTEST)?;
    tools::install(&cache, &choices::CARGO_DENY)?;
    tools::install_unless_there(&cache, &choices::CARGO_NEXTEST)?;
    let root = busybox::install(&cache, &pjdfstest)?;
    println!("Set up in {:.0} s", started.elapsed().as_secs_f64());
    Ok(Parts {
        kernel: kernel.join("vmlinuz"),
        kernel_with_modules,
        root,
        qemu: choices::HOST_QEMU.into(),
        new_qemu,
        uml,
    })
}

/// Builds the peer daemon too and returns its binary.
pub(crate) fn peer() -> Result<PathBuf> {
    let cache = Cache::open()?;
    let _lock = cache.lock()?;
    Apt::new().install(choices::PEER_PACKAGES)?;
    tools::install(&cache, &choices::VIRTIOFSD)
}

/// Installs what the fuzz targets need, and returns the program that runs them.
pub(crate) fn fuzzer() -> Result<PathBuf> {
    let cache = Cache::open()?;
    let _lock = cache.lock()?;
    Apt::new().install(choices::FUZZ_PACKAGES)?;
    tools::install_unless_there(&cache, &choices::CARGO_FUZZ)
}

pub(crate) use busybox::copy_root;
pub(crate) use tools::{TARGET, binary as tool};
pub(crate) use uml::Uml;
