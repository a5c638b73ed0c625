//! The process that a command of innkeeper runs in: what it asks of the system, how it talks to its user, how it ends.
//!
//! Knows no device and no guest, so that the benchmark and the daemon can share it.

pub mod arguments;
pub mod child;
pub mod ending;
mod error;
pub mod limits;
pub mod say;
pub mod signals;
pub mod socket;

pub use error::{Error, whole};
