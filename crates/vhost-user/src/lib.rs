//! The vhost-user protocol: messages, backend session, frontend session.
//!
//! [`backend::Session`] is the device's end, [`frontend::Frontend`] the VMM's. Both use [`socket::Socket`], which
//! carries whole messages with their file descriptors. Nothing here knows guest memory or rings: addresses and
//! descriptors are passed on unchanged.
//!
//! The other end may be hostile: its input becomes a typed value or an error, never a panic.

#![forbid(unsafe_code)]

pub mod backend;
pub mod channel;
mod error;
pub mod frontend;
pub mod message;
mod request;
pub mod socket;

pub use error::{Error, Malformed};
pub use message::{BackendRequestCode, ProtocolFeatures, RequestCode};
pub use request::Request;
