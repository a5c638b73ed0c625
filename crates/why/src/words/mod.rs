//! Names and explanations: of errnos and system calls, from the manual, and of remedies.
//!
//! Tables and manual pages only; nothing here reads a process or the kernel.

mod errnos;
mod fuse_operations;
pub mod hints;
pub mod manual;
pub mod meaning;
mod syscalls;

pub use errnos::errno_name;
pub use fuse_operations::fuse_operation_name;
pub use syscalls::syscall_name;
