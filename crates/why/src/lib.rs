//! Explains why a system call failed.
//!
//! [`ptrace`] sees which calls of a command failed and needs no privilege. [`ring_buffer`] reads what the kernel's own
//! tracer wrote, whatever its version. [`btf`] knows what functions return, and [`call_tree`] finds the one that failed.

pub mod btf;
pub mod call_tree;
mod names;
pub mod ptrace;
pub mod ring_buffer;

pub use names::{errno_name, syscall_name};
