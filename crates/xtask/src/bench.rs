//! `cargo xtask bench`: measurements, which the tests do not make.

use std::process::Command;

use anyhow::Result;
use clap::ValueEnum;

use crate::test::succeed;

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Bench {
    /// Nanoseconds a chain: our split and packed rings, and rust-vmm's on the same work
    Ring,
    /// Milliseconds that muting takes in 100,000 messages: mute-thread, and notmuch's own query
    Mute,
}

pub(crate) fn run(bench: Bench) -> Result<()> {
    let mut command = Command::new("cargo");
    match bench {
        Bench::Ring => command.args(["bench", "--locked", "--package", "virtqueue", "--bench", "ring"]),
        Bench::Mute => command.args(["bench", "--locked", "--package", "mute-thread", "--bench", "apply"]),
    };
    succeed(command)
}
