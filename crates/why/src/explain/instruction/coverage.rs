//! The basic blocks of a function that were run, where each of them was probed, and the conditional jump that led to
//! the errno.

use super::exact::Jump;
use super::hits::{hits, making};
use super::suspect::Suspect;
use crate::explain::certainty::Certainty;
use crate::explain::origin::Answer;
use crate::kernel::code::{Block, Fate, Way};
use crate::trace::{Call, Got, Syscall};

/// What was run of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// Its name.
    pub function: String,
    /// How many basic blocks it has.
    pub blocks: usize,
    /// Those that were run, in the order of their first runs, as in `do_mmap+0x70`.
    pub run: Vec<String>,
    /// The conditional jump that decided, and how it turned out.
    pub jump: Option<Jump>,
    /// The values that it was about, in words, if it was seen what they were.
    pub compared: Option<String>,
    /// Whether no block can have been run unseen.
    pub certainty: Certainty,
}

/// What was run of the function that made the errno of a call, if each block of it was probed.
#[must_use]
pub fn coverage(suspects: &[Suspect], refused: &[u64], syscall: &Syscall, answer: &Answer) -> Option<Coverage> {
    let (made, errno) = making(syscall, answer)?;
    let function = &made.function;
    let hits = hits(made, &syscall.hits);
    // Of several functions of one name only one was run.
    let suspect = suspects.iter().find(|suspect| {
        let is_hit = |block: &Block| hits.contains(&block.start);
        suspect.function == *function && suspect.errno == errno && suspect.blocks.iter().any(is_hit)
    })?;
    // The kernel tells of the probe at a function's entry before it tells that the function was entered.
    let entry = suspect
        .blocks
        .first()
        .filter(|entry| hits.first() != Some(&entry.start));
    let further = hits
        .iter()
        .filter_map(|address| suspect.blocks.iter().find(|block| block.start == *address));
    let path: Vec<&Block> = entry.into_iter().chain(further).collect();
    let mut run: Vec<String> = Vec::new();
    for block in &path {
        let place = suspect.place(block.start);
        if !run.contains(&place) {
            run.push(place);
        }
    }
    let all = suspect.whole && suspect.blocks.iter().all(|block| !refused.contains(&block.start));
    let certainty = match answer.certainty {
        Certainty::Unknown => Certainty::Unknown,
        _ if all && !syscall.lost => Certainty::Certain,
        _ => Certainty::Likely,
    };
    let decision = suspect.decision(&path);
    let compared = decision.and_then(|(block, _)| block.compared.as_ref());
    Some(Coverage {
        function: function.clone(),
        blocks: suspect.blocks.len(),
        compared: compared.and_then(|compared| Some(compared.tell(got(made, syscall, compared.address)?))),
        jump: decision.map(|(block, taken)| Jump {
            place: suspect.place(block.last),
            taken,
        }),
        run,
        certainty,
    })
}

/// What a probe at this address got last in a run of a function.
fn got<'s>(run: &Call, syscall: &'s Syscall, address: u64) -> Option<&'s [u64]> {
    let there = |(index, value): (usize, &Got)| (value.address == address).then_some((value.time, index as u64));
    let all: Vec<_> = syscall.got.iter().enumerate().filter_map(there).collect();
    let last = usize::try_from(*hits(run, &all).last()?).ok()?;
    Some(&syscall.got.get(last)?.values)
}

impl Suspect {
    /// The jump that decided: the last one before the errno was loaded, or, where that was done in advance, the last one of
    /// those after which nothing overwrites it.
    fn decision<'b>(&self, path: &[&'b Block]) -> Option<(&'b Block, Option<bool>)> {
        let (at, site) = path.iter().enumerate().rev().find_map(|(at, block)| {
            let within = |address: u64| (block.start..block.end).contains(&address);
            let site = self.sites.iter().rev().find(|site| within(site.address))?;
            Some((at, site))
        })?;
        let turns = path.windows(2).map(|pair| (pair[0], taken(pair[0], pair[1])));
        let turns: Vec<_> = turns.collect();
        let found = match &site.fate {
            Fate::Tested(ways) => turns[at..].iter().rev().find(|(block, taken)| {
                let ends_so = |way: &Way| way.address == block.last && Some(way.taken) == *taken;
                ways.iter().any(ends_so)
            }),
            Fate::Returned | Fate::Unknown => turns[..at].iter().rev().find(|(block, _)| block.branch.is_some()),
        };
        found.copied()
    }
}

/// Whether a conditional jump was taken, by what was run next; nothing if that tells neither.
fn taken(block: &Block, next: &Block) -> Option<bool> {
    let target = block.branch?;
    match (next.start == target, next.start == block.end) {
        (true, false) => Some(true),
        (false, true) => Some(false),
        _ => None,
    }
}
