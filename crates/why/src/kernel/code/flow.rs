//! Control flow inside one function.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::compared::Compared;
use super::instruction::{Decoder, Does, Instruction};

/// A part of a function: compilers put what is rarely run elsewhere (`name.cold`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'b> {
    /// Address of its first byte.
    pub address: u64,
    /// Its bytes.
    pub bytes: &'b [u8],
}

/// The instructions of a function.
#[derive(Clone, Debug, Default)]
pub struct Code {
    pub(super) instructions: BTreeMap<u64, Instruction>,
    /// Where basic blocks begin: at the entry, at targets of jumps and behind jumps.
    pub(super) leaders: BTreeSet<u64>,
    /// By target.
    pub(super) jumps: BTreeMap<u64, Vec<u64>>,
    /// Where it goes by a call or a jump that is not in it.
    leaves: BTreeSet<u64>,
    pub(super) entry: Option<u64>,
    pub(super) whole: bool,
}

/// A conditional jump or move, and how it turns out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Way {
    /// Its address.
    pub address: u64,
    /// Whether its condition holds then.
    pub taken: bool,
}

/// What is run as a whole or not at all: from an instruction that is entered, or jumped to, up to the next jump.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Address of its first instruction.
    pub start: u64,
    /// Address of its last instruction.
    pub last: u64,
    /// Address behind it.
    pub end: u64,
    /// Where its last instruction goes if a condition holds; nothing if that is no conditional jump.
    pub branch: Option<u64>,
    /// What that condition is about, if the block says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Compared>,
}

impl Code {
    /// Decodes a function from its pieces, the one with its entry first. `endless` are functions that never return.
    ///
    /// Any bytes are decoded as far as they can be; time is linear in their number.
    #[must_use]
    pub fn decode(decoder: &dyn Decoder, pieces: &[Piece<'_>], endless: &[u64]) -> Self {
        let mut code = Self {
            entry: pieces.first().map(|piece| piece.address),
            whole: true,
            ..Self::default()
        };
        for piece in pieces {
            code.leaders.insert(piece.address);
            code.piece(decoder, piece, endless);
        }
        // What jumps into the middle of an instruction or out of the function begins no block here.
        let Self {
            instructions,
            jumps,
            leaves,
            leaders,
            ..
        } = &mut code;
        let within = |piece: &Piece<'_>, address: u64| {
            let into = address.checked_sub(piece.address);
            into.is_some_and(|into| into < piece.bytes.len() as u64)
        };
        leaves.retain(|target| !pieces.iter().any(|piece| within(piece, *target)));
        jumps.retain(|target, _| instructions.contains_key(target));
        leaders.extend(jumps.keys());
        leaders.retain(|leader| instructions.contains_key(leader));
        code
    }

    fn piece(&mut self, decoder: &dyn Decoder, piece: &Piece<'_>, endless: &[u64]) {
        let mut rest = piece.bytes;
        let mut address = piece.address;
        while !rest.is_empty() {
            let decoded = decoder.decode(rest, address);
            let behind = decoded.and_then(|decoded| {
                let length = usize::from(decoded.length);
                let next = address.checked_add(u64::from(decoded.length))?;
                (length > 0).then_some((decoded, rest.get(length..)?, next))
            });
            let Some((mut decoded, remaining, next)) = behind else {
                self.whole = false;
                return;
            };
            if matches!(decoded.does, Does::Calls(target) if endless.contains(&target)) {
                decoded.does = Does::Stops;
            }
            self.instructions.insert(address, decoded);
            match decoded.does {
                Does::Jumps(target) | Does::Branches(target) => {
                    self.jumps.entry(target).or_default().push(address);
                    self.leaves.insert(target);
                    self.leaders.insert(next);
                }
                Does::JumpsByTable => {
                    self.whole = false;
                    self.leaders.insert(next);
                }
                Does::Ends | Does::Stops => {
                    self.leaders.insert(next);
                }
                Does::Calls(target) => {
                    self.leaves.insert(target);
                }
                Does::Loads(_) | Does::Goes => {}
            }
            (rest, address) = (remaining, next);
        }
    }

    /// Whether every byte was decoded and every jump's target is known.
    #[must_use]
    pub fn whole(&self) -> bool {
        self.whole
    }

    /// The basic blocks by address. What nothing is known to jump to, as behind a table's jump, is among them too.
    #[must_use]
    pub fn blocks(&self) -> Vec<Block> {
        let starts = self.leaders.iter();
        let mut next = self.leaders.iter().skip(1);
        let block = |start: &u64| {
            let end = next.next().copied().unwrap_or(u64::MAX);
            let (last, instruction) = self.instructions.range(*start..end).next_back()?;
            Some(Block {
                start: *start,
                last: *last,
                end: *last + u64::from(instruction.length),
                branch: match instruction.does {
                    Does::Branches(target) => Some(target),
                    _ => None,
                },
                compared: None,
            })
        };
        starts.filter_map(block).collect()
    }

    /// The instruction that the condition at the end of a block is about: the last one that sets the processor's flags.
    #[must_use]
    pub fn deciding(&self, block: &Block) -> Option<u64> {
        let before = self.instructions.range(block.start..block.last).rev();
        let mut setting = before.filter(|(_, instruction)| instruction.effect.is_none_or(|effect| effect.flags));
        let (address, _) = setting.next().filter(|_| block.branch.is_some())?;
        Some(*address)
    }

    /// Whether an instruction leaves `-errno` or 0, by a mask: how compilers put a choice between the two.
    #[must_use]
    pub fn masks(&self, errno: i32) -> bool {
        let value = Some(-i64::from(errno));
        self.instructions.values().any(|instruction| instruction.mask == value)
    }

    /// Addresses outside of it that it calls or jumps to, but for those that only a register or a table knows.
    pub fn leaves(&self) -> impl Iterator<Item = u64> {
        self.leaves.iter().copied()
    }

    /// Whether an instruction can be what makes the errno, whatever becomes of it: it loads or masks `-errno`, or loads it as
    /// xarrays and maple trees keep it (`xas_set_err()` and `MA_ERROR()` of Linux).
    #[must_use]
    pub fn can_make(&self, errno: i32) -> bool {
        let value = -i64::from(errno);
        let kept = value << 2 | 2;
        let loads = |does| does == Does::Loads(value) || does == Does::Loads(kept);
        self.masks(errno) || self.instructions.values().any(|instruction| loads(instruction.does))
    }

    pub(super) fn at(&self, address: u64) -> Option<Instruction> {
        self.instructions.get(&address).copied()
    }
}
