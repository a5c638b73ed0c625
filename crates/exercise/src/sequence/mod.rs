//! A random sequence of operations, done on a file and on a model of it.

mod file;
mod model;
mod operation;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::io;

use rustix::param::page_size;

use crate::arguments::Sequence;
use crate::difference;
use crate::error::Error;
use crate::generator::Generator;
use crate::say;

use file::{Change, RealFile, Target};
use model::Model;
use operation::{Chooser, Kind, Operation, whole};

/// The whole file is compared after this many operations, and at the end.
const INTERVAL: u64 = 500;
/// How much of the file is compared at once then.
const CHUNK: u64 = 256 << 10;
/// How many operations before a mismatch are told.
const HISTORY: usize = 12;

/// Does the sequence that the arguments describe and says how it went.
pub(crate) fn run(arguments: &Sequence) -> Result<(), Error> {
    let plan = Plan::new(arguments)?;
    let mut file = RealFile::create(&arguments.file).map_err(|source| Error::File {
        act: "create",
        path: arguments.file.clone(),
        source,
    })?;
    say(&execute(&plan, &mut file)?.to_string())
}

/// What is to be done.
#[derive(Debug)]
struct Plan {
    operations: u64,
    seed: u64,
    limit: u64,
    granule: u64,
}

impl Plan {
    fn new(arguments: &Sequence) -> Result<Self, Error> {
        let Sequence { length, granule, .. } = *arguments;
        if granule == 0 || length == 0 || length % granule != 0 {
            return Err(Error::Usage(format!(
                "--length {length} must be a multiple of --granule {granule}, and neither may be 0"
            )));
        }
        Ok(Self {
            operations: arguments.operations,
            seed: arguments.seed,
            limit: length,
            granule,
        })
    }
}

/// Chooses the operations, does them and compares.
fn execute(plan: &Plan, target: &mut dyn Target) -> Result<Summary, Error> {
    let missing = missing(plan, target).map_err(|(kind, source)| Error::Refused {
        number: 0,
        operation: format!("probe of {}", kind.name()),
        seed: plan.seed,
        source,
        history: String::new(),
    })?;
    let mut chooser = Chooser::new(plan.seed, plan.limit, plan.granule, page_size() as u64, &missing);
    perform(plan, target, missing, &mut |length| chooser.next(length))
}

/// Does the operations that `next` names for a file of a length, and compares.
fn perform(
    plan: &Plan,
    target: &mut dyn Target,
    missing: Vec<Kind>,
    next: &mut dyn FnMut(u64) -> Operation,
) -> Result<Summary, Error> {
    let mut model = Model::default();
    let mut summary = Summary::new(missing);
    let mut history = VecDeque::with_capacity(HISTORY);
    for number in 1..=plan.operations {
        let operation = next(model.length());
        let mut done = apply(&operation, target, &mut model);
        if done.is_ok() && (number % INTERVAL == 0 || number == plan.operations) {
            done = compare_all(target, &model).map_err(Fault::of_whole_file);
        }
        done.map_err(|fault| fault.explain(number, &operation, plan.seed, &history))?;
        summary.counts[operation.kind as usize] += 1;
        if history.len() == HISTORY {
            history.pop_front();
        }
        history.push_back((number, operation));
    }
    Ok(summary)
}

/// Does one operation on the file and on the model; what is read is compared at once.
fn apply(operation: &Operation, target: &mut dyn Target, model: &mut Model) -> Result<(), Fault> {
    let range = operation.range.clone();
    let (start, end) = (range.start, range.end);
    if operation.changes_length(model.length()) {
        target.unmap();
    }
    match operation.kind {
        Kind::Read => return compare(target, model, start, end),
        Kind::Stat => return compare_length(target, model),
        Kind::MapRead => {
            // Behind the end of the file, its last page reads as zeros.
            let mut expected = model.bytes(range).to_vec();
            expected.resize((end - start) as usize, 0);
            let mut found = vec![0; expected.len()];
            target.load(start, &mut found)?;
            return equal(&expected, &found, start);
        }
        Kind::Write => {
            let bytes = contents(operation);
            let written = target.write(start, &bytes)?;
            if written < bytes.len() {
                return Err(Fault::Different(format!("{written} of {} bytes written", bytes.len())));
            }
            model.write(start, &bytes);
        }
        Kind::MapWrite => {
            let bytes = contents(operation);
            target.store(start, &bytes)?;
            model.write(start, &bytes);
        }
        Kind::Truncate => {
            target.truncate(end)?;
            model.truncate(end);
        }
        Kind::Punch => {
            target.change(Change::Punch, range.clone())?;
            model.clear(range);
        }
        Kind::Zero => {
            target.change(Change::Zero, range.clone())?;
            model.truncate(end.max(model.length()));
            model.clear(range);
        }
        Kind::Collapse => {
            target.change(Change::Collapse, range.clone())?;
            model.collapse(range);
        }
        Kind::Insert => {
            target.change(Change::Insert, range.clone())?;
            model.insert(range);
        }
        Kind::Allocate => target.change(Change::Allocate, range)?,
        Kind::Copy => {
            target.copy(operation.source, start, end - start)?;
            model.copy(operation.source, start, end - start);
        }
        Kind::Sync => target.sync()?,
        Kind::Flush => target.flush()?,
        Kind::Unmap => target.unmap(),
        Kind::Reopen => target.reopen()?,
    }
    Ok(())
}

