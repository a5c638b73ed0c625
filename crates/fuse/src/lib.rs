//! A FUSE server and a passthrough file system; knows memory, not rings.
//!
//! A request enters at [`server::Server::dispatch`], is parsed once by `request`, and is answered by a
//! [`fs::FileSystem`]. `reply` writes the result into the guest's memory.

mod arguments;
pub mod cause;
mod check;
mod dax;
pub mod deferred;
pub mod descriptors;
pub mod escape;
pub mod failure;
pub mod fs;
mod limits;
mod operation;
pub mod passthrough;
mod reply;
mod request;
pub mod server;
mod sys;
pub mod wire;
