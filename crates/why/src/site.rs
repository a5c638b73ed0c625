//! Which instruction of the function that made an errno loaded it, and which test led there.
//!
//! What a first run of a command named is looked up in the kernel's code; probes on what was found there then see a
//! second run.

mod coverage;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::call_tree::{Call, Certainty};
use crate::kernel::code::{self, Block, Code, Decoder, Fate, Memory, Piece, Site};
use crate::kernel::symbols::ByName;
use crate::origin::{Answer, Origin};
use crate::trace::Syscall;

pub use coverage::{Coverage, coverage};

/// Each probe is a trap in the kernel's way.
const PROBES_MAX: usize = 20;
/// As many where the whole of a function is looked at.
const BLOCKS_MAX: usize = 400;
/// Functions that never return; what lies behind a call of them belongs to something else.
const ENDLESS: [&str; 4] = ["__stack_chk_fail", "panic", "__fortify_panic", "usercopy_abort"];
/// Beginnings of the names of system calls' functions, which are followed by the call's name.
const SYSCALLS: [&str; 2] = ["__x64_sys_", "__arm64_sys_"];
/// Functions of one name that are told apart by their hits.
const NAMESAKES_MAX: usize = 4;

/// A function that made an errno once, and the instructions of it that load this errno.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    /// Its name.
    pub function: String,
    /// The errno.
    pub errno: i32,
    /// Its code by name: first its own.
    pieces: Vec<(String, Range<u64>)>,
    sites: Vec<Site>,
    /// Every byte of it was understood.
    whole: bool,
    /// An instruction of it leaves this errno or 0.
    #[serde(skip)]
    masked: bool,
    /// Where it goes by calls and jumps out of it.
    #[serde(skip)]
    leaves: Vec<u64>,
    /// Its basic blocks, if each of them is probed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    blocks: Vec<Block>,
    /// Its basic blocks, which may be probed.
    #[serde(skip)]
    decoded: Vec<Block>,
}

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

impl Suspect {
    /// Looks a function up in the kernel's code; there may be several of its name, and none if it has no symbol.
    ///
    /// # Errors
    /// The code cannot be read.
    pub fn find(
        function: &str,
        errno: i32,
        symbols: &ByName<'_>,
        memory: &Memory,
        decoder: &dyn Decoder,
    ) -> Result<Vec<Self>, code::Error> {
        let endless = ENDLESS.iter().flat_map(|name| symbols.ranges(name));
        let endless: Vec<u64> = endless.map(|range| range.start).collect();
        let named = symbols.ranges(function);
        let more = if named.len() == 1 {
            further_pieces(function, symbols)
        } else {
            Vec::new()
        };
        let mut found = Vec::new();
        for range in named.iter().take(NAMESAKES_MAX) {
            let mut pieces = vec![(function.to_owned(), range.clone())];
            pieces.extend(more.iter().cloned());
            let bytes: Vec<_> = pieces
                .iter()
                .map(|(_, piece)| memory.read(piece))
                .collect::<Result<_, _>>()?;
            found.push(Self::decode(function, errno, pieces, &bytes, (decoder, &endless)));
        }
        Ok(found)
    }

    /// Decodes a function from the names, addresses and bytes of its pieces, with what knows the instructions and the
    /// functions that never return.
    #[must_use]
    pub fn decode(
        function: &str,
        errno: i32,
        pieces: Vec<(String, Range<u64>)>,
        bytes: &[Vec<u8>],
        (decoder, endless): (&dyn Decoder, &[u64]),
    ) -> Self {
        let parts: Vec<_> = pieces
            .iter()
            .zip(bytes)
            .map(|((_, range), bytes)| Piece {
                address: range.start,
                bytes,
            })
            .collect();
        let code = Code::decode(decoder, &parts, endless);
        let mut blocks = code.blocks();
        for block in &mut blocks {
            let compared = code.deciding(block).and_then(|address| {
                let within =
                    |part: &&Piece<'_>| (part.address..part.address + part.bytes.len() as u64).contains(&address);
                let part = parts.iter().find(within)?;
                decoder.compared(
                    part.bytes.get(usize::try_from(address - part.address).ok()?..)?,
                    address,
                )
            });
            block.compared = compared;
        }
        Self {
            function: function.to_owned(),
            errno,
            pieces,
            sites: code.sites(errno),
            masked: code.masks(errno),
            whole: code.whole(),
            leaves: code.leaves().collect(),
            blocks: Vec::new(),
            decoded: blocks,
        }
    }

    /// Has every basic block probed; not if there are too many. Whether it does.
    pub fn look_deep(&mut self) -> bool {
        let few = self.decoded.len() <= BLOCKS_MAX;
        if few {
            self.blocks = std::mem::take(&mut self.decoded);
        }
        few
    }

    /// Addresses to probe: at most 20, the instructions that load before the tests; and every basic block, if it is to be
    /// looked at as a whole.
    #[must_use]
    pub fn probes(&self) -> Vec<u64> {
        let mut probes = self.few_probes();
        let blocks = self.blocks.iter().map(|block| block.start);
        let more: Vec<_> = blocks.filter(|start| !probes.contains(start)).collect();
        probes.extend(more);
        probes
    }

