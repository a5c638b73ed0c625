//! Workloads on a ring: the names that users type, and the number of concurrent operations.

use std::fmt;

use crate::measure::Unit;

/// One thing to do over and over, so many at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Workload {
    pub(crate) kind: Kind,
    /// Operations on their way at the same time, in each queue.
    pub(crate) depth: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Getattr,
    Lookup,
    LookupMiss,
    OpenReadClose,
    CreateWriteUnlink,
    Readdirplus,
    Read4k,
    Write4k,
    Read1m,
    Write1m,
    /// GETATTR in one seat, reads of data that is not in the page cache in the others. The former alone counts.
    Mixed,
}

pub(crate) const KINDS: [(&str, Kind); 11] = [
    ("getattr", Kind::Getattr),
    ("lookup", Kind::Lookup),
    ("lookup-miss", Kind::LookupMiss),
    ("open-read-close", Kind::OpenReadClose),
    ("create-write-unlink", Kind::CreateWriteUnlink),
    ("readdirplus", Kind::Readdirplus),
    ("read-4k", Kind::Read4k),
    ("write-4k", Kind::Write4k),
    ("read-1m", Kind::Read1m),
    ("write-1m", Kind::Write1m),
    ("mixed", Kind::Mixed),
];

/// What is measured unless something is named: each operation alone, which shows its latency, and several at a time, as
/// a guest with several programs has them.
pub(crate) const DEFAULT: &[(Kind, &[u16])] = &[
    (Kind::Getattr, &[1, 16]),
    (Kind::Lookup, &[1, 16]),
    (Kind::LookupMiss, &[1, 16]),
    (Kind::OpenReadClose, &[1, 16]),
    (Kind::CreateWriteUnlink, &[1, 16]),
    (Kind::Readdirplus, &[1]),
    (Kind::Read4k, &[1, 4, 32]),
    (Kind::Write4k, &[1, 4, 32]),
    (Kind::Read1m, &[1]),
    (Kind::Write1m, &[1]),
    (Kind::Mixed, &[2]),
];

impl Kind {
    pub(crate) fn unit(self) -> Unit {
        match self {
            Self::Readdirplus => Unit::Entries,
            Self::Read1m | Self::Write1m => Unit::Bytes,
            _ => Unit::Operations,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = KINDS.iter().find(|(_, kind)| kind == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.depth {
            1 => write!(f, "{}", self.kind),
            depth => write!(f, "{}@{depth}", self.kind),
        }
    }
}
