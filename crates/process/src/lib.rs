//! The process of a command of innkeeper: its use of the system, its messages to the user, its end.
//!
//! It knows no device and no guest, so that the benchmark and the daemon can share it.

pub mod arguments;
pub mod child;
pub mod ending;
mod error;
pub mod interrupt;
pub mod limits;
pub mod remover;
pub mod say;
pub mod signals;
pub mod socket;

pub use error::{Error, whole};
