//! The interpreter of a program: that of a script, or the loader of an ELF program.
//!
//! If it is missing, execve() returns ENOENT for an existing file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Whoever serves the file may be stopped as well (a FUSE server that is traced): that long is waited for it.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of a script's first line that the kernel looks at (`BINPRM_BUF_SIZE`).
const LINE: usize = 256;
/// The longest path that the kernel takes.
const PATH_MAX: u64 = 4096;
/// The kind of a program header that names the loader (`PT_INTERP`).
const NAMES_LOADER: u32 = 3;

/// A program's helper that is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interpreter {
    /// The program that was to be executed.
    pub program: PathBuf,
    /// Its helper, as the program has it.
    pub name: String,
    /// How the program asks for it.
    pub needed: Needed,
}

/// How a program asks for its helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Needed {
    /// In its first line, `#!`.
    Script,
    /// In a program header.
    Loader,
}

impl Interpreter {
    /// Of the program at this absolute path as the thread sees it, if that is there and its helper is not.
    pub(super) fn missing(thread: i32, program: &Path) -> Option<Self> {
        let (found, wait) = mpsc::channel();
        let path = program.to_owned();
        // What waits for a server for ever ends with this process.
        thread::spawn(move || found.send(missing(thread, &path).unwrap_or(None)));
        let (name, needed) = wait.recv_timeout(PATIENCE).ok()??;
        Some(Self {
            program: program.to_owned(),
            name,
            needed,
        })
    }
}

fn missing(thread: i32, program: &Path) -> io::Result<Option<(String, Needed)>> {
    // The root that the thread has: its links must not lead to files of ours.
    let root = open(
        format!("/proc/{thread}/root"),
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let program = inside(&root, program)?;
    // To open a device can do something.
    if FileType::from_raw_mode(fstat(&program)?.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let Some((name, needed)) = needed(&mut readable(&program)?)? else {
        return Ok(None);
    };
    // A relative name is looked for where the thread is, which may be known by the next call only.
    let is_missing = name.starts_with('/') && matches!(inside(&root, Path::new(&name)), Err(Errno::NOENT));
    Ok(is_missing.then_some((name, needed)))
}

fn inside(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    openat2(
        root,
        path,
        flags,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

fn readable(file: &OwnedFd) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?.into())
}

fn needed(mut file: &mut File) -> io::Result<Option<(String, Needed)>> {
    let mut head = Vec::new();
    (&mut file).take(LINE as u64).read_to_end(&mut head)?;
    if let Some(name) = script(&head) {
        return Ok(Some((name, Needed::Script)));
    }
    Ok(loader(&head, file)?.map(|name| (name, Needed::Loader)))
}

/// The first word behind `#!`.
fn script(head: &[u8]) -> Option<String> {
    let line = head.strip_prefix(b"#!")?;
    let line = line.split(|&byte| byte == b'\n').next()?;
    let mut words = line
        .split(|byte| matches!(byte, b' ' | b'\t'))
        .filter(|word| !word.is_empty());
    Some(String::from_utf8_lossy(words.next()?).into_owned())
}

/// The text that the first program header of the kind `PT_INTERP` leads to, in ELF files of 64 bits.
fn loader(head: &[u8], file: &mut (impl Read + Seek)) -> io::Result<Option<String>> {
    let number = |bytes: &[u8], at: usize, length: usize| {
        let bytes = bytes.get(at..at + length)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0_u64, |number, byte| number << 8 | u64::from(*byte)),
        )
    };
    // Of 64 bits, little-endian.
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return Ok(None);
    }
    let (Some(headers), Some(size), Some(count)) = (number(head, 32, 8), number(head, 54, 2), number(head, 56, 2))
    else {
        return Ok(None);
    };
    for index in 0..count {
        let mut header = [0; 56];
        let Some(at) = headers.checked_add(index * size) else {
            break;
        };
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut header)?;
        if number(&header, 0, 4) == Some(NAMES_LOADER.into()) {
            let (at, length) = (number(&header, 8, 8).unwrap_or(0), number(&header, 32, 8).unwrap_or(0));
            let mut name = Vec::new();
            file.seek(SeekFrom::Start(at))?;
            file.take(length.min(PATH_MAX)).read_to_end(&mut name)?;
            let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
            return Ok(Some(String::from_utf8_lossy(name).into_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn of(bytes: &[u8]) -> Option<(String, Needed)> {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("program");
        fs::write(&program, bytes).unwrap();
        needed(&mut File::open(program).unwrap()).unwrap_or(None)
    }

    fn missing(program: &Path) -> Option<Interpreter> {
        Interpreter::missing(std::process::id().cast_signed(), program)
    }

    #[test]
    fn a_script_names_its_interpreter() {
        let script = |name: &str| Some((name.to_owned(), Needed::Script));
        assert_eq!(of(b"#!/no/such -x\nrest"), script("/no/such"));
        assert_eq!(of(b"#! /bin/sh\n"), script("/bin/sh"));
        assert_eq!(of(b"#!/bin/sh\r\nexit\r\n"), script("/bin/sh\r"));
        assert_eq!(of(b"#!\n/bin/sh"), None);
        assert_eq!(of(b""), None);
    }

    #[test]
    fn a_program_names_its_loader() {
        let own = std::env::current_exe().unwrap();
        let (name, needed) = needed(&mut File::open(own).unwrap()).unwrap().unwrap();
        assert!(name.contains("ld-linux"), "{name}");
        assert_eq!(needed, Needed::Loader);
    }

    #[test]
    fn a_broken_program_has_none_and_a_missing_one_neither() {
        let mut head = b"\x7fELF\x02\x01".to_vec();
        head.resize(64, 0xff);
        assert_eq!(of(&head), None);
        assert_eq!(missing(Path::new("/no/such")), None);
        assert_eq!(missing(Path::new("/proc")), None);
        assert_eq!(missing(Path::new("/dev/null")), None);
    }

    #[test]
    fn a_helper_is_missing_only_if_it_is_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("script");
        fs::write(&script, "#!/no/such -x\n").unwrap();
        assert_eq!(missing(&script).unwrap().name, "/no/such");
        fs::write(&script, "#!/bin/sh\n").unwrap();
        assert_eq!(missing(&script), None);
        fs::write(&script, "#!/bin/sh\r\n").unwrap();
        assert_eq!(missing(&script).unwrap().name, "/bin/sh\r");
    }
}
