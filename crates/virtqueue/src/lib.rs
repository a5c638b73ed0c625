//! Split and packed virtqueues of VIRTIO 1.1, device half and driver half.
//!
//! A device takes chains off a started [`Queue`] and never sees which format it is:
//!
//! ```
//! # use virtqueue::{Queue, Violation};
//! fn answer(queue: &mut Queue) -> Result<bool, Violation> {
//!     let served = queue.serve(64, |mut chain| {
//!         let question = chain.reader.remaining();
//!         let answer = chain.writer.write_all(&question.to_le_bytes());
//!         let written = if answer.is_ok() { 8 } else { 0 };
//!         chain.done(written)
//!     })?;
//!     Ok(served.interrupt)
//! }
//! ```
//!
//! The two formats meet behind one private trait with one `match` a batch. Everything a driver can do wrong is a
//! [`Violation`]; every walk over its memory has a bound, and every word of it is read once.
#![forbid(unsafe_code)]

mod chain;
mod config;
mod driver;
pub mod features;
mod inflight;
#[cfg(test)]
mod interleavings;
mod layout;
mod order;
mod packed;
mod queue;
mod ring;
mod split;
mod violation;
mod words;

pub use chain::{Chain, Outcome, Pending};
pub use config::{ConfigError, QueueConfig};
pub use driver::{Buffer, DriverQueue, Fault, PostError, Table, Token};
pub use inflight::{InflightError, InflightRecord};
pub use queue::{Early, InFlight, Queue, Served, Work};
pub use violation::Violation;
