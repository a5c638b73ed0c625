//! Which instruction of the function that made an errno loaded it, and which test led there.
//!
//! What a first run of a command named is looked up in the kernel's code; probes on what was found there then see a
//! second run.

mod coverage;
mod exact;
mod hits;
mod suspect;

pub use coverage::{Coverage, coverage};
pub use exact::{Exact, Jump, Load, Test, exact};
pub use suspect::Suspect;
