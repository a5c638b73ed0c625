//! Explains why a system call failed.
//!
//! [`ptrace`] sees which calls of a command failed and needs no privilege. [`ring_buffer`] reads what the kernel's own
//! tracer wrote, whatever its version. [`btf`] knows what functions return, and [`call_tree`] finds the one that failed.
//! [`tracefs`] runs the tracer, [`recording`] is all that it saw of one command, and [`origin`] names for each failed call
//! the function that made its errno, by [`alignment`] where returns are not known. [`code`] finds in that function's
//! machine code what may have loaded it, [`site`] what did, and [`source`] the line that this comes from. [`context`] is what a call was measured against, and
//! [`kernel_log`] what the kernel logged meanwhile. [`request`] names what a FUSE server was asked when it said no, and
//! [`host_log`] is what that server says of it. [`manual`] is what the installed manual pages
//! say about an errno, [`hints`] what a newcomer is told of the function, and [`meaning`] what an errno means where neither
//! knows. [`doctor`] says which of all this a system lets us have.

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
