//! What can be seen of a command from outside of the kernel: its calls by ptrace, what they were measured against, and what
//! the kernel logged meanwhile.

pub mod context;
pub(crate) mod failure;
pub mod kernel_log;
mod proc;
pub mod ptrace;
