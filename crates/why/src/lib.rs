//! Explains why a system call failed.
//!
//! The folders, from the bottom up; ARCHITECTURE.md defines which may import which:
//!
//! - `words`: names of errnos and calls, [`manual`] pages, the [`meaning`] of errnos, [`hints`] for a remedy;
//! - `kernel`: information about the kernel, from [`tracefs`] and its [`ring_buffer`], [`btf`], [`symbols`], [`code`]
//!   and [`source`];
//! - `observe`: a command's failed calls by [`ptrace`], the [`context`] that applied to them, and the [`kernel_log`];
//! - [`trace`]: system calls with the functions that they ran through;
//! - `explain`: the [`origin`] of an errno, by [`alignment`] where return values are unknown, with regard to
//!   [`untraced`] functions; the [`instruction`] that loaded it; the [`request`] that a FUSE server refused and that
//!   server's [`host_log`];
//! - [`recording`]: all observations of one command, to explain it now or later;
//! - [`doctor`]: which of all this a system allows.

pub mod doctor;
mod explain;
mod kernel;
mod observe;
pub mod recording;
pub mod trace;
mod words;

pub use explain::{Cause, Certainty, Explanation, Loading};
pub use explain::{alignment, host_log, instruction, origin, request, untraced};
pub use kernel::{btf, code, ring_buffer, source, symbols, tracefs};
pub use observe::{context, kernel_log, ptrace};
pub use words::{errno_name, fuse_operation_name, hints, manual, meaning, syscall_name};
