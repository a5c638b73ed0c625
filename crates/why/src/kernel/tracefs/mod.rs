//! The kernel's function tracer, through tracefs: its abilities here, one session of it, and the restored state
//! afterwards.
//!
//! Every change is reported to a [`guardian`] before it is made, so that tracefs is restored even after `kill -9`.

mod ability;
mod capture;
mod error;
mod files;
pub mod guardian;
mod journal;
mod probes;
mod session;

pub use ability::Ability;
pub use capture::{Capture, Page};
pub use error::Error;
pub use files::Tracefs;
pub use probes::Probed;
pub(crate) use probes::{GOT, NUMBERED, SENT};
pub use session::{Method, Seen, Session, Sites, understand};

/// What the system's tracer can do.
///
/// # Errors
/// It cannot be used here.
pub fn ability() -> Result<Ability, Error> {
    Ability::of(&Tracefs::find()?)
}

/// How many runs left tracefs changed: they were killed together with their guardians, or could not put it back.
#[must_use]
pub fn left_behind() -> usize {
    journal::sessions_left_behind()
}
