//! A guest in userspace: memfd RAM, a window, vhost-user frontend, driver half of the rings, request builders.
//!
//! [`Guest::connect`] does what a VMM and a guest's driver do together until a device runs. It knows nothing of how the device
//! process is made, so that it drives any backend by its socket, and it checks what comes back.

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
