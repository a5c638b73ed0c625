//! Which instruction of the function that made an errno loaded it, and which test led there.
//!
//! What a first run of a command named is looked up in the kernel's code; probes on what was found there then see a
//! second run.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::call_tree::{Call, Certainty};
use crate::code::{self, Code, Decoder, Memory, Piece, Site};
use crate::origin::{Answer, Origin};
use crate::symbols::Symbols;
use crate::trace::Syscall;

/// Each probe is a trap in the kernel's way.
const PROBES_MAX: usize = 20;
/// Functions of one name that are told apart by their hits.
const NAMESAKES_MAX: usize = 4;

/// A function that made an errno once, and the instructions of it that load this errno.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    /// Its name.
    pub function: String,
    /// The errno.
    pub errno: i32,
    /// Its code, and what the compiler took for cold of it.
    pieces: Vec<Range<u64>>,
    sites: Vec<Site>,
    /// Every byte of it was understood.
    whole: bool,
}

/// The instruction that made an errno.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exact {
    /// Where it is, as in `do_mmap+0xb5`.
    pub place: String,
    /// What it loads the negative of.
    pub errno: i32,
    /// The test before it.
    pub test: Test,
    /// Whether nothing else can have made the errno, as far as it is known that the function made it.
    pub certainty: Certainty,
}

/// What led to an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// A conditional jump.
    Jump {
        /// Where it is, as in `do_mmap+0x70`.
        place: String,
        /// Whether it was taken or control went on behind it; nothing if both lead there.
        taken: Option<bool>,
    },
    /// The errno is loaded before any test: it says nothing of what failed later.
    None,
    /// It was not seen.
    Unknown,
}

impl Suspect {
    /// Looks a function up in the kernel's code; there may be several of its name, and none if it has no symbol.
    ///
    /// # Errors
    /// The code cannot be read.
    pub fn find(
        function: &str,
        errno: i32,
        symbols: &Symbols,
        memory: &Memory,
        decoder: &dyn Decoder,
    ) -> Result<Vec<Self>, code::Error> {
        let named = symbols.ranges(function);
        let cold = symbols.ranges(&format!("{function}.cold"));
        let one = named.len() == 1 && cold.len() == 1;
        let mut found = Vec::new();
        for range in named.into_iter().take(NAMESAKES_MAX) {
            let mut pieces = vec![range];
            if one {
                pieces.extend(cold.iter().cloned());
            }
            let bytes: Vec<_> = pieces
                .iter()
                .map(|piece| memory.read(piece))
                .collect::<Result<_, _>>()?;
            found.push(Self::decode(function, errno, pieces, &bytes, decoder));
        }
        Ok(found)
    }

    /// Decodes a function from the addresses and the bytes of its pieces.
    #[must_use]
    pub fn decode(
        function: &str,
        errno: i32,
        pieces: Vec<Range<u64>>,
        bytes: &[Vec<u8>],
        decoder: &dyn Decoder,
    ) -> Self {
        let parts: Vec<_> = pieces
            .iter()
            .zip(bytes)
            .map(|(range, bytes)| Piece {
                address: range.start,
                bytes,
            })
            .collect();
        let code = Code::decode(decoder, &parts);
        Self {
            function: function.to_owned(),
            errno,
            pieces,
            sites: code.sites(errno),
            whole: code.whole(),
        }
    }

    /// Addresses to probe: at most 20, the instructions that load before the tests.
    #[must_use]
    pub fn probes(&self) -> Vec<u64> {
        let loads = self.sites.iter().map(|site| site.address);
        // The nearest tests of every site before those far from any.
        let farthest = self.sites.iter().map(|site| site.ways.len()).max().unwrap_or(0);
        let tests = (0..farthest).flat_map(|at| {
            self.sites
                .iter()
                .filter_map(move |site| Some(site.ways.get(at)?.address))
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

    fn place(&self, address: u64) -> String {
        let piece = self.pieces.iter().position(|piece| piece.contains(&address));
        let start = piece
            .and_then(|piece| self.pieces.get(piece))
            .map_or(0, |piece| piece.start);
        let cold = if piece == Some(1) { ".cold" } else { "" };
        format!("{}{cold}+{:#x}", self.function, address - start)
    }
}

/// The instruction that made the errno of a call, if probes of `suspects` saw it. `refused` are addresses at which the
/// kernel let no probe be set.
#[must_use]
pub fn exact(suspects: &[Suspect], refused: &[u64], syscall: &Syscall, answer: &Answer) -> Option<Exact> {
    let errno = i32::try_from(-syscall.returned).ok()?;
    let Origin::Function(function) = &answer.origin else {
        return None;
    };
    let mut run = None;
    last_run(&syscall.tree.roots, function, errno, &mut run);
    let hits = hits(run?, &syscall.hits);
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
    let (at, suspect, site) = found?;
    let probed = suspect.probes();
    let seen = |address: &u64| probed.contains(address) && !refused.contains(address);
    let made = answer.chain.last() == Some(function);
    let all_sites = suspect.whole && suspect.sites.iter().all(|site| seen(&site.address));
    let all_ways = !site.more && site.ways.iter().all(|way| seen(&way.address));
    let way = hits[..at]
        .iter()
        .rev()
        .find_map(|address| site.ways.iter().find(|way| way.address == *address));
    let test = match way {
        Some(way) if all_ways => Test::Jump {
            place: suspect.place(way.address),
            taken: {
                let both = site.ways.iter().filter(|other| other.address == way.address).count() > 1;
                (!both).then_some(way.taken)
            },
        },
        None if site.untested && all_ways => Test::None,
        _ => Test::Unknown,
    };
    let certainty = match answer.certainty {
        Certainty::Unknown => Certainty::Unknown,
        _ if made && all_sites => Certainty::Certain,
        _ => Certainty::Likely,
    };
    Some(Exact {
        place: suspect.place(site.address),
        errno,
        test,
        certainty,
    })
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
