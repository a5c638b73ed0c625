//! The VIRTIO devices, one module each.
#![forbid(unsafe_code)]

pub mod blk;
mod deferred;
pub mod fs;
pub mod net;
mod helpers;
pub mod rng;
