//! The VIRTIO devices, one module each.
#![forbid(unsafe_code)]

pub mod fs;
pub mod net;
pub mod rng;
