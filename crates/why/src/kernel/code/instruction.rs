//! Instructions, as far as they decide where an errno comes from.

use super::compared::Compared;
use super::effect::Effect;

/// An instruction set, as far as it is needed here.
pub trait Decoder {
    /// The first instruction of these bytes, which lie at `address`; nothing if it is cut off or not known.
    ///
    /// More bytes than that one instruction's may be looked at.
    fn decode(&self, bytes: &[u8], address: u64) -> Option<Instruction>;

    /// What the first instruction of these bytes compares, if that is all that it does and it is known how a probe gets the
    /// values.
    fn compared(&self, bytes: &[u8], address: u64) -> Option<Compared>;
}

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Its length in bytes, never 0.
    pub length: u8,
    /// What it does.
    pub does: Does,
    /// The number that it leaves where it does not leave 0.
    pub mask: Option<i64>,
    /// What it writes, if that is known of this kind of processor.
    pub effect: Option<Effect>,
}

/// What an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// Puts this number where it can be returned from, and goes on.
    Loads(i64),
    /// Goes on at this address.
    Jumps(u64),
    /// Goes on at this address or behind itself.
    Branches(u64),
    /// Goes on where only a table knows.
    JumpsByTable,
    /// Does not go on: returns or leaves the function.
    Ends,
    /// Calls a function at this address, and goes on behind itself once it returns.
    Calls(u64),
    /// Calls a function that never returns.
    Stops,
    /// Anything else: goes on behind itself, as traps may (a warning of the kernel is one).
    Goes,
}
