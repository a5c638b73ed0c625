//! Confines a daemon to what its device needs once it serves.
//!
//! A device states that in one place, a [`Declaration`]. The process then goes through these steps:
//!
//! 1. It opens what lies outside of the shared directory (socket, log, `/dev/fuse`), while it has one thread.
//! 2. [`sandbox::enter`] makes the shared directory its root, or lets it open files there alone.
//! 3. It makes the device from [`Entered::shared`] and [`Entered::proc_self_fd`], with all its capabilities. A thread that needs other
//!    capabilities or system calls than the control plane ([`Role::Views`]) starts here, and does for itself what step 4 says.
//! 4. [`capabilities::keep`] leaves what is declared for the control plane, as far as [`Entered::capabilities`] has it, and
//!    [`Filters::narrow`] ends with SIGSYS whoever makes another system call.
//! 5. Every thread that starts inherits this, and calls [`Filters::narrow`] with its own role.
//!
//! # What stays within reach
//!
//! No path of the host leads anywhere after step 2, `/proc` included:
//!
//! - Descriptors are opened anew by their number below [`Entered::proc_self_fd`], which can be a thread's working directory too.
//! - `/proc/self/fd/N`, `/proc/net/unix`, `/proc/sys/fs/nr_open`, `/proc/self/mountinfo`, `/etc/group` and `/dev/fuse` are for step 1.
//! - A backtrace (`RUST_BACKTRACE`) opens the program's own file. Under a filter that ends the process, that is its end.
//!
//! Steps 2 to 5 take away more and more, and none gives back. What each sandbox stops by itself is what this crate's tests list
//! (`tests/it/modes.rs`).

mod allocator;
mod argument;
mod base;
pub mod capabilities;
mod chroot;
mod declaration;
mod error;
mod ids;
mod landlock;
mod namespace;
mod permit;
mod place;
mod refusal;
pub mod sandbox;
mod seccomp;
pub mod system_calls;

pub use argument::Argument;
pub use base::answered;
pub use declaration::{Access, Allowed, Calls, Capabilities, Declaration, Ioctl, Role, Shared};
pub use error::Error;
pub use ids::{IdRange, Ids, Maps};
pub use permit::{Occasion, Permit};
pub use refusal::Refusal;
pub use sandbox::{Entered, Kind, Sandbox};
pub use seccomp::{Action, Filters};
pub use system_calls::SystemCall;