    /// Of the blocks that are probed each instruction that compares values before a jump, with what is to be got there.
    pub fn fetches(&self) -> impl Iterator<Item = (u64, Vec<String>)> {
        let compared = self.blocks.iter().filter_map(|block| block.compared.as_ref());
        compared.map(|compared| (compared.address, compared.fetches().map(str::to_owned).collect()))
    }

    fn few_probes(&self) -> Vec<u64> {
        let loads = self.sites.iter().map(|site| site.address);
        // The nearest tests of every site before those far from any.
        let farthest = self.sites.iter().map(|site| site.tests().len()).max().unwrap_or(0);
        let tests = (0..farthest).flat_map(|at| {
            self.sites
                .iter()
                .filter_map(move |site| Some(site.tests().get(at)?.address))
        });
        let mut probes = Vec::new();
        for address in loads.chain(tests) {
            if probes.len() == PROBES_MAX {
                break;
            }
            if !probes.contains(&address) {
                probes.push(address);
            }
        }
        probes
    }

    /// Whether all of its code is known, and none of it makes the errno.
    #[must_use]
    pub fn never_loads(&self) -> bool {
        self.whole && !self.masked && self.sites.is_empty()
    }

    /// Whether an instruction of it loads the errno, so that it may be returned.
    #[must_use]
    pub fn loads(&self) -> bool {
        !self.sites.is_empty()
    }

    /// Addresses outside of it that it calls or jumps to.
    #[must_use]
    pub fn leaves(&self) -> &[u64] {
        &self.leaves
    }

    /// Whether no instruction that loads the errno can have been run unseen.
    fn all_probed(&self, refused: &[u64]) -> bool {
        self.whole && self.sites.iter().all(|site| self.is_probed(site.address, refused))
    }

    fn is_probed(&self, address: u64, refused: &[u64]) -> bool {
        self.probes().contains(&address) && !refused.contains(&address)
    }

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

    fn place(&self, address: u64) -> String {
        let piece = self.pieces.iter().find(|(_, range)| range.contains(&address));
        piece.map_or_else(
            || format!("{address:#x}"),
            |(name, range)| format!("{name}+{:#x}", address - range.start),
        )
    }
}

/// What belongs to a function and is no function of its own to the tracer: what the compiler took for cold of it, and the
/// body of a system call, which is inline and thus not traced (`__SYSCALL_DEFINEx` of Linux).
fn further_pieces(function: &str, symbols: &ByName<'_>) -> Vec<(String, Range<u64>)> {
    let body = SYSCALLS.iter().find_map(|prefix| function.strip_prefix(prefix));
    let body = body.map(|call| format!("__do_sys_{call}"));
    let names = [
        Some(format!("{function}.cold")),
        body.as_ref().map(|body| format!("{body}.cold")),
        body,
    ];
    let found = names.into_iter().flatten().filter_map(|name| {
        // Which one of several belongs to it is not known.
        match symbols.ranges(&name) {
            [range] => Some((name, range.clone())),
            _ => None,
        }
    });
    found.collect()
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

/// The run of the function that made the errno of a call, and the errno.
fn making<'c>(syscall: &'c Syscall, answer: &Answer) -> Option<(&'c Call, i32)> {
    let errno = i32::try_from(-syscall.returned).ok()?;
    let Origin::Function(function) = &answer.origin else {
        return None;
    };
    let mut run = None;
    last_run(&syscall.tree.roots, function, errno, &mut run);
    Some((run?, errno))
}

/// The last run of a function that ended with this errno.
fn last_run<'c>(calls: &'c [Call], function: &str, errno: i32, found: &mut Option<&'c Call>) {
    for call in calls {
        last_run(&call.children, function, errno, found);
        if call.function == function && call.hands_on(errno) {
            *found = Some(call);
        }
    }
}

/// The addresses hit in one run of a function, in order, without those of its runs inside.
fn hits(run: &Call, hits: &[(u64, u64)]) -> Vec<u64> {
    fn inner(run: &Call, function: &str, windows: &mut Vec<(u64, u64)>) {
        for child in &run.children {
            if child.function == function {
                windows.push((child.time.0, child.time.1.unwrap_or(u64::MAX)));
            } else {
                inner(child, function, windows);
            }
        }
    }
    let mut windows = Vec::new();
    inner(run, &run.function, &mut windows);
    let within = |time: u64, (from, to): (u64, u64)| (from..=to).contains(&time);
    let of_run = hits.iter().filter(|(time, _)| {
        within(*time, (run.time.0, run.time.1.unwrap_or(u64::MAX)))
            && !windows.iter().any(|window| within(*time, *window))
    });
    of_run.map(|(_, address)| *address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::symbols::Symbols;

    #[test]
    fn the_body_of_a_system_call_and_cold_code_belong_to_it() {
        let text = "1000 t __do_sys_prctl\n2000 T __x64_sys_prctl\n2100 t __do_sys_prctl.cold\n2200 t other\n\
                    3000 t f\n3100 t f.cold\n3200 t g\n3300 t f.cold\n3400 t end\n";
        let symbols = Symbols::parse(text);
        let symbols = symbols.by_name();
        let pieces = further_pieces("__x64_sys_prctl", &symbols);
        let expected = [
            ("__do_sys_prctl.cold".to_owned(), 0x2100..0x2200),
            ("__do_sys_prctl".to_owned(), 0x1000..0x2000),
        ];
        assert_eq!(pieces, expected);
        // One of two.
        assert_eq!(further_pieces("f", &symbols), []);
    }
}
