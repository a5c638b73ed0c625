//! Observation of a command from outside the kernel: its calls by ptrace, the context that applied to them, and the
//! kernel's log of that time.

pub mod context;
pub(crate) mod failure;
pub mod kernel_log;
mod proc;
pub mod ptrace;
