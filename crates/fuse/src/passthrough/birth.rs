//! The birth time of an inode, which distinguishes it from the next inode with its number without opening either.
//!
//! The clock for birth times ticks every few milliseconds. An inode that is checked within a tick of its birth could
//! be followed by another with the same number and birth time. An inode that is checked later cannot: any inode that
//! takes its number after the check is born later. Therefore only such a [`Birth`], of an inode that was old enough
//! before the check began, proves anything.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Statx, StatxFlags};
use rustix::time::{ClockId, clock_gettime};

/// Many ticks of the slowest clock that Linux is built with (100 Hz), in nanoseconds.
const SETTLED_AFTER: u64 = 100_000_000;

/// The time of birth of an inode that was older than any tick when it was looked at, in nanoseconds since 1970; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Birth(u64);

/// When a look at an inode began, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look(u64);

impl Look {
    /// To be called before the attributes are asked for.
    pub(super) fn begin() -> Look {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        Look(nanoseconds(now.tv_sec, now.tv_nsec.unsigned_abs()).unwrap_or(0))
    }

    /// The birth of the inode that this look found. `None`: the file system knows no births, or it is too young to be told by it.
    pub(super) fn birth(self, stat: &Statx) -> Option<Birth> {
        if stat.stx_mask & StatxFlags::BTIME.bits() == 0 {
            return None;
        }
        self.settled(nanoseconds(stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec.into())?)
    }

    fn settled(self, birth: u64) -> Option<Birth> {
        (birth > 0 && birth.saturating_add(SETTLED_AFTER) < self.0).then_some(Birth(birth))
    }
}

fn nanoseconds(seconds: i64, nanoseconds: u64) -> Option<u64> {
    let seconds = u64::try_from(seconds).ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

/// The birth of a node's inode, once it is known.
#[derive(Debug, Default)]
pub(super) struct KnownBirth(AtomicU64);

impl KnownBirth {
    /// A look at the inode found `birth`.
    pub(super) fn set(&self, birth: Option<Birth>) {
        if let Some(Birth(birth)) = birth {
            self.0.store(birth, Ordering::Relaxed);
        }
    }

    /// Whether an inode of the same number, found with `birth`, can only be this one.
    pub(super) fn tells(&self, birth: Birth) -> bool {
        birth.0 == self.0.load(Ordering::Relaxed)
    }

    /// Whether an inode found with `birth` can only be another one.
    pub(super) fn contradicts(&self, birth: Birth) -> bool {
        let known = self.0.load(Ordering::Relaxed);
        known != 0 && known != birth.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inode_is_told_by_its_birth_once_it_is_older_than_a_tick() {
        let known = KnownBirth::default();
        let look = Look::begin();
        assert_eq!(
            look.settled(look.0),
            None,
            "it may be followed by another in the same tick"
        );
        assert_eq!(look.settled(look.0 - SETTLED_AFTER), None);
        let old = look.settled(look.0 - SETTLED_AFTER - 1).unwrap();
        assert!(!known.tells(old) && !known.contradicts(old), "nothing is known yet");
        known.set(Some(old));
        assert!(known.tells(old));
        known.set(None);
        assert!(known.tells(old), "a look that proves nothing takes nothing away");
        assert!(!known.contradicts(old));
        assert!(!known.tells(Birth(old.0 - 1)) && known.contradicts(Birth(old.0 - 1)));
    }

    #[test]
    fn a_birth_in_the_future_or_at_the_epoch_tells_nothing() {
        let look = Look::begin();
        let later = look.0 + 1_000 * SETTLED_AFTER;
        assert_eq!(
            look.settled(later),
            None,
            "a clock that was set back will come by again"
        );
        assert_eq!(look.settled(u64::MAX), None);
        assert_eq!(look.settled(0), None, "file systems that know no birth");
    }
}
