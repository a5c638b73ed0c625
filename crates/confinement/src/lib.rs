//! Confines a daemon to what its device needs once it serves.

mod argument;
mod base;
pub mod capabilities;
mod chroot;
mod declaration;
mod error;
mod landlock;
mod namespace;
pub mod sandbox;
mod seccomp;
pub mod system_calls;

pub use argument::Argument;
pub use declaration::{Access, Calls, Capabilities, Declaration, Ioctl, Permit, Role, Shared};
pub use error::Error;
pub use sandbox::{Entered, Kind, Refusal, Sandbox};
pub use seccomp::{Action, Filters};
pub use system_calls::SystemCall;
