//! A FUSE server and a passthrough file system; knows memory, not rings.

pub mod fs;
pub mod wire;
