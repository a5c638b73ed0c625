//! The contents of a trace: the system calls of each thread, each with the functions it ran through and the values
//! that probes read.

mod call_tree;
mod reader;
mod request;
mod syscall;

pub(crate) use call_tree::register_of;
pub use call_tree::{Call, Event, Tree, Value};
pub use reader::{Reader, Which};
pub use request::Request;
pub use syscall::{Got, Syscall};
