//! Runs a device over vhost-user: negotiation, memory table, lanes.
//!
//! [`serve`] does all of it: it accepts one front end after another on a listening socket and runs a [`Device`] for
//! each. A front end that breaks the protocol loses a message or the connection. A driver that breaks the rules of
//! its rings loses a queue. No input of either ends the process.
#![forbid(unsafe_code)]

mod connection;
mod counters;
mod device;
mod event;
mod files;
mod inflight;
mod lane;
mod moderation;
mod options;
mod polling;
mod queues;
mod saved;
mod server;
mod session;
mod status;
mod timer;
mod vring;
mod wait;
mod waker;
mod window;

pub use counters::Counts;
pub use device::{ConfigChanges, ConfigRefused, Device, Lane, Lanes, Setup};
pub use files::{Files, Interest};
pub use options::{Options, ThreadStart};
pub use polling::Polling;
pub use queues::Queues;
pub use saved::{NotSaved, Saved};
pub use server::serve;
pub use session::{Ended, ResumeError, Session};
pub use status::{QueueStatus, Status, Watch};
pub use timer::Timer;
pub use wait::Error;
pub use waker::Waker;
