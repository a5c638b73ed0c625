//! A function that made an errno, its instructions that load the errno, and which of them are probed.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::kernel::code::{self, Block, Code, Decoder, Memory, Piece, Site};
use crate::kernel::symbols::ByName;

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
    pub(super) sites: Vec<Site>,
    /// Every byte of it was understood.
    pub(super) whole: bool,
    /// An instruction of it leaves this errno or 0.
    #[serde(skip)]
    masked: bool,
    /// Where it goes by calls and jumps out of it.
    #[serde(skip)]
    leaves: Vec<u64>,
    /// Its basic blocks, if each of them is probed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) blocks: Vec<Block>,
    /// Its basic blocks, which may be probed.
    #[serde(skip)]
    decoded: Vec<Block>,
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
    pub(super) fn all_probed(&self, refused: &[u64]) -> bool {
        self.whole && self.sites.iter().all(|site| self.is_probed(site.address, refused))
    }

    pub(super) fn is_probed(&self, address: u64, refused: &[u64]) -> bool {
        self.probes().contains(&address) && !refused.contains(&address)
    }

    pub(super) fn place(&self, address: u64) -> String {
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
