//! A directory of tracefs: its top level or one of its instances.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::Error;

/// What `/proc/self/ns/pid` names in the first process namespace (`PROC_PID_INIT_INO`).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// Control files of a tracer.
#[derive(Clone, Debug)]
pub struct Tracefs {
    directory: PathBuf,
}

impl Tracefs {
    /// The mounted tracefs.
    ///
    /// # Errors
    /// It is not mounted, may not be used, or knows processes by other numbers than this process does.
    pub fn find() -> Result<Self, Error> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mounted = mounts.lines().find_map(|line| {
            let mut words = line.split(' ');
            let point = words.nth(1)?;
            (words.next()? == "tracefs").then_some(point)
        });
        let found = Self::at(mounted.ok_or(Error::NotMounted)?);
        if fs::read_link("/proc/self/ns/pid").is_ok_and(|name| name != Path::new(FIRST_PID_NAMESPACE)) {
            return Err(Error::PidNamespace);
        }
        found.read("available_tracers").map_err(Error::permission)?;
        Ok(found)
    }

    /// A directory that is known.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// Where a file is.
    #[must_use]
    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    pub(super) fn has(&self, file: &str) -> bool {
        self.path(file).exists()
    }

    /// Reads a file to its end, without the white space around it.
    pub(super) fn read(&self, file: &str) -> Result<String, Error> {
        let path = self.path(file);
        match read_whole(&path) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).trim().to_owned()),
            Err(source) => Err(Error::File {
                doing: "read".to_owned(),
                path,
                source,
            }),
        }
    }
}

/// Reads with a large buffer: `events/header_page` gives what fits into the first read and then nothing.
fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    let mut text = Vec::new();
    let mut part = vec![0; 1 << 16];
    loop {
        match file.read(&mut part) {
            Ok(0) => return Ok(text),
            Ok(length) => text.extend_from_slice(&part[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl Error {
    /// A refusal said in the words of its reason.
    fn permission(self) -> Self {
        match self {
            Self::File { path, source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                let locked = fs::read_to_string(LOCKDOWN).is_ok_and(|modes| modes.contains("[confidentiality]"));
                if locked { Self::Lockdown } else { Self::NotAllowed(path) }
            }
            other => other,
        }
    }
}

/// Writes in one system call, as the files of tracefs want it: what is there goes first, unless `append`.
pub(super) fn write(path: &Path, text: &str, append: bool) -> Result<(), Error> {
    let open = OpenOptions::new()
        .write(true)
        .truncate(!append)
        .append(append)
        .open(path);
    let written = open.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| {
        Error::File {
            doing: format!("write {text:?} to"),
            path: path.to_owned(),
            source,
        }
        .permission()
    })
}
