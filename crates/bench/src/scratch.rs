//! The files to measure with, in a temporary directory that is removed on every exit path.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use tempfile::TempDir;

use crate::error::Error;

/// How many files of each kind there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Small files that are looked up and read.
    pub(crate) files: u32,
    /// Entries of the directory that is listed.
    pub(crate) entries: u32,
    /// Bytes of the file that is read, and of the files that are written: whole MiB.
    pub(crate) data: u64,
    /// Files that are looked up to see what the daemon keeps of them; 0 where nobody asks.
    pub(crate) known: u32,
}

impl Sizes {
    /// Enough for a session in which nothing is measured.
    pub(crate) const LEAST: Self = Self {
        files: 1,
        entries: 1,
        data: 1 << 20,
        known: 0,
    };
}

/// Bytes of a small file.
pub(crate) const FILE_BYTES: u32 = 4096;

/// Names inside the share. All have the same length within a directory, so that all messages of a kind have the same shape.
pub(crate) const FILES: &str = "files";
pub(crate) const ENTRIES: &str = "entries";
pub(crate) const DATA: &str = "data";
/// Like the data file, but kept out of the page cache.
pub(crate) const COLD: &str = "cold";
/// Its directories have [`KNOWN_EACH`] files each.
pub(crate) const KNOWN: &str = "known";
pub(crate) const KNOWN_EACH: u32 = 10_000;
/// In the directory of each contender.
pub(crate) const SINK: &str = "sink";

/// The name of small file `index`.
pub(crate) fn file_name(index: u32) -> String {
    format!("file{index:06}")
}

/// The name of contender `index`'s own directory.
pub(crate) fn own_directory(index: usize) -> String {
    format!("own{index:02}")
}

/// What the data file holds at `offset`, a multiple of 8.
pub(crate) fn word_at(offset: u64) -> u64 {
    (offset / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The directory, removed when dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    directory: TempDir,
    pub(crate) sizes: Sizes,
    sockets: AtomicU32,
}

impl Scratch {
    /// Makes the files in a new directory inside of `parent`, with a place to write for each of `contenders`.
    pub(crate) fn make(parent: &Path, sizes: Sizes, contenders: usize, stop: &AtomicBool) -> Result<Self, Error> {
        let failed = |source| Error::Scratch {
            path: parent.into(),
            source,
        };
        let directory = tempfile::Builder::new()
            .prefix("innkeeper-bench-")
            .tempdir_in(parent)
            .map_err(failed)?;
        let scratch = Self {
            directory,
            sizes,
            sockets: AtomicU32::new(0),
        };
        scratch.fill(contenders).map_err(failed)?;
        scratch.fill_known(stop).map_err(failed)?;
        Ok(scratch)
    }

    /// What is shared.
    pub(crate) fn share(&self) -> PathBuf {
        self.directory.path().join("share")
    }

    /// Where the tools may have their files, outside of what is shared; nobody makes it here.
    pub(crate) fn workshop(&self) -> PathBuf {
        self.directory.path().join("workshop")
    }

    /// Where the next daemon is to listen: no two at the same place.
    pub(crate) fn socket(&self) -> PathBuf {
        let number = self.sockets.fetch_add(1, Relaxed);
        self.directory.path().join(format!("socket{number}"))
    }

    fn fill(&self, contenders: usize) -> io::Result<()> {
        let share = self.share();
        let Sizes {
            files, entries, data, ..
        } = self.sizes;
        fs::create_dir(&share)?;
        fs::create_dir(share.join(FILES))?;
        for index in 0..files {
            fs::write(share.join(FILES).join(file_name(index)), [b'f'; FILE_BYTES as usize])?;
        }
        fs::create_dir(share.join(ENTRIES))?;
        for index in 0..entries {
            File::create(share.join(ENTRIES).join(file_name(index)))?;
        }
        fill_data(&share.join(DATA), data)?;
        // On the disk, so that the page cache can let go of it.
        fill_data(&share.join(COLD), data)?.sync_all()?;
        for index in 0..contenders {
            let own = share.join(own_directory(index));
            fs::create_dir(&own)?;
            fill_data(&own.join(SINK), data)?;
        }
        Ok(())
    }

    /// May take a while: there are up to a million.
    fn fill_known(&self, stop: &AtomicBool) -> io::Result<()> {
        let known = self.share().join(KNOWN);
        fs::create_dir(&known)?;
        for index in (0..self.sizes.known).take_while(|_| !stop.load(Relaxed)) {
            let directory = known.join(file_name(index / KNOWN_EACH));
            if index % KNOWN_EACH == 0 {
                fs::create_dir(&directory)?;
            }
            File::create(directory.join(file_name(index)))?;
        }
        Ok(())
    }
}

/// A file without holes, each word of which tells where it is.
fn fill_data(path: &Path, size: u64) -> io::Result<File> {
    let mut file = File::create(path)?;
    let mut bytes = Vec::with_capacity(1 << 20);
    for start in (0..size).step_by(1 << 20) {
        bytes.clear();
        bytes.extend(
            (start..start + (1 << 20))
                .step_by(8)
                .flat_map(|offset| word_at(offset).to_le_bytes()),
        );
        file.write_all(&bytes)?;
    }
    Ok(file)
}
