//! Information about the running kernel: its tracer, its types and symbols, its machine code, and its debug
//! information.

pub mod btf;
pub mod code;
pub(crate) mod hex;
pub mod ring_buffer;
pub mod source;
pub mod symbols;
pub mod tracefs;
