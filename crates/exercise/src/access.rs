//! Random access to a file of known contents, by system calls and by a mapping.
//!
//! The contents of a block of 4 KiB follow from its number and its generation, the number of writes to it. Therefore
//! four bytes per block describe the contents of many GiB. Each block begins with both numbers. A later run, on the
//! same or on the other side of a share, finds the generations there and continues.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::arguments::Random;
use crate::difference;
use crate::error::Error;
use crate::generator::Generator;
use crate::mapping::Mapping;
use crate::say;

const BLOCK: usize = 4096;
/// Blocks that are moved at once when the whole file is made, scanned or compared.
const RUN: usize = 64;
/// Log2 of the most blocks that one access touches.
const ACCESS_BITS: u64 = 5;

/// Does the accesses of one run.
pub(crate) fn run(arguments: &Random) -> Result<(), Error> {
    if arguments.file_size == 0 || !arguments.file_size.is_multiple_of(BLOCK as u64) {
        return Err(Error::Usage(format!(
            "--file-size must be a multiple of {BLOCK}, not {}",
            arguments.file_size
        )));
    }
    let file = open(&arguments.file, arguments.file_size)?;
    let failed = |act| failure(act, &arguments.file);
    let mut access = Access {
        generations: generations(&file, &arguments.file, arguments.file_size)?,
        mapping: Mapping::new(file.as_fd(), 0..arguments.file_size).map_err(failed("map"))?,
        file,
        random: Generator::new(arguments.seed),
        reads: 0,
        writes: 0,
    };
    for number in 1..=arguments.accesses {
        access.step().map_err(|fault| fault.explain(number, arguments.seed))?;
    }
    access
        .compare_all()
        .map_err(|fault| fault.explain(arguments.accesses, arguments.seed))?;
    say(&format!(
        "random: {} reads, {} writes equal",
        access.reads, access.writes
    ))
}

fn failure(act: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::File {
        act,
        path: path.to_owned(),
        source,
    }
}

