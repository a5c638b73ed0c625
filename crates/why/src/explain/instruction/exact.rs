//! The instruction that loaded an errno, and the test that led there.

use super::hits::{hits, making};
use super::suspect::Suspect;
use crate::explain::certainty::Certainty;
use crate::explain::origin::Answer;
use crate::kernel::code::{Fate, Site};
use crate::trace::Syscall;

/// What the probes say of an errno.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exact {
    /// An instruction of the function loaded it.
    Loaded(Load),
    /// No instruction of this function did: it computed the errno, read it somewhere, or was told it by what was not seen.
    NotLoaded(String),
}

/// The instruction that made an errno.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// Where it is, as in `do_mmap+0xb5`.
    pub place: String,
    /// Whether no other function of the kernel and its modules has this name.
    pub unique: bool,
    /// What it loads the negative of.
    pub errno: i32,
    /// The test that decided.
    pub test: Test,
    /// Whether nothing else can have made the errno, as far as it is known that the function made it.
    pub certainty: Certainty,
}

/// What decided that an errno was returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// A conditional jump led to the instruction that loads it.
    Before(Jump),
    /// It was loaded in advance, and a conditional jump or move led to where nothing overwrites it.
    After(Jump),
    /// None: the function always returns it.
    None,
    /// It was not seen.
    Unknown,
}

/// A conditional jump or move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jump {
    /// Where it is, as in `do_mmap+0x70`.
    pub place: String,
    /// Whether its condition held; nothing if that makes no difference.
    pub taken: Option<bool>,
}

/// The instruction that made the errno of a call, if probes of `suspects` saw it. `refused` are addresses at which the
/// kernel let no probe be set.
#[must_use]
pub fn exact(suspects: &[Suspect], refused: &[u64], syscall: &Syscall, answer: &Answer) -> Option<Exact> {
    let (run, errno) = making(syscall, answer)?;
    let function = &run.function;
    let hits = hits(run, &syscall.hits);
    let asked = || {
        suspects
            .iter()
            .filter(|suspect| suspect.function == *function && suspect.errno == errno)
    };
    let found = hits.iter().enumerate().rev().find_map(|(at, address)| {
        asked().find_map(|suspect| {
            let site = suspect.sites.iter().find(|site| site.address == *address)?;
            Some((at, suspect, site))
        })
    });
    let Some((at, suspect, site)) = found else {
        let certain_of_none = answer.certainty != Certainty::Unknown && asked().all(|suspect| suspect.whole);
        return certain_of_none.then(|| not_hit(function, asked(), refused)).flatten();
    };
    let made = answer.chain.last() == Some(function) && suspect.all_probed(refused);
    let test = suspect.test(site, (&hits[..at], &hits[at + 1..]), refused);
    let kept = site.fate == Fate::Returned || matches!(test, Test::After(_));
    let certainty = match answer.certainty {
        Certainty::Unknown => Certainty::Unknown,
        // A later hit may be what was lost.
        _ if made && kept && !syscall.lost => Certainty::Certain,
        _ => Certainty::Likely,
    };
    Some(Exact::Loaded(Load {
        place: suspect.place(site.address),
        unique: asked().count() == 1,
        errno,
        test,
        certainty,
    }))
}

/// What is known if no instruction was hit: it was one that could not be probed, if there is but one.
fn not_hit<'s>(function: &str, asked: impl Iterator<Item = &'s Suspect>, refused: &[u64]) -> Option<Exact> {
    let asked: Vec<_> = asked.collect();
    let unseen = asked.iter().flat_map(|suspect| {
        let unseen = suspect
            .sites
            .iter()
            .filter(|site| !suspect.is_probed(site.address, refused));
        unseen.map(move |site| (suspect, site))
    });
    let mut unseen = unseen.fuse();
    match (unseen.next(), unseen.next()) {
        (None, _) => (!asked.is_empty()).then(|| Exact::NotLoaded(function.to_owned())),
        (Some((suspect, site)), None) => Some(Exact::Loaded(Load {
            place: suspect.place(site.address),
            unique: asked.len() == 1,
            errno: suspect.errno,
            test: Test::Unknown,
            certainty: Certainty::Likely,
        })),
        _ => None,
    }
}

impl Suspect {
    /// The test that decided, from what was hit before and after a site.
    fn test(&self, site: &Site, hits: (&[u64], &[u64]), refused: &[u64]) -> Test {
        let seen = |address: &u64| self.is_probed(*address, refused);
        let tests = site.tests();
        let later = matches!(site.fate, Fate::Tested(_));
        if !tests.iter().all(|test| seen(&test.address)) || site.more && !later {
            return Test::Unknown;
        }
        let hits = if later { hits.1 } else { hits.0 };
        let last = hits.iter().rev();
        let last = last
            .filter_map(|address| tests.iter().find(|test| test.address == *address))
            .next();
        let Some(last) = last else {
            let none = site.untested && site.fate == Fate::Returned;
            return if none { Test::None } else { Test::Unknown };
        };
        let both = tests.iter().filter(|test| test.address == last.address).count() > 1;
        let jump = Jump {
            place: self.place(last.address),
            taken: (!both).then_some(last.taken),
        };
        if later { Test::After(jump) } else { Test::Before(jump) }
    }
}
