//! Daemons driven straight over the ring, with no kernel in the way.

pub(crate) mod drive;
mod message;
pub(crate) mod session;
mod steps;
pub(crate) mod workload;
