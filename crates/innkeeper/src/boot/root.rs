//! The root directory as a place to look for the kernel and its modules.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};

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
        // A fifo must not make us wait for its writer.
        let file = self.resolve(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        match FileType::from_raw_mode(fstat(&file)?.st_mode) {
            FileType::RegularFile => Ok(file.into()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
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
}
