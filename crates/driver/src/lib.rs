//! A guest in userspace: memfd RAM, a window, vhost-user frontend, driver half of the rings, request builders.
//!
//! [`Guest::connect`] does the work of a VMM and a guest's driver until a device runs. It does not know how the
//! device process is implemented, so that it drives any backend by its socket. It checks all answers.

mod error;
pub mod fs;
mod guest;
mod queue;
mod ram;
mod slot;
mod window;

pub use error::Error;
pub use guest::{Guest, Options};
pub use queue::{Answer, Queue, Ticket};
pub use slot::{Shape, Slot};
pub use window::{AddressRange, Answers, RangeError, Window};
