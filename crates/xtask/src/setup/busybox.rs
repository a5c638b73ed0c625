//! The guest's root: static busybox, GNU programs where busybox's do not suffice, and our init.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::run::{output, quietly};

const BUSYBOX: &str = "/bin/busybox";

/// Copied with the libraries they load. Busybox's own `cp` keeps neither holes nor extended attributes. The POSIX suite
/// runs a copy of `sleep` under another name, by which busybox would not know what to be, and end before it was seen.
const HOST_PROGRAMS: &[&str] = &["/bin/cp", "/bin/sleep"];

/// Files of the root, each with its mode.
const FILES: &[(&str, u32, &str)] = &[
    ("init", 0o755, include_str!("../../guest/init")),
    ("etc/passwd", 0o644, include_str!("../../guest/passwd")),
    ("etc/group", 0o644, include_str!("../../guest/group")),
];

const DIRECTORIES: &[(&str, u32)] = &[
    ("bin", 0o755),
    ("etc", 0o755),
    ("root", 0o700),
    ("dev", 0o755),
    ("proc", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
];

pub(crate) fn install(cache: &Cache) -> Result<PathBuf> {
    let mut recipe = DefaultHasher::new();
    (
        FILES,
        DIRECTORIES,
        HOST_PROGRAMS,
        fs::metadata(BUSYBOX).and_then(|file| file.modified()).ok(),
    )
        .hash(&mut recipe);
    cache.ensure("root", &format!("recipe {:016x}", recipe.finish()), |root| {
        for &(directory, mode) in DIRECTORIES {
            let path = root.join(directory);
            fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        }
        for &(name, mode, text) in FILES {
            let path = root.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        }
        copy(Path::new(BUSYBOX), &root.join("bin/busybox"))?;
        // Libraries come first: applets are made for names that are still free, so that GNU's programs stay.
        for program in HOST_PROGRAMS {
            copy_with_libraries(program, root)?;
        }
        for applet in output(Command::new(BUSYBOX).arg("--list"))?.lines() {
            let link = root.join("bin").join(applet);
            if fs::symlink_metadata(&link).is_err() {
                symlink("busybox", &link).with_context(|| format!("cannot link {}", link.display()))?;
            }
        }
        Ok(())
    })
}

/// A fresh root for one guest.
pub(crate) fn copy_root(root: &Path, to: &Path) -> Result<()> {
    quietly(Command::new("cp").arg("-a").arg(root.join(".")).arg(to))
}

/// `ldd` prints the loader and each library with the path that it was found at; they keep these paths in the guest.
fn copy_with_libraries(program: &str, root: &Path) -> Result<()> {
    copy(Path::new(program), &root.join(program.trim_start_matches('/')))?;
    for word in output(Command::new("ldd").arg(program))?
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        copy(
            Path::new(word.trim_end_matches(':')),
            &root.join(word.trim_start_matches('/')),
        )?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}
