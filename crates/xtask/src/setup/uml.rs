//! User-Mode Linux: a Linux kernel that runs as a process of the host and is itself a vhost-user front end.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::packages::Apt;
use crate::cache::Cache;
use crate::pins::{UML_PACKAGE, UML_SUITES};
use crate::run::output;

pub(super) const PART: &str = "uml";
const PROGRAM: &str = "linux.uml";
const ROOT: &str = "root";
const BUSYBOX: &str = "/bin/busybox";

/// Loads the modules and makes the share with the guest's real root the root.
const INIT: &str = include_str!("../../guest/uml_init");

/// Modules in the order in which they are loaded.
const MODULES: [&str; 2] = ["fuse.ko", "virtiofs.ko"];

#[derive(Debug, Clone)]
pub(crate) struct Uml {
    pub(crate) program: PathBuf,
    /// Libraries that are as new as the program wants them, for it alone.
    pub(crate) libraries: PathBuf,
    /// The directory that the kernel starts from: enough to mount a share. No guest writes there.
    pub(crate) root: PathBuf,
}

/// Fails if no suite has the package, or if its kernel cannot be started here. `tree` is that of a newer release.
pub(crate) fn install(cache: &Cache, apt: &Apt, tree: &Path) -> Result<Uml> {
    let loader = tree.join("usr/lib64/ld-linux-x86-64.so.2");
    let libraries = tree.join("usr/lib/x86_64-linux-gnu");
    let place = cache.part(PART).join(ROOT);
    ensure!(
        !place
            .as_os_str()
            .as_bytes()
            .iter()
            .any(|&byte| byte.is_ascii_whitespace() || byte == b',' || byte == b'"'),
        "{} cannot appear on a kernel's command line: set INNKEEPER_CACHE to a path without blanks, commas and quotes",
        place.display()
    );
    let mut recipe = DefaultHasher::new();
    (
        UML_PACKAGE,
        UML_SUITES,
        INIT,
        MODULES,
        // Written into the program: a cache that was moved is made anew.
        &loader,
        fs::metadata(BUSYBOX).and_then(|file| file.modified()).ok(),
    )
        .hash(&mut recipe);
    let part = cache.ensure(PART, &format!("recipe {:016x}", recipe.finish()), |part| {
        apt.require(&format!("apt-get download {UML_PACKAGE}"))?;
        let package = part.join("package");
        let suite = apt.unpack_of(UML_SUITES, UML_PACKAGE, &package)?;
        let mut program = fs::read(package.join("usr/bin").join(PROGRAM))
            .with_context(|| format!("{UML_PACKAGE} has no usr/bin/{PROGRAM}"))?;
        set_interpreter(&mut program, &loader)?;
        let to = part.join(PROGRAM);
        fs::write(&to, program).with_context(|| format!("cannot write {}", to.display()))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).context("cannot make it executable")?;
        make_root(&package, &part.join(ROOT))?;
        fs::remove_dir_all(&package).context("cannot drop the unpacked package")?;
        let version = output(Command::new(&to).arg("--version").env("LD_LIBRARY_PATH", &libraries))?;
        println!("           Linux {} from {suite}", version.trim());
        Ok(())
    })?;
    Ok(Uml {
        program: part.join(PROGRAM),
        libraries,
        root: part.join(ROOT),
    })
}

fn make_root(package: &Path, root: &Path) -> Result<()> {
    for directory in ["bin", "dev", "lib", "mnt"] {
        let path = root.join(directory);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).context("cannot copy busybox")?;
    let modules = package.join("usr/lib/uml/modules");
    let mut versions = fs::read_dir(&modules).with_context(|| format!("cannot list {}", modules.display()))?;
    let version = versions
        .next()
        .with_context(|| format!("{} is empty", modules.display()))??;
    for module in MODULES {
        fs::copy(
            version.path().join("kernel/fs/fuse").join(module),
            root.join("lib").join(module),
        )
        .with_context(|| format!("{UML_PACKAGE} has no {module}"))?;
    }
    let init = root.join("init");
    fs::write(&init, INIT).context("cannot write the init")?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).context("cannot make the init executable")
}

/// Has the kernel start the 64-bit program `elf` with `loader`. User-Mode Linux executes itself anew, so that it cannot be
/// started by naming the loader. The path is put behind all else in the file, since the place of the old one is too short:
/// the kernel reads it from the file. The program's memory keeps the old path, under which the loader knows itself.
fn set_interpreter(elf: &mut Vec<u8>, loader: &Path) -> Result<()> {
    const PT_INTERP: u64 = 3;
    /// Of the fields in the file's header and in a program header.
    const HEADERS: usize = 32;
    const HEADER_SIZE: usize = 54;
    const HEADER_COUNT: usize = 56;
    const OFFSET: usize = 8;
    const SIZE: usize = 32;
    ensure!(
        elf.starts_with(b"\x7fELF\x02\x01"),
        "{PROGRAM} is not a 64-bit little-endian ELF file"
    );
    let first = number(elf, HEADERS, 8)? as usize;
    let size = number(elf, HEADER_SIZE, 2)? as usize;
    for index in 0..number(elf, HEADER_COUNT, 2)? as usize {
        let header = first.saturating_add(index * size);
        if number(elf, header, 4)? == PT_INTERP {
            let mut path = loader.as_os_str().as_bytes().to_vec();
            path.push(0);
            // Both lie in the file: the kind was read in front of them.
            for (field, value) in [(OFFSET, elf.len()), (SIZE, path.len())] {
                let at = header + field;
                let place = elf.get_mut(at..at + 8).context("a program header is cut off")?;
                place.copy_from_slice(&(value as u64).to_le_bytes());
            }
            elf.extend(path);
            return Ok(());
        }
    }
    anyhow::bail!("{PROGRAM} names no loader")
}

/// The little-endian number of `length` bytes at `at`.
fn number(bytes: &[u8], at: usize, length: usize) -> Result<u64> {
    let field = at.checked_add(length).and_then(|end| bytes.get(at..end));
    let field = field.context("an ELF header is cut off")?;
    Ok(field
        .iter()
        .rev()
        .fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file header, and program headers of the kinds `kinds`.
    fn elf(kinds: &[u8]) -> Vec<u8> {
        let mut elf = vec![0; 64 + 56 * kinds.len()];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = kinds.len() as u8;
        for (index, &kind) in kinds.iter().enumerate() {
            elf[64 + 56 * index] = kind;
        }
        elf
    }

    #[test]
    fn the_kernel_finds_the_new_loader_at_the_end() {
        let mut program = elf(&[6, 3, 1]);
        let before = program.clone();
        set_interpreter(&mut program, Path::new("/a/loader")).unwrap();
        let header = 64 + 56;
        assert_eq!(number(&program, header + 8, 8).unwrap(), before.len() as u64);
        assert_eq!(number(&program, header + 32, 8).unwrap(), 10);
        assert_eq!(&program[before.len()..], b"/a/loader\0");
        assert_eq!(program[header + 16..header + 32], before[header + 16..header + 32]);
        assert_eq!(program[..header + 8], before[..header + 8]);
    }

    #[test]
    fn what_cannot_be_patched_is_an_error() {
        let cut = elf(&[6, 3])[..130].to_vec();
        for mut program in [elf(&[6, 1]), cut, b"#!/bin/sh".to_vec(), b"\x7fELF\x02\x01".to_vec()] {
            assert!(set_interpreter(&mut program, Path::new("/a")).is_err());
        }
    }
}
