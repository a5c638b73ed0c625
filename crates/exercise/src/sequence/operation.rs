//! The operations, and the choice of the next one.

use std::fmt;
use std::ops::Range;

use crate::generator::Generator;

/// Log2 of the most bytes that one operation moves.
const LENGTH_BITS: u64 = 18;
/// Collapsing and inserting works on whole blocks; other operations like to begin at a page.
const BLOCK: u64 = 4096;
/// The most blocks that are taken out or put in at once.
const BLOCKS: u64 = 64;

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Stat,
    Write,
    MapRead,
    MapWrite,
    Truncate,
    Punch,
    Zero,
    Collapse,
    Insert,
    Allocate,
    Copy,
    Sync,
    Flush,
    Unmap,
    Reopen,
}

impl Kind {
    /// All kinds, in the order of their declaration; how often each is chosen; its name.
    pub(super) const ALL: [(Self, u64, &'static str); 16] = [
        (Self::Read, 20, "read"),
        (Self::Stat, 3, "fstat"),
        (Self::Write, 20, "write"),
        (Self::MapRead, 18, "mapread"),
        (Self::MapWrite, 18, "mapwrite"),
        (Self::Truncate, 6, "truncate"),
        (Self::Punch, 6, "punch"),
        (Self::Zero, 4, "zero"),
        (Self::Collapse, 3, "collapse"),
        (Self::Insert, 3, "insert"),
        (Self::Allocate, 2, "allocate"),
        (Self::Copy, 5, "copy"),
        (Self::Sync, 2, "fsync"),
        (Self::Flush, 3, "msync"),
        (Self::Unmap, 3, "unmap"),
        (Self::Reopen, 2, "reopen"),
    ];

    pub(super) fn name(self) -> &'static str {
        Self::ALL[self as usize].2
    }
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Operation {
    pub(super) kind: Kind,
    /// The bytes it is about; a truncation is to the end of it.
    pub(super) range: Range<u64>,
    /// Where a copy reads, or the seed of the bytes that are written.
    pub(super) source: u64,
}

impl Operation {
    /// Whether a file that is `length` long has another length afterwards.
    pub(super) fn changes_length(&self, length: u64) -> bool {
        match self.kind {
            Kind::Write | Kind::Zero | Kind::Copy => self.range.end > length,
            Kind::Truncate => self.range.end != length,
            Kind::Collapse | Kind::Insert => true,
            _ => false,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { start, end } = self.range;
        let name = self.kind.name();
        match self.kind {
            Kind::Stat | Kind::Sync | Kind::Flush | Kind::Unmap | Kind::Reopen => formatter.write_str(name),
            Kind::Truncate => write!(formatter, "{name} to {end:#x}"),
            Kind::Copy => write!(formatter, "{name} {start:#x}..{end:#x} from {:#x}", self.source),
            _ => write!(formatter, "{name} {start:#x}..{end:#x}"),
        }
    }
}

/// Chooses operations that fit a file.
#[derive(Debug)]
pub(super) struct Chooser {
    random: Generator,
    /// The kinds that the file system can do, with their weights.
    kinds: Vec<(Kind, u64)>,
    /// The greatest length of the file.
    limit: u64,
    /// What its length is a multiple of.
    granule: u64,
    page: u64,
}

impl Chooser {
    /// Chooses among all kinds but `missing`. `limit` must be a multiple of `granule`, and neither 0.
    pub(super) fn new(seed: u64, limit: u64, granule: u64, page: u64, missing: &[Kind]) -> Self {
        let kinds = Kind::ALL.iter().map(|&(kind, weight, _)| (kind, weight));
        Self {
            random: Generator::new(seed),
            kinds: kinds.filter(|(kind, _)| !missing.contains(kind)).collect(),
            limit,
            granule,
            page,
        }
    }

    /// The next operation on a file that is `length` long.
    pub(super) fn next(&mut self, length: u64) -> Operation {
        loop {
            let kind = self.kind();
            // A write always fits, so this ends.
            if let Some(range) = self.range(kind, length) {
                let source = self.random.number();
                let operation = Operation { kind, range, source };
                if kind != Kind::Copy {
                    return operation;
                }
                if let Some(copy) = self.copy(operation, length) {
                    return copy;
                }
            }
        }
    }

