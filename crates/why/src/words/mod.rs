//! Names and explanations in words: of errnos and system calls, of what the manual says, and of what to do.
//!
//! Tables and manual pages only; nothing here looks at a process or at the kernel.

mod errnos;
mod fuse_operations;
pub mod hints;
pub mod manual;
pub mod meaning;
mod syscalls;

pub use errnos::errno_name;
pub use fuse_operations::fuse_operation_name;
pub use syscalls::syscall_name;
