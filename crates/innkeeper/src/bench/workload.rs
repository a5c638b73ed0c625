//! What is measured: the names that users type, and what one operation of each is.

use std::fmt;
use std::str::FromStr;

use super::session::DEPTH_MOST;

/// One thing to do over and over, so many at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Workload {
    pub(super) kind: Kind,
    /// Operations on their way at the same time, in each queue.
    pub(super) depth: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
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
}

/// What a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Operations,
    Entries,
    Bytes,
}

const KINDS: [(&str, Kind); 10] = [
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
];

/// What is measured unless something is named: each operation alone, which shows its latency, and several at a time, as
/// a guest with several programs has them.
pub(super) const DEFAULT: &[(Kind, &[u16])] = &[
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
];

impl Kind {
    pub(super) fn unit(self) -> Unit {
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

impl FromStr for Workload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, depth) = text.split_once('@').unwrap_or((text, "1"));
        let kind = KINDS.iter().find(|(known, _)| *known == name).ok_or_else(|| {
            let names: Vec<_> = KINDS.iter().map(|(name, _)| *name).collect();
            format!("choose one of {}", names.join(", "))
        })?;
        let depth = depth.parse().ok().filter(|depth| (1..=DEPTH_MOST).contains(depth));
        Ok(Self {
            kind: kind.1,
            depth: depth.ok_or_else(|| format!("behind @ goes how many at a time, 1 to {DEPTH_MOST}"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_has_a_name_that_can_be_typed() {
        for (kind, depths) in DEFAULT {
            for &depth in *depths {
                let workload = Workload { kind: *kind, depth };
                assert_eq!(workload.to_string().parse(), Ok(workload));
            }
        }
        for wrong in ["", "read", "read-4k@", "read-4k@0", "read-4k@65", "read-4k@x", "@4"] {
            assert!(wrong.parse::<Workload>().is_err(), "{wrong} is no workload");
        }
    }
}
