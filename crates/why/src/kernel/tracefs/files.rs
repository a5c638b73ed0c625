//! A directory of tracefs: its top level or one of its instances.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::error::Error;

/// What `/proc/self/ns/pid` names in the first process namespace (`PROC_PID_INIT_INO`).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// Control files of a tracer.
#[derive(Clone, Debug)]
pub struct Tracefs {
    top: PathBuf,
    /// The instance's directory below the top; empty for the top itself.
    below: PathBuf,
    /// Keeps a tracefs that is mounted nowhere.
    mount: Option<Arc<OwnedFd>>,
}

impl Tracefs {
    /// The system's tracefs, where it is mounted or without being mounted anywhere.
    ///
    /// # Errors
    /// The processor is another one than x86-64, there is no tracefs, it may not be used, or it knows processes by other numbers than this process does.
    pub fn find() -> Result<Self, Error> {
        if cfg!(not(target_arch = "x86_64")) {
            return Err(Error::Architecture(std::env::consts::ARCH));
        }
        let found = Self::open()?;
        if fs::read_link("/proc/self/ns/pid").is_ok_and(|name| name != Path::new(FIRST_PID_NAMESPACE)) {
            return Err(Error::PidNamespace);
        }
        found.read("available_tracers").map_err(Error::permission)?;
        Ok(found)
    }

    /// The system's tracefs, whether it may be used or not.
    pub(super) fn open() -> Result<Self, Error> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        match mounted(&mounts) {
            Some(point) => Ok(Self::at(point)),
            None => Self::unmounted(),
        }
    }

    /// A directory that is known.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self {
            top: directory.into(),
            below: PathBuf::new(),
            mount: None,
        }
    }

    /// A tracefs for this process alone, which no other sees.
    fn unmounted() -> Result<Self, Error> {
        let made = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|context| {
            fsconfig_create(context.as_fd())?;
            fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        });
        match made {
            Ok(mount) => Ok(Self {
                top: format!("/proc/self/fd/{}", mount.as_raw_fd()).into(),
                below: PathBuf::new(),
                mount: Some(Arc::new(mount)),
            }),
            Err(Errno::NODEV) => Err(Error::NoTracefs),
            Err(_) => Err(Error::NotMounted),
        }
    }

    /// The directory of an instance.
    pub(super) fn instance(&self, name: &str) -> Self {
        Self {
            below: Path::new("instances").join(name),
            ..self.clone()
        }
    }

    /// The top level, of which this may be an instance.
    pub(super) fn top(&self) -> Self {
        Self {
            below: PathBuf::new(),
            ..self.clone()
        }
    }

    /// Where a file is.
    #[must_use]
    pub fn path(&self, file: impl AsRef<Path>) -> PathBuf {
        self.top.join(self.relative(file))
    }

    /// Where a file is, from the top.
    pub(super) fn relative(&self, file: impl AsRef<Path>) -> PathBuf {
        self.below.join(file)
    }

    pub(super) fn has(&self, file: &str) -> bool {
        self.path(file).exists()
    }

    /// Reads a file to its end, without the white space around it.
    pub(super) fn read(&self, file: impl AsRef<Path>) -> Result<String, Error> {
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

impl fmt::Display for Tracefs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mount {
            Some(_) => f.write_str("not mounted, and used without"),
            None => write!(f, "{}", self.top.display()),
        }
    }
}

/// Where tracefs is mounted so that it can be written to, by the text of `/proc/self/mounts`.
fn mounted(mounts: &str) -> Option<&str> {
    mounts.lines().find_map(|line| {
        let words: Vec<_> = line.split(' ').collect();
        let [_, point, kind, options, ..] = words[..] else {
            return None;
        };
        (kind == "tracefs" && options.split(',').all(|option| option != "ro")).then_some(point)
    })
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
                if locked {
                    Self::Lockdown
                } else if rustix::process::geteuid().is_root() {
                    Self::NotRootEnough
                } else {
                    Self::NotAllowed(path)
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracefs_is_found_where_it_can_be_written_to() {
        let mounts = "proc /proc proc rw 0 0\n\
                      tracefs /sys/kernel/tracing tracefs ro,nosuid 0 0\n\
                      tracefs /sys/kernel/debug/tracing tracefs rw,nosuid 0 0\n";
        assert_eq!(mounted(mounts), Some("/sys/kernel/debug/tracing"));
        assert_eq!(mounted("tracefs /t tracefs ro 0 0"), None);
        assert_eq!(mounted("tracefs"), None);
    }

    #[test]
    fn files_of_an_instance_are_named_from_the_top() {
        let instance = Tracefs::at("/t").instance("why_1");
        assert_eq!(instance.path("trace"), Path::new("/t/instances/why_1/trace"));
        assert_eq!(instance.relative("trace"), Path::new("instances/why_1/trace"));
    }
}