/// Opens the file, or makes one whose blocks are all of generation 0.
fn open(path: &Path, length: u64) -> Result<File, Error> {
    let existing = OpenOptions::new().read(true).write(true).open(path);
    match existing {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        existing => return existing.map_err(failure("open", path)),
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(failure("create", path))?;
    let mut bytes = Vec::with_capacity(RUN * BLOCK);
    let blocks = length / BLOCK as u64;
    for first in (0..blocks).step_by(RUN) {
        bytes.clear();
        for block in first..blocks.min(first + RUN as u64) {
            append(&mut bytes, block, 0);
        }
        file.write_all_at(&bytes, first * BLOCK as u64)
            .map_err(failure("write", path))?;
    }
    Ok(file)
}

/// Reads which generation each block has.
fn generations(file: &File, path: &Path, length: u64) -> Result<Vec<u32>, Error> {
    let foreign = |reason| Error::Foreign {
        path: path.to_owned(),
        reason,
    };
    let found = file.metadata().map_err(failure("stat", path))?.len();
    if found != length {
        return Err(foreign(format!(
            "holds {found} bytes and not the {length} of --file-size"
        )));
    }
    let blocks = length / BLOCK as u64;
    let mut generations = Vec::with_capacity(blocks as usize);
    let mut bytes = vec![0; RUN * BLOCK];
    for first in (0..blocks).step_by(RUN) {
        let run = (blocks - first).min(RUN as u64) as usize;
        let bytes = &mut bytes[..run * BLOCK];
        file.read_exact_at(bytes, first * BLOCK as u64)
            .map_err(failure("read", path))?;
        for (block, bytes) in (first..).zip(bytes.chunks_exact(BLOCK)) {
            let (number, generation) = header(bytes);
            if number != block {
                return Err(foreign(format!("block {block} was not written by this program")));
            }
            generations.push(generation);
        }
    }
    Ok(generations)
}

/// Number and generation as a block's first bytes give them.
fn header(bytes: &[u8]) -> (u64, u32) {
    let mut number = [0; 8];
    let mut generation = [0; 4];
    number.copy_from_slice(&bytes[..8]);
    generation.copy_from_slice(&bytes[8..12]);
    (u64::from_le_bytes(number), u32::from_le_bytes(generation))
}

/// Appends a block's contents.
fn append(bytes: &mut Vec<u8>, block: u64, generation: u32) {
    let start = bytes.len();
    bytes.extend_from_slice(&block.to_le_bytes());
    bytes.extend_from_slice(&generation.to_le_bytes());
    let mut random = Generator::new(block.rotate_left(32) ^ u64::from(generation));
    bytes.resize(start + BLOCK, 0);
    random.fill(&mut bytes[start + 12..]);
}

/// What an access came upon.
#[derive(Debug)]
enum Fault {
    Refused(&'static str, io::Error),
    Different(&'static str, String),
}

impl Fault {
    /// Says that no access came upon it, but the comparison after all of them.
    fn of_whole_file(self) -> Self {
        match self {
            Self::Refused(_, source) => Self::Refused("read of the whole file", source),
            Self::Different(_, difference) => Self::Different("read of the whole file", difference),
        }
    }

    fn explain(self, number: u64, seed: u64) -> Error {
        let history = String::new();
        match self {
            Self::Refused(operation, source) => Error::Refused {
                number,
                operation: operation.to_owned(),
                seed,
                source,
                history,
            },
            Self::Different(operation, difference) => Error::Different {
                number,
                operation: operation.to_owned(),
                seed,
                difference,
                history,
            },
        }
    }
}

struct Access {
    file: File,
    mapping: Mapping,
    generations: Vec<u32>,
    random: Generator,
    reads: u64,
    writes: u64,
}

impl Access {
    fn step(&mut self) -> Result<(), Fault> {
        let blocks = self.generations.len() as u64;
        let first = self.random.below(blocks);
        let count = self.random.length(ACCESS_BITS).min(blocks - first);
        if self.random.once_in(2) {
            self.writes += 1;
            self.write(first, count)
        } else {
            self.reads += 1;
            self.read(first, count)
        }
    }

    /// Compares the blocks, or any bytes of them.
    fn read(&mut self, first: u64, count: u64) -> Result<(), Fault> {
        let bytes = self.contents(first, count);
        let (mut start, mut end) = (0, bytes.len());
        if self.random.once_in(2) {
            start = self.random.below(bytes.len() as u64) as usize;
            end = start + 1 + self.random.below((bytes.len() - start) as u64) as usize;
        }
        let offset = first * BLOCK as u64 + start as u64;
        let mapped = self.random.once_in(2);
        self.compare(&bytes[start..end], offset, mapped)
    }

    /// Gives the blocks their next generation: at once, or in pieces that are cut at any byte, each its own way.
    fn write(&mut self, first: u64, count: u64) -> Result<(), Fault> {
        for generation in &mut self.generations[first as usize..(first + count) as usize] {
            *generation = generation.wrapping_add(1);
        }
        let bytes = self.contents(first, count);
        let mut cuts = vec![0, bytes.len()];
        if self.random.once_in(2) {
            cuts.extend((0..2).map(|_| self.random.below(bytes.len() as u64) as usize));
            cuts.sort_unstable();
        }
        for piece in cuts.windows(2) {
            let (start, end) = (piece[0], piece[1]);
            let offset = first * BLOCK as u64 + start as u64;
            if self.random.once_in(2) {
                self.mapping
                    .store(offset, &bytes[start..end])
                    .map_err(|error| Fault::Refused("store", error))?;
            } else {
                self.file
                    .write_all_at(&bytes[start..end], offset)
                    .map_err(|error| Fault::Refused("write", error))?;
            }
        }
        Ok(())
    }

    fn compare_all(&self) -> Result<(), Fault> {
        let blocks = self.generations.len() as u64;
        for first in (0..blocks).step_by(RUN) {
            let bytes = self.contents(first, (blocks - first).min(RUN as u64));
            self.compare(&bytes, first * BLOCK as u64, false)
                .map_err(Fault::of_whole_file)?;
        }
        Ok(())
    }

    fn compare(&self, expected: &[u8], offset: u64, mapped: bool) -> Result<(), Fault> {
        let mut found = vec![0; expected.len()];
        let way = if mapped {
            self.mapping
                .load(offset, &mut found)
                .map_err(|error| Fault::Refused("load", error))?;
            "load"
        } else {
            self.file
                .read_exact_at(&mut found, offset)
                .map_err(|error| Fault::Refused("read", error))?;
            "read"
        };
        match difference::between(expected, &found, offset) {
            Some(difference) => Err(Fault::Different(way, difference)),
            None => Ok(()),
        }
    }

    fn contents(&self, first: u64, count: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count as usize * BLOCK);
        for block in first..first + count {
            append(&mut bytes, block, self.generations[block as usize]);
        }
        bytes
    }
}
