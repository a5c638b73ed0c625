//! The instructions of a function that load an errno, and the tests in front of each.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::fate::{Fate, fate};
use super::flow::{Code, Way};
use super::instruction::Does;

/// Ways to one site that are looked for; behind more than these nobody finds the test that decided.
const WAYS_MAX: usize = 64;

/// An instruction that loads an errno.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// Its address.
    pub address: u64,
    /// The tests of which one is the last before it, the nearest first.
    pub ways: Vec<Way>,
    /// Control can come from the function's entry without a test: the errno is loaded in advance.
    pub untested: bool,
    /// What becomes of the errno behind it.
    pub fate: Fate,
    /// There may be more ways than these: by a table, or too many.
    pub more: bool,
}

impl Site {
    /// The tests of which the last one run decides whether this errno is returned.
    #[must_use]
    pub fn tests(&self) -> &[Way] {
        match &self.fate {
            Fate::Returned | Fate::Unknown => &self.ways,
            Fate::Tested(tests) => tests,
        }
    }
}

impl Code {
    /// The instructions that load `-errno` and from which it may be returned, by address.
    #[must_use]
    pub fn sites(&self, errno: i32) -> Vec<Site> {
        let value = -i64::from(errno);
        let loads = |does| does == Does::Loads(value);
        let found = self
            .instructions
            .iter()
            .filter(|(_, instruction)| loads(instruction.does));
        found
            .filter_map(|(address, _)| self.site(*address, fate(self, *address, value)?))
            .collect()
    }

    /// Walks back from a site to the tests in front of it, through what is run in any case.
    fn site(&self, address: u64, fate: Fate) -> Option<Site> {
        let block = self.block(address)?;
        let mut site = Site {
            address,
            ways: Vec::new(),
            untested: false,
            fate,
            more: !self.whole,
        };
        let mut seen = BTreeSet::from([block]);
        let mut wanted = VecDeque::from([block]);
        while let Some(block) = wanted.pop_front() {
            site.untested |= self.entry == Some(block);
            for (address, does) in self.ways(block) {
                let taken = match does {
                    Does::Branches(target) => target == block,
                    _ => {
                        let further = self.block(address).filter(|further| seen.insert(*further));
                        wanted.extend(further);
                        continue;
                    }
                };
                if site.ways.len() == WAYS_MAX {
                    site.more = true;
                    return Some(site);
                }
                site.ways.push(Way { address, taken });
            }
        }
        Some(site)
    }

    /// Where the basic block of an instruction begins.
    fn block(&self, address: u64) -> Option<u64> {
        self.leaders.range(..=address).next_back().copied()
    }

    /// The instructions that are run last before the block that begins here.
    fn ways(&self, block: u64) -> impl Iterator<Item = (u64, Does)> {
        let before = self.instructions.range(..block).next_back();
        let before = before.filter(|(address, before)| {
            // What ends elsewhere is another piece's.
            let next = **address + u64::from(before.length) == block;
            let goes_on = matches!(
                before.does,
                Does::Loads(_) | Does::Calls(_) | Does::Goes | Does::Branches(_)
            );
            // A jump to where it goes anyway is among the jumps.
            next && goes_on && before.does != Does::Branches(block)
        });
        let before = before.map(|(address, before)| (*address, before.does));
        let jumps = self.jumps.get(&block).into_iter().flatten();
        let jumps = jumps.filter_map(|address| Some((*address, self.instructions.get(address)?.does)));
        before.into_iter().chain(jumps)
    }
}
