//! The root directory as a source of the kernel and its modules.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, Mode, OFlags, ResolveFlags, openat2};

use crate::regular_file::{self, Found};

/// No kernel, module or index is larger.
const FILE_BYTES: u64 = 1 << 30;

/// A directory tree whose symbolic links are followed as the guest would follow them. A guest of yesterday may have
/// left a link to a file of the host where we look for a kernel; it must not get that file's contents today.
#[derive(Debug)]
pub(crate) struct Root {
    directory: OwnedFd,
    path: PathBuf,
}

impl Root {
    /// Opens the tree at `path`.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self {
            directory,
            path: path.into(),
        })
    }

    /// How the host names `path` of this tree, for messages.
    pub(crate) fn display(&self, path: &str) -> PathBuf {
        self.path.join(path)
    }

    /// Opens a regular file.
    pub(crate) fn file(&self, path: &str) -> io::Result<File> {
        // Nor must it have us open a device, or wait for the writer of a FIFO.
        match regular_file::open(&self.resolve(path, OFlags::PATH)?, OFlags::RDONLY)? {
            Found::File(file) => Ok(file.into()),
            Found::Other(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        }
    }

    /// Whole contents of a regular file.
    pub(crate) fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let mut contents = Vec::new();
        self.file(path)?.take(FILE_BYTES).read_to_end(&mut contents)?;
        Ok(contents)
    }

    /// The names in a directory; none if there is no such directory.
    pub(crate) fn names(&self, path: &str) -> io::Result<Vec<OsString>> {
        let directory = match self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in Dir::new(directory)? {
            names.push(OsString::from_vec(entry?.file_name().to_bytes().to_vec()));
        }
        Ok(names)
    }

    /// Whether `path` leads to something.
    pub(crate) fn exists(&self, path: &str) -> bool {
        self.resolve(path, OFlags::PATH).is_ok()
    }

    fn resolve(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let stay = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Ok(openat2(
            &self.directory,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            stay,
        )?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, makedev, mknodat};

    use super::*;

    #[test]
    fn links_lead_nowhere_but_into_the_tree() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "host").unwrap();
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir(tree.path().join("boot")).unwrap();
        fs::write(tree.path().join("kernel"), "guest").unwrap();
        symlink("/kernel", tree.path().join("boot/good")).unwrap();
        symlink(outside.path().join("secret"), tree.path().join("boot/absolute")).unwrap();
        symlink("../../../../../../../../etc/passwd", tree.path().join("boot/relative")).unwrap();

        let root = Root::open(tree.path()).unwrap();
        assert_eq!(root.read("boot/good").unwrap(), b"guest");
        assert!(root.read("boot/absolute").is_err());
        assert!(root.read("boot/relative").is_err());
    }

    #[test]
    fn a_fifo_in_place_of_a_file_is_refused_at_once() {
        let tree = tempfile::tempdir().unwrap();
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, tree.path().join("f"), FileType::Fifo, mode, 0).unwrap();
        assert!(Root::open(tree.path()).unwrap().read("f").is_err());
    }

    /// The device has no driver, so that an open(2) of it would fail with ENXIO: it is not even tried.
    #[test]
    fn a_device_or_fifo_that_a_guest_left_there_is_not_opened() {
        let tree = tempfile::tempdir().unwrap();
        let root = Root::open(tree.path()).unwrap();
        let nobody = makedev(240, 255);
        for (name, kind, device) in [
            ("character", FileType::CharacterDevice, nobody),
            ("block", FileType::BlockDevice, nobody),
            ("fifo", FileType::Fifo, 0),
        ] {
            if let Err(reason) = mknodat(CWD, tree.path().join(name), kind, Mode::RWXU, device) {
                eprintln!("skipped: no {name}: {reason}");
                continue;
            }
            let refused = root.file(name).unwrap_err();
            assert_eq!(refused.to_string(), "not a regular file", "{name}");
        }
    }
}
