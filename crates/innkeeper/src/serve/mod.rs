//! Devices served over vhost-user: each on its own socket by a subcommand, or to the one machine of `boot`.
//!
//! A device is one file or folder here, with its options, its construction, its QEMU options, and the rights that it
//! needs on the host.

pub(crate) mod args;
mod blk;
mod common_calls;
pub(crate) mod connected;
pub(crate) mod daemon;
pub(crate) mod device;
pub(crate) mod error;
pub(crate) mod exercise;
pub(crate) mod fs;
#[macro_use]
mod list;
mod net;
pub(crate) mod qemu;
mod remover;
mod rng;
mod sockets;
mod threads;
mod vsock;

devices! {
    blk: Blk,
    fs: Share,
    net: Net,
    rng: Rng,
    vsock: Vsock,
}

#[cfg(test)]
mod tests;
