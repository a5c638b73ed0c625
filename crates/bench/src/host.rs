//! The host itself: the same work by plain system calls, which is the limit for every daemon.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, openat, statat, unlinkat};
use rustix::io::{Errno, pread, pwrite, read, write};

use crate::error::Error;
use crate::random::Random;
use crate::ring::session::MEBIBYTE;
use crate::ring::workload::{Kind, Workload};
use crate::scratch::{DATA, ENTRIES, FILE_BYTES, FILES, SINK, Sizes, file_name};
use crate::tally::Tally;

/// The buffer of the C library's readdir.
const DIRECTORY_BYTES: usize = 32 << 10;
const PAGE: usize = 4096;

/// One thread that does one thing over and over.
pub(crate) struct Worker {
    kind: Kind,
    files: OwnedFd,
    share: OwnedFd,
    own: OwnedFd,
    data: OwnedFd,
    sink: OwnedFd,
    names: Vec<String>,
    random: Random,
    size: u64,
    cursor: u64,
    /// Of files created, and which thread this is.
    count: u64,
    number: u64,
    buffer: Vec<u8>,
}

/// As many workers as a daemon has queues. The host has no depth: a system call returns when its work is done.
pub(crate) fn workers(
    share: &Path,
    own: &Path,
    sizes: Sizes,
    workload: Workload,
    count: u16,
) -> Result<Vec<Worker>, Error> {
    let work = |number| Worker::new(share, own, sizes, workload.kind, number);
    (0..u64::from(count))
        .map(work)
        .collect::<std::io::Result<_>>()
        .map_err(Error::system("open the files to measure with"))
}

/// Runs all workers at once, a thread each.
pub(crate) fn run(workers: &mut [Worker], limit: Duration, stop: &AtomicBool) -> Result<Tally, Error> {
    if let [worker] = workers {
        return worker.run(limit, stop);
    }
    thread::scope(|scope| {
        let threads: Vec<_> = workers
            .iter_mut()
            .map(|worker| scope.spawn(|| worker.run(limit, stop)))
            .collect();
        Tally::of_threads(threads)
    })
}

impl Worker {
    fn new(share: &Path, own: &Path, sizes: Sizes, kind: Kind, number: u64) -> std::io::Result<Self> {
        let count = sizes.files;
        let first = if kind == Kind::LookupMiss { count } else { 0 };
        Ok(Self {
            kind,
            files: File::open(share.join(FILES))?.into(),
            share: File::open(share)?.into(),
            own: File::open(own)?.into(),
            data: File::open(share.join(DATA))?.into(),
            sink: File::options().read(true).write(true).open(own.join(SINK))?.into(),
            names: (first..first + count).map(file_name).collect(),
            random: Random::new(number),
            size: sizes.data,
            cursor: 0,
            count: 0,
            number,
            buffer: vec![0; MEBIBYTE as usize],
        })
    }

    fn run(&mut self, limit: Duration, stop: &AtomicBool) -> Result<Tally, Error> {
        let mut tally = Tally::new();
        let start = Instant::now();
        let end = start + limit;
        let mut began = start;
        while began < end && !stop.load(Relaxed) {
            tally.items += self.once().map_err(|errno| Error::Refused {
                what: "a system call of the host",
                source: errno.into(),
            })?;
            let now = Instant::now();
            tally.operations += 1;
            tally.record(now - began);
            began = now;
        }
        tally.elapsed = start.elapsed();
        Ok(tally)
    }

    /// Does it once and tells how much that was.
    fn once(&mut self) -> Result<u64, Errno> {
        match self.kind {
            // Undisturbed where the daemons are disturbed.
            Kind::Getattr | Kind::Lookup | Kind::LookupMiss | Kind::Mixed => self.stat(),
            Kind::OpenReadClose => self.open_read_close(),
            Kind::CreateWriteUnlink => self.create_write_unlink(),
            Kind::Readdirplus => self.list(),
            Kind::Read4k | Kind::Write4k => {
                let page = self.random.below(self.size / PAGE as u64) * PAGE as u64;
                self.transfer(page, PAGE).map(|_| 1)
            }
            Kind::Read1m | Kind::Write1m => {
                let offset = self.cursor;
                self.cursor = (offset + u64::from(MEBIBYTE)) % self.size;
                self.transfer(offset, MEBIBYTE as usize).map(|bytes| bytes as u64)
            }
        }
    }

    fn stat(&mut self) -> Result<u64, Errno> {
        let name = self.random.of(&self.names).as_str();
        match statat(&self.files, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) if self.kind == Kind::LookupMiss => Ok(1),
            other => other.map(|_| 1),
        }
    }

    fn open_read_close(&mut self) -> Result<u64, Errno> {
        let name = self.random.of(&self.names).as_str();
        let file = openat(&self.files, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        read(&file, &mut self.buffer[..FILE_BYTES as usize]).map(|_| 1)
    }

    fn create_write_unlink(&mut self) -> Result<u64, Errno> {
        self.count += 1;
        let name = format!("c{:03}-{:010}", self.number, self.count);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(&self.own, &name, flags, Mode::from_raw_mode(0o644))?;
        write(&file, &self.buffer[..PAGE])?;
        drop(file);
        unlinkat(&self.own, &name, AtFlags::empty()).map(|()| 1)
    }

    fn list(&mut self) -> Result<u64, Errno> {
        let directory = openat(
            &self.share,
            ENTRIES,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let mut space = Vec::with_capacity(DIRECTORY_BYTES);
        let mut entries = RawDir::new(&directory, space.spare_capacity_mut());
        let mut count = 0;
        while let Some(entry) = entries.next() {
            statat(&directory, entry?.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
            count += 1;
        }
        Ok(count)
    }

    fn transfer(&mut self, offset: u64, size: usize) -> Result<usize, Errno> {
        let buffer = &mut self.buffer[..size];
        match self.kind {
            Kind::Read4k | Kind::Read1m => pread(&self.data, buffer, offset),
            _ => pwrite(&self.sink, buffer, offset),
        }
    }
}
