//! Budgets of descriptors and of memory for directories that the guest can make the daemon hold. The daemon keeps
//! enough of both to continue and to accept a new VMM.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rustix::process::{Resource, getrlimit};

use crate::fs::{Errno, Result};

/// Kept back for the daemon: memory regions, kicks and calls of some dozens of queues, and what each lane opens and closes
/// within one request. Where the limit is low, half of it.
const RESERVE: u64 = 512;

/// At least so many: a daemon with two request queues has some 28 open itself, and opens up to three for each request.
const LEAST_RESERVE: u64 = 40;

/// Bytes of entries kept between requests, for all open directories together: some hundred that are being read at the same time.
const READ_AHEAD: usize = 4 << 20;

/// Descriptors held on behalf of the guest, from one request to the next.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<Counter>);

#[derive(Debug)]
struct Counter {
    limit: u64,
    used: AtomicU64,
    read_ahead: AtomicUsize,
}

impl Budget {
    /// What RLIMIT_NOFILE leaves now.
    pub(super) fn of_process() -> Budget {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Budget::new(limit.saturating_sub(RESERVE.min(LEAST_RESERVE.max(limit / 2))))
    }

    fn new(limit: u64) -> Budget {
        Budget(Arc::new(Counter {
            limit,
            used: AtomicU64::new(0),
            read_ahead: AtomicUsize::new(0),
        }))
    }

    /// How many descriptors that are in all.
    pub(super) fn limit(&self) -> u64 {
        self.0.limit
    }

    /// The right to hold one more descriptor; ENFILE if the guest holds all it may.
    pub(super) fn take(&self) -> Result<Permit> {
        let Counter { limit, used, .. } = &*self.0;
        used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            (used < *limit).then_some(used + 1)
        })
        .map_err(|_| Errno::ENFILE.rule("the guest has as many open files as it may (--rlimit-nofile)"))?;
        Ok(Permit(Arc::clone(&self.0)))
    }

    /// The right to keep `bytes` of entries until the next request; `None` if so much is kept already that they are read again.
    pub(super) fn keep(&self, bytes: usize) -> Option<ReadAhead> {
        let kept = &self.0.read_ahead;
        kept.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |kept| {
            kept.checked_add(bytes).filter(|&kept| kept <= READ_AHEAD)
        })
        .ok()?;
        Some(ReadAhead(Arc::clone(&self.0), bytes))
    }
}

/// Room for entries that are kept, given back on drop.
#[derive(Debug)]
pub(super) struct ReadAhead(Arc<Counter>, usize);

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.0.read_ahead.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// One descriptor's place in the budget, given back on drop.
#[derive(Debug)]
pub(super) struct Permit(Arc<Counter>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_kept_until_there_are_too_many() {
        let budget = Budget::new(0);
        let most = budget.keep(READ_AHEAD - 10).unwrap();
        let _ten = budget.keep(10).unwrap();
        assert!(budget.keep(1).is_none() && budget.keep(usize::MAX).is_none());
        drop(most);
        assert!(budget.keep(READ_AHEAD - 10).is_some());
    }

    #[test]
    fn what_is_dropped_can_be_taken_again_and_no_more() {
        let budget = Budget::new(2);
        let first = budget.take().unwrap();
        let _second = budget.take().unwrap();
        assert_eq!(budget.take().err(), Some(Errno::ENFILE));
        drop(first);
        let _third = budget.take().unwrap();
        assert_eq!(budget.take().err(), Some(Errno::ENFILE));
    }
}