/// The bytes that an operation writes.
fn contents(operation: &Operation) -> Vec<u8> {
    let mut bytes = vec![0; (operation.range.end - operation.range.start) as usize];
    Generator::new(operation.source).fill(&mut bytes);
    bytes
}

/// Compares length and contents of the whole file.
fn compare_all(target: &mut dyn Target, model: &Model) -> Result<(), Fault> {
    compare_length(target, model)?;
    for start in (0..model.length()).step_by(CHUNK as usize) {
        compare(target, model, start, start + CHUNK)?;
    }
    Ok(())
}

fn compare_length(target: &dyn Target, model: &Model) -> Result<(), Fault> {
    let (expected, found) = (model.length(), target.length()?);
    if found != expected {
        return Err(Fault::Different(format!(
            "the file is {found:#x} long and not {expected:#x}"
        )));
    }
    Ok(())
}

fn compare(target: &mut dyn Target, model: &Model, start: u64, end: u64) -> Result<(), Fault> {
    let mut found = vec![0; (end - start) as usize];
    let count = target.read(start, &mut found)?;
    equal(model.bytes(start..end), &found[..count], start)
}

fn equal(expected: &[u8], found: &[u8], offset: u64) -> Result<(), Fault> {
    match difference::between(expected, found, offset) {
        Some(difference) => Err(Fault::Different(difference)),
        None => Ok(()),
    }
}

/// Which kinds the file system cannot do, found by trying.
fn missing(plan: &Plan, target: &mut dyn Target) -> Result<Vec<Kind>, (Kind, io::Error)> {
    let unit = whole(plan.granule);
    let mut missing = Vec::new();
    let probes = [
        (Kind::Punch, Some(Change::Punch)),
        (Kind::Zero, Some(Change::Zero)),
        (Kind::Collapse, Some(Change::Collapse)),
        (Kind::Insert, Some(Change::Insert)),
        (Kind::Allocate, Some(Change::Allocate)),
        (Kind::Copy, None),
    ];
    for (kind, change) in probes {
        target.truncate(2 * unit).map_err(|error| (Kind::Truncate, error))?;
        let tried = match change {
            Some(change) => target.change(change, 0..unit),
            None => target.copy(0, unit, unit),
        };
        match tried
            .err()
            .map(|error| (rustix::io::Errno::from_io_error(&error), error))
        {
            None => {}
            Some((Some(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::INVAL), _)) => missing.push(kind),
            Some((_, error)) => return Err((kind, error)),
        }
    }
    target.truncate(0).map_err(|error| (Kind::Truncate, error))?;
    Ok(missing)
}

/// What an operation came upon.
#[derive(Debug)]
enum Fault {
    Refused(io::Error),
    Different(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Refused(error)
    }
}

impl Fault {
    /// Says that not the operation itself came upon it.
    fn of_whole_file(self) -> Self {
        match self {
            Self::Different(difference) => Self::Different(format!("in the whole file, {difference}")),
            refused @ Self::Refused(_) => refused,
        }
    }

    fn explain(self, number: u64, operation: &Operation, seed: u64, history: &VecDeque<(u64, Operation)>) -> Error {
        let operation = operation.to_string();
        let before = history
            .iter()
            .map(|(number, operation)| format!("\n  {number} {operation}"));
        let history = format!("; before it:{}", before.collect::<String>());
        match self {
            Self::Refused(source) => Error::Refused {
                number,
                operation,
                seed,
                source,
                history,
            },
            Self::Different(difference) => Error::Different {
                number,
                operation,
                seed,
                difference,
                history,
            },
        }
    }
}

/// How often each kind was done.
#[derive(Debug)]
struct Summary {
    counts: [u64; Kind::ALL.len()],
    missing: Vec<Kind>,
}

impl Summary {
    fn new(missing: Vec<Kind>) -> Self {
        Self {
            counts: [0; Kind::ALL.len()],
            missing,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: u64 = self.counts.iter().sum();
        let done = Kind::ALL.iter().filter(|(kind, ..)| !self.missing.contains(kind));
        let done = done.map(|&(kind, _, name)| format!("{name} {}", self.counts[kind as usize]));
        write!(
            formatter,
            "sequence: {total} operations equal ({}",
            done.collect::<Vec<_>>().join(", ")
        )?;
        if !self.missing.is_empty() {
            let names: Vec<_> = self.missing.iter().map(|kind| kind.name()).collect();
            write!(formatter, "; not supported here: {}", names.join(", "))?;
        }
        formatter.write_str(")")
    }
}
