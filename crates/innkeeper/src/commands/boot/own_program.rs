//! Innkeeper's own program, packed to run in another root: the guest's first process is innkeeper itself, so that an
//! initramfs needs neither a C compiler nor busybox.
#![expect(
    unsafe_code,
    reason = "dl_iterate_phdr(3) is the only list of the loader's files that needs no other program"
)]

use std::ffi::{CStr, OsStr, c_int, c_void};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Where glibc's loader remembers directories besides the usual ones.
const LOADER_CACHE: &str = "/etc/ld.so.cache";

/// A file the program needs, at the same path in any root.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) path: PathBuf,
    pub(crate) contents: Vec<u8>,
}

/// The running program's file, without what it does not need to run.
pub(crate) fn program() -> io::Result<Vec<u8>> {
    fs::read("/proc/self/exe").map(strip)
}

/// The loader and the libraries of a dynamically linked program; none for a static one.
pub(crate) fn libraries(program: &[u8]) -> io::Result<Vec<Part>> {
    let Some(loader) = elf::interpreter(program) else {
        return Ok(Vec::new());
    };
    let mut paths = loaded_files();
    paths.push(PathBuf::from(OsStr::from_bytes(loader)));
    paths.push(PathBuf::from(LOADER_CACHE));
    paths.sort();
    paths.dedup();
    let mut parts = Vec::new();
    for path in paths {
        match fs::read(&path) {
            Ok(contents) => parts.push(Part {
                path,
                contents: strip(contents),
            }),
            // Not every loader keeps a cache.
            Err(error) if error.kind() == io::ErrorKind::NotFound && path == OsStr::new(LOADER_CACHE) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(parts)
}

/// Cuts off what lies behind the last byte that is mapped: sections, symbols and debug information, most of the file.
fn strip(mut file: Vec<u8>) -> Vec<u8> {
    if let Some(end) = elf::mapped_end(&file).filter(|&end| end <= file.len()) {
        file.truncate(end);
        elf::forget_sections(&mut file);
    }
    file
}

/// The names under which the loader opened every library of this process.
fn loaded_files() -> Vec<PathBuf> {
    unsafe extern "C" fn note(info: *mut libc::dl_phdr_info, _: usize, list: *mut c_void) -> c_int {
        // SAFETY: dl_iterate_phdr passes a valid `info` for the length of the call.
        let name = unsafe { (*info).dlpi_name };
        if !name.is_null() {
            // SAFETY: the loader's names are NUL-terminated and live as long as the library is loaded.
            let name = unsafe { CStr::from_ptr(name) };
            // The program itself has an empty name, the vDSO one without a path.
            if name.to_bytes().starts_with(b"/") {
                // SAFETY: `list` is the vector passed below, borrowed by nobody else during the call.
                let list = unsafe { &mut *list.cast::<Vec<PathBuf>>() };
                list.push(OsStr::from_bytes(name.to_bytes()).into());
            }
        }
        0
    }
    let mut list = Vec::<PathBuf>::new();
    // SAFETY: `note` has the signature asked for, does not unwind, and `list` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut list).cast()) };
    list
}

/// The few fields of a 64-bit little-endian ELF file that matter here (elf(5)).
mod elf {
    const LOAD: u32 = 1;
    const INTERPRETER: u32 = 3;

    struct Segment {
        kind: u32,
        offset: usize,
        size: usize,
    }

    /// The path of the loader, without its NUL.
    pub(super) fn interpreter(file: &[u8]) -> Option<&[u8]> {
        let segment = segments(file)?
            .into_iter()
            .find(|segment| segment.kind == INTERPRETER)?;
        let path = file.get(segment.offset..segment.offset.checked_add(segment.size)?)?;
        path.split(|&byte| byte == 0).next()
    }

    /// Where the last mapped segment ends in the file.
    pub(super) fn mapped_end(file: &[u8]) -> Option<usize> {
        let loads = segments(file)?.into_iter().filter(|segment| segment.kind == LOAD);
        loads
            .filter_map(|segment| segment.offset.checked_add(segment.size))
            .max()
    }

    /// Makes the header say that there is no section table: e_shoff, then e_shnum and e_shstrndx.
    pub(super) fn forget_sections(file: &mut [u8]) {
        file[40..48].fill(0);
        file[60..64].fill(0);
    }

    fn segments(file: &[u8]) -> Option<Vec<Segment>> {
        // The magic, then 64-bit and little-endian.
        if file.len() < 64 || !file.starts_with(b"\x7fELF\x02\x01") {
            return None;
        }
        let table = usize::try_from(u64_at(file, 32)?).ok()?;
        let (size, count) = (u16_at(file, 54)?, u16_at(file, 56)?);
        (0..usize::from(count))
            .map(|index| segment(file, table.checked_add(index * usize::from(size))?))
            .collect()
    }

    fn segment(file: &[u8], at: usize) -> Option<Segment> {
        let kind = u32::from_le_bytes(file.get(at..at.checked_add(4)?)?.try_into().ok()?);
        let offset = usize::try_from(u64_at(file, at.checked_add(8)?)?).ok()?;
        let size = usize::try_from(u64_at(file, at.checked_add(32)?)?).ok()?;
        Some(Segment { kind, offset, size })
    }

    fn u16_at(file: &[u8], at: usize) -> Option<u16> {
        Some(u16::from_le_bytes(file.get(at..at.checked_add(2)?)?.try_into().ok()?))
    }

    fn u64_at(file: &[u8], at: usize) -> Option<u64> {
        Some(u64::from_le_bytes(file.get(at..at.checked_add(8)?)?.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_stripped_program_still_runs() {
        let whole = fs::read("/proc/self/exe").unwrap();
        let stripped = strip(whole.clone());
        assert!(stripped.len() < whole.len());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("copy");
        fs::write(&path, stripped).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let listed = Command::new(&path).arg("--list").output().unwrap();
        assert!(listed.status.success());
        assert!(String::from_utf8_lossy(&listed.stdout).contains("a_stripped_program_still_runs"));
    }

    #[test]
    fn the_loader_comes_with_the_libraries() {
        let program = fs::read("/proc/self/exe").unwrap();
        let parts = libraries(&program).unwrap();
        match elf::interpreter(&program) {
            Some(loader) => assert!(parts.iter().any(|part| part.path == OsStr::from_bytes(loader))),
            None => assert!(parts.is_empty()),
        }
    }

    #[test]
    fn what_is_no_elf_file_is_left_alone() {
        for file in [&b""[..], b"#!/bin/sh\n", b"\x7fELF\x02\x01", &[0xff; 64]] {
            assert_eq!(strip(file.to_vec()), file);
            assert_eq!(elf::interpreter(file), None);
        }
        let mut lying = vec![0xff; 128];
        lying[..6].copy_from_slice(b"\x7fELF\x02\x01");
        assert_eq!(strip(lying.clone()), lying, "offsets outside the file");
    }
}
