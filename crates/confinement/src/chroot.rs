//! The shared directory as root where no mounts may be made.
//!
//! Weaker than a namespace: a descriptor of a directory outside leads to the whole host (`..`), and `/proc/self/fd` must be one. Landlock
//! closes that way for opens where the kernel has it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{chdir, chroot, fchdir};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::Error;

/// Makes `directory` the root of the process, or one that is empty.
pub(crate) fn enter(directory: Option<&Path>) -> Result<(), Error> {
    match directory {
        Some(directory) => change(directory, false),
        None => {
            let directory = new_directory().map_err(|source| refused(&std::env::temp_dir(), source))?;
            change(&directory, true)
        }
    }
}

fn change(directory: &Path, remove: bool) -> Result<(), Error> {
    let change = || {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(CWD, directory, flags, Mode::empty())?;
        if remove {
            // Nothing can be made in a directory that is gone.
            fs::remove_dir(directory)?;
        }
        fchdir(&opened)?;
        chroot(".")?;
        chdir("/")?;
        Ok(())
    };
    change().map_err(|source| refused(directory, source))
}

/// An empty directory under a name that nobody has guessed.
fn new_directory() -> io::Result<PathBuf> {
    let mut number = [0; 8];
    getrandom(&mut number, GetRandomFlags::empty())?;
    let path = std::env::temp_dir().join(format!("innkeeper-root-{:x}", u64::from_ne_bytes(number)));
    fs::create_dir(&path)?;
    Ok(path)
}

fn refused(directory: &Path, source: io::Error) -> Error {
    Error::Chroot {
        directory: directory.into(),
        source,
    }
}