    fn kind(&mut self) -> Kind {
        let total = self.kinds.iter().map(|(_, weight)| weight).sum();
        let mut at = self.random.below(total);
        for &(kind, weight) in &self.kinds {
            if at < weight {
                return kind;
            }
            at -= weight;
        }
        Kind::Write
    }

    fn range(&mut self, kind: Kind, length: u64) -> Option<Range<u64>> {
        match kind {
            Kind::Read => Some(self.seen(length, length + self.page)),
            Kind::MapRead if length > 0 => Some(self.seen(length, length.next_multiple_of(self.page))),
            Kind::MapWrite | Kind::Punch if length > 0 => Some(self.within(length)),
            Kind::Write | Kind::Zero | Kind::Copy => Some(self.growing(length)),
            Kind::Truncate => Some(0..self.granule * self.random.below(self.limit / self.granule + 1)),
            Kind::Allocate => Some(self.within(self.limit)),
            Kind::Collapse => self.collapsed(length),
            Kind::Insert => self.inserted(length),
            Kind::Flush if length > 0 => Some(0..0),
            Kind::Stat | Kind::Sync | Kind::Unmap | Kind::Reopen => Some(0..0),
            Kind::MapRead | Kind::MapWrite | Kind::Punch | Kind::Flush => None,
        }
    }

    /// A range that is not empty and ends at `limit` at most; one in four begins and ends at pages, if that is possible.
    fn within(&mut self, limit: u64) -> Range<u64> {
        let start = self.random.below(limit);
        let end = limit.min(start + self.random.length(LENGTH_BITS));
        if self.random.once_in(4) {
            return start - start % self.page..limit.min(end.next_multiple_of(self.page));
        }
        start..end
    }

    /// A range that is read; one in eight is about the end of the file, where the length shows, and ends at `limit`.
    fn seen(&mut self, length: u64, limit: u64) -> Range<u64> {
        if self.random.once_in(8) {
            return length.saturating_sub(self.random.length(LENGTH_BITS))..limit;
        }
        self.within(limit)
    }

    /// A range within the file; or one that makes it grow, by appending, by overlapping the end or by leaving a hole.
    fn growing(&mut self, length: u64) -> Range<u64> {
        let room = (self.limit - length) / self.granule;
        if room == 0 || (length > 0 && !self.random.once_in(6)) {
            return self.within(length);
        }
        let most = (1 << LENGTH_BITS) / self.granule;
        let added = self.granule * (1 + self.random.below(room.min(most.max(1))));
        let end = length + added;
        // One in two is an append, unless that is more than one operation may move.
        let append = added <= 1 << LENGTH_BITS && self.random.once_in(2);
        let moved = if append { added } else { self.random.length(LENGTH_BITS) };
        end.saturating_sub(moved)..end
    }

    /// What a collapse must take: whole blocks that do not reach the end of the file (fallocate(2)).
    fn collapsed(&mut self, length: u64) -> Option<Range<u64>> {
        let unit = self.unit();
        let units = length.saturating_sub(1) / unit;
        if units == 0 {
            return None;
        }
        let start = self.random.below(units);
        let count = 1 + self.random.below((units - start).min(BLOCKS));
        Some(start * unit..(start + count) * unit)
    }

    /// What an insertion may put in: whole blocks, before the end of the file (fallocate(2)).
    fn inserted(&mut self, length: u64) -> Option<Range<u64>> {
        let unit = self.unit();
        let room = (self.limit - length) / unit;
        if room == 0 || length == 0 {
            return None;
        }
        let start = self.random.below(length.div_ceil(unit));
        let count = 1 + self.random.below(room.min(BLOCKS));
        Some(start * unit..(start + count) * unit)
    }

    /// The least change of the length that is both whole blocks and whole granules.
    fn unit(&self) -> u64 {
        whole(self.granule)
    }

    /// A copy whose source lies within the file and does not overlap its destination (else EINVAL).
    fn copy(&mut self, to: Operation, length: u64) -> Option<Operation> {
        let Range { start, end } = to.range;
        let count = end - start;
        let last = length.checked_sub(count)?;
        let source = self.random.below(last + 1);
        (source + count <= start || end <= source).then_some(Operation { source, ..to })
    }
}

/// The least multiple of `granule` that is a multiple of the block.
pub(super) fn whole(granule: u64) -> u64 {
    let (mut a, mut b) = (granule, BLOCK);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    granule / a * BLOCK
}
