//! The instruction that loaded an errno in the function that made it, and the test that led there.
//!
//! The function that a first run of a command named is looked up in the kernel's code. Probes on the instructions
//! found there then observe a second run.

mod coverage;
mod exact;
mod hits;
mod suspect;

pub use coverage::{Coverage, coverage};
pub use exact::{Exact, Jump, Load, Test, exact};
pub use suspect::Suspect;
