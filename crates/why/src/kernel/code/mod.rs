//! Machine code of the kernel: where a function makes an errno, and which jumps lead there.
//!
//! A compiler turns `return -EINVAL` into an instruction that loads -22, and often several such statements into one.
//! The jumps to it, each behind its own test, then distinguish them. If the compiler loads the errno before any test,
//! the code after the load distinguishes them.

mod arm64;
mod compared;
mod effect;
mod fate;
mod flow;
mod instruction;
mod kcore;
mod loads;
mod x86_64;

pub use arm64::Arm64;
pub use compared::{Compared, How, Operand};
pub use effect::{Condition, Effect, Place};
pub use fate::Fate;
pub use flow::{Block, Code, Piece, Way};
pub use instruction::{Decoder, Does, Instruction};
pub use kcore::{Error, Memory};
pub use loads::Site;
pub use x86_64::X86_64;

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
