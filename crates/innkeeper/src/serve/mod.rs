//! Devices served over vhost-user: on a socket of their own by a subcommand each, or to the one machine of `boot`.
//!
//! A device is one file or folder here, which has its options, how it is made, what QEMU calls it, and what it must be allowed on
//! the host.

pub(crate) mod args;
mod common_calls;
pub(crate) mod connected;
pub(crate) mod daemon;
pub(crate) mod device;
pub(crate) mod error;
pub(crate) mod fs;
#[macro_use]
mod list;
pub(crate) mod qemu;
mod rng;

devices! {
    fs: Share,
    rng: Rng,
}
