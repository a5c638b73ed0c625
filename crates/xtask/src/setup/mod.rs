//! `cargo xtask setup`: everything that tests, benchmarks and the demo need, made once per machine.

mod busybox;
mod kernel;
mod packages;
mod qemu11;
mod tools;
mod uml;

use std::fs::File;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;

use crate::cache::Cache;
use crate::pins;
use packages::Apt;

/// What boots a guest from a directory: all that the demo needs.
#[derive(Debug, Clone)]
pub(crate) struct BootParts {
    /// Boots from a shared directory as it is.
    pub(crate) kernel: PathBuf,
    /// A guest root with busybox, two GNU programs and an init; copied for each guest, never booted itself.
    pub(crate) root: PathBuf,
    pub(crate) qemu: PathBuf,
}

/// What tests and benchmarks need.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) boot: BootParts,
    /// The installed tree of the kernel that needs modules: `vmlinuz` and `lib/modules`.
    pub(crate) kernel_with_modules: PathBuf,
    pub(crate) new_qemu: PathBuf,
    /// User-Mode Linux, or why it is not there: guests other than its own can do without.
    pub(crate) uml: Result<Uml, String>,
    /// The POSIX suite, a static program.
    pub(crate) pjdfstest: PathBuf,
}

/// One set-up at work: no other one uses the cache meanwhile.
struct Setup {
    cache: Cache,
    apt: Apt,
    started: Instant,
    _lock: File,
}

impl Setup {
    fn begin() -> Result<Setup> {
        let started = Instant::now();
        let cache = Cache::open()?;
        println!("Setting up in {}", cache.root().display());
        let lock = cache.lock()?;
        Ok(Setup {
            cache,
            apt: Apt::new(),
            started,
            _lock: lock,
        })
    }

    fn boot_parts(&self) -> Result<BootParts> {
        self.apt.install(pins::BOOT_PACKAGES)?;
        let kernel = kernel::install(&self.cache, &self.apt, &pins::KERNEL)?;
        Ok(BootParts {
            kernel: kernel.join("vmlinuz"),
            root: busybox::install(&self.cache)?,
            qemu: pins::HOST_QEMU.into(),
        })
    }

    fn parts(&self) -> Result<Parts> {
        let Setup { cache, apt, .. } = self;
        let boot = self.boot_parts()?;
        apt.install(pins::TEST_PACKAGES)?;
        let kernel_with_modules = kernel::install(cache, apt, &pins::KERNEL_WITH_MODULES)?;
        let new_qemu = qemu11::install(cache, apt)?;
        let uml = uml::install(cache, apt, &qemu11::tree(cache)).map_err(|error| format!("{error:#}"));
        if let Err(reason) = &uml {
            println!("  skipped  {}  ({reason})", uml::PART);
        }
        let pjdfstest = tools::install(cache, &pins::PJDFSTEST)?;
        tools::install(cache, &pins::CARGO_DENY)?;
        tools::install_unless_there(cache, &pins::CARGO_NEXTEST)?;
        Ok(Parts {
            boot,
            kernel_with_modules,
            new_qemu,
            uml,
            pjdfstest,
        })
    }

    fn end(self) {
        println!("Set up in {:.0} s", self.started.elapsed().as_secs_f64());
    }
}

/// Makes what is missing for tests and benchmarks, and says what is there.
pub(crate) fn all() -> Result<Parts> {
    let setup = Setup::begin()?;
    let parts = setup.parts()?;
    setup.end();
    Ok(parts)
}

/// Makes what is missing to boot a guest, and says what is there.
pub(crate) fn to_boot() -> Result<BootParts> {
    let setup = Setup::begin()?;
    let parts = setup.boot_parts()?;
    setup.end();
    Ok(parts)
}

/// Builds the peer daemon and returns its binary.
pub(crate) fn peer() -> Result<PathBuf> {
    let setup = Setup::begin()?;
    setup.apt.install(pins::PEER_PACKAGES)?;
    tools::install(&setup.cache, &pins::VIRTIOFSD)
}

/// Installs what the fuzz targets need, and returns the program that runs them.
pub(crate) fn fuzzer() -> Result<PathBuf> {
    let setup = Setup::begin()?;
    setup.apt.install(pins::FUZZ_PACKAGES)?;
    tools::install_unless_there(&setup.cache, &pins::CARGO_FUZZ)
}

pub(crate) use busybox::copy_root;
pub(crate) use tools::{TARGET, binary as tool};
pub(crate) use uml::Uml;
