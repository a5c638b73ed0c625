//! Direct I/O (O_DIRECT) between a file and a mapping of another: in a guest the device gets the mapped pages themselves.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use crate::arguments::Direct;
use crate::difference;
use crate::error::Error;
use crate::generator::Generator;
use crate::mapping::Mapping;
use crate::say;

/// What offsets and lengths of direct I/O are multiples of.
const SECTOR: u64 = 512;
/// Log2 of the most sectors that one transfer moves: 256 KiB.
const TRANSFER_BITS: u64 = 9;

/// Moves parts of one file to the other and back, and compares both with what they should hold.
pub(crate) fn run(arguments: &Direct) -> Result<(), Error> {
    let &Direct {
        ref file,
        ref mapped,
        transfers,
        seed,
        length,
    } = arguments;
    if length == 0 || !length.is_multiple_of(SECTOR) {
        return Err(Error::Usage(format!(
            "--length must be a multiple of {SECTOR}, not {length}"
        )));
    }
    let mut random = Generator::new(seed);
    let mut own = |path: &Path| -> Result<Vec<u8>, Error> {
        let mut contents = vec![0; length as usize];
        random.fill(&mut contents);
        std::fs::write(path, &contents).map_err(failure("write", path))?;
        Ok(contents)
    };
    let (mut in_file, mut in_mapped) = (own(file)?, own(mapped)?);
    let direct = open(file, OFlags::DIRECT)?;
    let shown = open(mapped, OFlags::empty())?;
    let mapping = Mapping::new(shown.as_fd(), 0..length).map_err(failure("map", mapped))?;
    let (mut reads, mut writes) = (0, 0);
    for number in 1..=transfers {
        let sectors = length / SECTOR;
        let count = random.length(TRANSFER_BITS).min(sectors);
        let [from, to] = [(); 2].map(|()| random.below(sectors - count + 1) * SECTOR);
        let size = (count * SECTOR) as usize;
        let (source, target) = (from as usize..from as usize + size, to as usize);
        let (operation, moved) = if random.once_in(2) {
            reads += 1;
            in_mapped[target..][..size].copy_from_slice(&in_file[source]);
            ("read", mapping.read_from(direct.as_fd(), from, to, size))
        } else {
            writes += 1;
            in_file[target..][..size].copy_from_slice(&in_mapped[source]);
            ("write", mapping.write_to(direct.as_fd(), to, from, size))
        };
        let operation = || format!("{operation} of {size} bytes from {from:#x} to {to:#x}");
        let moved = moved.map_err(|source| Error::Refused {
            number,
            operation: operation(),
            seed,
            source,
            history: String::new(),
        })?;
        if moved != size {
            return Err(different(number, operation(), seed, format!("{moved} bytes moved")));
        }
    }
    let mut seen = vec![0; length as usize];
    mapping.load(0, &mut seen).map_err(failure("load from", mapped))?;
    compare("the mapping", &in_mapped, &seen, transfers, seed)?;
    shown.read_exact_at(&mut seen, 0).map_err(failure("read", mapped))?;
    compare("the mapped file", &in_mapped, &seen, transfers, seed)?;
    // Not past the page cache: what was written directly must be seen there as well.
    open(file, OFlags::empty())?
        .read_exact_at(&mut seen, 0)
        .map_err(failure("read", file))?;
    compare("the file", &in_file, &seen, transfers, seed)?;
    say(&format!("direct: {reads} reads, {writes} writes equal"))
}

fn compare(what: &str, expected: &[u8], found: &[u8], number: u64, seed: u64) -> Result<(), Error> {
    match difference::between(expected, found, 0) {
        None => Ok(()),
        Some(difference) => Err(different(number, format!("all of {what}"), seed, difference)),
    }
}

fn different(number: u64, operation: String, seed: u64, difference: String) -> Error {
    Error::Different {
        number,
        operation,
        seed,
        difference,
        history: String::new(),
    }
}

fn open(path: &Path, flags: OFlags) -> Result<File, Error> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags.bits() as i32)
        .open(path)
        .map_err(failure("open", path))
}

fn failure(act: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::File {
        act,
        path: path.to_owned(),
        source,
    }
}
