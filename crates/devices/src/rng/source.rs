//! The entropy source: the file that entropy is read from.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags, fstat, open, stat};
use rustix::io::{Errno, read, retry_on_intr};
use tracing::{error, info};

use super::Error;
use super::wait::Wait;

/// Pause before a source that has ended or failed is read again.
const OUTAGE_PAUSE: Duration = Duration::from_secs(1);

/// An open source, and whether it gave anything when it was last read.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    file: OwnedFd,
    /// It has ended or failed, and that was reported.
    is_out: bool,
}

impl Source {
    /// Opens the source without blocking, and in non-blocking mode.
    pub(super) fn open(path: PathBuf) -> Result<Self, Error> {
        let is_fifo = stat(&path).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
        // With a writer of our own, a FIFO neither ends when the others leave nor reports a hang-up for ever (fifo(7)).
        let access = if is_fifo { OFlags::RDWR } else { OFlags::RDONLY };
        let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let opened = open(&path, flags, Mode::empty()).and_then(|file| fstat(&file).map(|stat| (file, stat)));
        let (file, stat) = match opened {
            Ok(opened) => opened,
            Err(errno) => {
                let source = io::Error::from(errno);
                return Err(if is_fifo {
                    Error::OpenFifo { path, source }
                } else {
                    Error::Open { path, source }
                });
            }
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(Error::Directory { path });
        }
        Ok(Self {
            path,
            file,
            is_out: false,
        })
    }

    /// The file to wait for with [`Wait::Readable`].
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Reads at least one byte into `space`, which is not empty, or returns what to wait for.
    pub(super) fn read(&mut self, space: &mut [u8]) -> Result<usize, Wait> {
        let outage = match retry_on_intr(|| read(&self.file, &mut *space)) {
            Ok(0) => None,
            Ok(read) => {
                if std::mem::take(&mut self.is_out) {
                    info!("the entropy source {} has bytes again", self.path.display());
                }
                return Ok(read);
            }
            Err(Errno::AGAIN) => return Err(Wait::Readable),
            Err(errno) => Some(errno),
        };
        if !std::mem::replace(&mut self.is_out, true) {
            self.report(outage);
        }
        Err(Wait::Time(OUTAGE_PAUSE))
    }

    fn report(&self, outage: Option<Errno>) {
        let path = self.path.display();
        match outage {
            None => error!("the entropy source {path} has ended; requests wait until it has more bytes"),
            Some(errno) => error!("cannot read the entropy source {path}: {errno}; requests wait until it can be read"),
        }
    }
}
