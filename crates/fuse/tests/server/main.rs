//! The server from outside: request bytes in, calls of a file system and reply bytes out.

mod failures;
mod guest;
mod hostile;
mod operations;
mod recorder;
mod session;
