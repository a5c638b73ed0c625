//! The failed calls that are kept: the first and the last ones, because a command in a loop must not fill the memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::observe::failure::{Failure, Outcome};

/// As many of the first and of the last.
const HALF: usize = 5_000;

#[derive(Default)]
pub(super) struct Failures {
    first: Vec<Failure>,
    last: VecDeque<Failure>,
    dropped: u64,
    /// Of what was dropped how many have this thread, number and errno: a recording has them all.
    alike: BTreeMap<(i32, u64, i32), usize>,
}

impl Failures {
    pub(super) fn push(&mut self, failure: Failure) {
        if self.first.len() < HALF {
            self.first.push(failure);
            return;
        }
        self.last.push_back(failure);
        if self.last.len() > HALF
            && let Some(dropped) = self.last.pop_front()
        {
            self.dropped += 1;
            if let Some(alike) = alike(&dropped) {
                *self.alike.entry(alike).or_default() += 1;
            }
        }
    }

    /// The latest first.
    pub(super) fn latest(&mut self) -> impl Iterator<Item = &mut Failure> {
        self.last.iter_mut().rev().chain(self.first.iter_mut().rev())
    }

    /// All that were kept, in their order, and how many were not.
    pub(super) fn finish(mut self) -> (Vec<Failure>, u64) {
        // Whoever looks for a thread's calls in their order goes on behind that one.
        let mut told = BTreeSet::new();
        for failure in &mut self.last {
            if let Some(alike) = alike(failure)
                && told.insert(failure.thread)
            {
                failure.dropped_before = self.alike.get(&alike).copied().unwrap_or(0);
            }
        }
        self.first.extend(self.last);
        (self.first, self.dropped)
    }
}

/// What a failure is found by in a recording, if it is looked for there.
fn alike(failure: &Failure) -> Option<(i32, u64, i32)> {
    match failure.outcome {
        Outcome::Errno(errno) if !failure.inferred => Some((failure.thread, failure.number, errno)),
        Outcome::Errno(_) | Outcome::Sigsys => None,
    }
}
