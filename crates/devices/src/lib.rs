//! The VIRTIO devices, one module each.
#![forbid(unsafe_code)]

pub mod blk;
mod deferral;
pub mod fs;
pub mod net;
pub mod rng;
pub mod vsock;
