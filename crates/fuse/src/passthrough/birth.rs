//! When an inode was born, as a way to tell it from the next inode of its number without opening either.
//!
//! The clock that file systems take that time from ticks every few milliseconds, so an inode that was met within a tick of its
//! birth could be followed by another of the same number and birth. One that was met later cannot.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Statx, StatxFlags};
use rustix::time::{ClockId, clock_gettime};

/// Many ticks of the slowest clock that Linux is built with (100 Hz), in nanoseconds.
const SETTLED_AFTER: u64 = 100_000_000;

/// Nanoseconds since 1970 at which a node's inode was born, once it is certain that no other of its number was; else 0.
#[derive(Debug, Default)]
pub(super) struct Birth(AtomicU64);

impl Birth {
    /// The inode was seen alive just now, and `birth` is what its attributes say.
    pub(super) fn set(&self, birth: Option<u64>) {
        let Some(birth) = birth else { return };
        if now().is_some_and(|now| birth.saturating_add(SETTLED_AFTER) < now) {
            self.0.store(birth, Ordering::Relaxed);
        }
    }

    /// Whether an inode of the same number, born at `birth`, can only be this one.
    pub(super) fn tells(&self, birth: Option<u64>) -> bool {
        birth.is_some_and(|birth| birth > 0 && birth == self.0.load(Ordering::Relaxed))
    }
}

/// The time of birth that `stat` holds, where the file system knows it.
pub(super) fn of(stat: &Statx) -> Option<u64> {
    if stat.stx_mask & StatxFlags::BTIME.bits() == 0 {
        return None;
    }
    let seconds = u64::try_from(stat.stx_btime.tv_sec).ok()?;
    seconds
        .checked_mul(1_000_000_000)?
        .checked_add(stat.stx_btime.tv_nsec.into())
}

fn now() -> Option<u64> {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    let seconds = u64::try_from(now.tv_sec).ok()?;
    seconds
        .checked_mul(1_000_000_000)?
        .checked_add(now.tv_nsec.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_birth_within_the_tick_of_the_meeting_tells_nothing() {
        let birth = Birth::default();
        birth.set(now());
        assert!(!birth.tells(now()));
        assert!(!birth.tells(None), "no birth is no proof");
        let long_ago = now().map(|now| now - 2 * SETTLED_AFTER);
        birth.set(long_ago);
        assert!(birth.tells(long_ago));
        assert!(!birth.tells(long_ago.map(|birth| birth + 1)));
    }

    #[test]
    fn a_birth_in_the_future_tells_nothing() {
        let birth = Birth::default();
        let later = now().map(|now| now + 1_000 * SETTLED_AFTER);
        birth.set(later);
        assert!(!birth.tells(later), "a clock that was set back will come by again");
    }
}
