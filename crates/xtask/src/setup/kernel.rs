//! Guest kernels from Debian packages, unpacked and never installed on the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::packages::Apt;
use crate::cache::Cache;
use crate::pins::Kernel;
use crate::run::quietly;

/// The part holds `vmlinuz` and `lib/modules/VERSION`.
pub(crate) fn install(cache: &Cache, apt: &Apt, kernel: &Kernel) -> Result<PathBuf> {
    cache.ensure(kernel.part, kernel.package, |part| {
        apt.require(&format!("apt-get download {}", kernel.package))?;
        apt.update()?;
        let package = apt.first_dependency(kernel.package)?;
        println!("           from package {package}");
        apt.unpack(&package, part)?;
        let version = version(part)?;
        fs::rename(
            part.join("boot").join(format!("vmlinuz-{version}")),
            part.join("vmlinuz"),
        )
        .with_context(|| format!("{package} has no boot/vmlinuz-{version}"))?;
        // The package runs depmod when it is installed; here nobody has.
        quietly(Command::new("/sbin/depmod").arg("--basedir").arg(part).arg(version))
    })
}

/// The kernel's release, as its modules' directory is named.
fn version(part: &Path) -> Result<String> {
    let modules = part.join("lib/modules");
    let mut entries = fs::read_dir(&modules).with_context(|| format!("cannot list {}", modules.display()))?;
    let entry = entries
        .next()
        .with_context(|| format!("{} is empty", modules.display()))??;
    Ok(entry.file_name().to_string_lossy().into_owned())
}
