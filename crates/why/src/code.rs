//! Machine code of the kernel: where a function makes an errno, and which jumps lead there.
//!
//! A compiler makes of `return -EINVAL` an instruction that loads -22, and often of several such statements one. The
//! jumps to it, each behind a test of its own, then tell them apart. Where it loads the errno before it tests anything,
//! what is done with it after does.

mod arm64;
mod compared;
mod effect;
mod fate;
mod flow;
mod kcore;
mod x86_64;

pub use arm64::Arm64;
pub use compared::{Compared, How, Operand};
pub use effect::{Condition, Effect, Place};
pub use fate::Fate;
pub use flow::{Block, Code, Piece, Site, Way};
pub use kcore::{Error, Memory};
pub use x86_64::X86_64;

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

/// The decoder for the code of the kernel that runs here.
///
/// # Errors
/// There is none for this kind of processor.
pub fn native() -> Result<&'static dyn Decoder, Error> {
    match std::env::consts::ARCH {
        "x86_64" => Ok(&X86_64),
        "aarch64" => Ok(&Arm64),
        _ => Err(Error::Processor),
    }
}
