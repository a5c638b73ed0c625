//! An empty directory to share, with files beside it that must not be touched.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{IFlags, Mode, OFlags, ioctl_setflags, open};
use tempfile::TempDir;

/// A file system in memory, if there is one there: no request waits for a disk.
const IN_MEMORY: &str = "/dev/shm";
const CANARY: &str = "nobody may touch this";

pub(crate) struct Scratch {
    outside: TempDir,
    /// Name, mode, owner and time of change of each canary.
    canaries: Vec<(PathBuf, State)>,
}

#[derive(Debug, PartialEq, Eq)]
struct State {
    mode: u32,
    owner: (u32, u32),
    changed: (i64, i64),
    content: Option<String>,
    entries: usize,
}

impl State {
    fn of(path: &Path) -> Self {
        let meta = fs::symlink_metadata(path).expect("a canary");
        Self {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            content: meta.is_file().then(|| fs::read_to_string(path).expect("a canary")),
            entries: if meta.is_dir() {
                fs::read_dir(path).expect("a canary").count()
            } else {
                0
            },
        }
    }
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let place = match Path::new(IN_MEMORY).is_dir() {
            true => IN_MEMORY.into(),
            false => std::env::temp_dir(),
        };
        let outside = TempDir::with_prefix_in("innkeeper-fuzz-", place).expect("a directory");
        let path = |name: &str| outside.path().join(name);
        fs::create_dir(path("share")).expect("a directory");
        fs::create_dir(path("beside")).expect("a directory");
        let names = ["beside", "canary", "beside/a"].map(path);
        for name in &names[1..] {
            fs::write(name, CANARY).expect("a file");
            fs::set_permissions(name, fs::Permissions::from_mode(0o666)).expect("a mode");
        }
        let canaries = names.into_iter().map(|name| (name.clone(), State::of(&name))).collect();
        Self { outside, canaries }
    }

    pub(crate) fn share(&self) -> PathBuf {
        self.outside.path().join("share")
    }

    /// Number of the file system.
    pub(crate) fn device(&self) -> u64 {
        fs::metadata(self.outside.path()).expect("the directory").dev()
    }

    /// Nothing beside the share has changed.
    pub(crate) fn check(&self) {
        for (path, before) in &self.canaries {
            assert_eq!(&State::of(path), before, "{} has changed", path.display());
        }
        let entries = fs::read_dir(self.outside.path()).expect("the directory").count();
        assert_eq!(entries, 3, "there is something new beside the share");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if fs::remove_dir_all(self.outside.path()).is_err() {
            loosen(&self.outside.path().join("share"));
        }
        // `TempDir` removes the rest, if there is one.
    }
}

/// Takes away what keeps files from being removed: flags like FS_IMMUTABLE_FL, and modes. What fails shows when they are removed.
fn loosen(path: &Path) {
    let Ok(meta) = fs::symlink_metadata(path) else { return };
    if !meta.is_dir() && !meta.is_file() {
        return;
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(file) = open(path, flags, Mode::empty()) {
        let _shows_later = ioctl_setflags(file, IFlags::empty());
    }
    if meta.is_dir() {
        let _shows_later = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            loosen(&entry.path());
        }
    }
}
