//! A FUSE server and a passthrough file system; knows memory, not rings.
//!
//! A request enters at [`server::Server::dispatch`], is parsed once by `request`, answered by a [`fs::FileSystem`], and
//! `reply` writes what came out into the guest's memory.

pub mod fs;
mod operation;
mod reply;
mod request;
pub mod server;
pub mod wire;
