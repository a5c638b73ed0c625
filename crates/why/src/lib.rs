//! Explains why a system call failed.
//!
//! The folders, from the bottom up; ARCHITECTURE.md says which may import which:
//!
//! - `words`: names of errnos and calls, [`manual`] pages, the [`meaning`] of errnos, [`hints`] on what to do;
//! - `kernel`: what the kernel shows of itself, by [`tracefs`] and its [`ring_buffer`], [`btf`], [`symbols`], [`code`] and
//!   [`source`];
//! - `observe`: a command's failed calls by [`ptrace`], the [`context`] they were measured against, and the [`kernel_log`];
//! - [`trace`]: system calls with the functions that they ran through;
//! - `explain`: the [`origin`] of an errno, by [`alignment`] where returns are not known and with an eye on what is
//!   [`untraced`]; the [`instruction`] that loaded it; the [`request`] that a FUSE server refused and that server's
//!   [`host_log`];
//! - [`recording`]: all that was seen of one command, to explain it now or later;
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
