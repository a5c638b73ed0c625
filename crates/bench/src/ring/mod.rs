//! Daemons driven directly over the ring, without a kernel in between.

pub(crate) mod drive;
mod message;
pub(crate) mod session;
mod steps;
pub(crate) mod workload;
