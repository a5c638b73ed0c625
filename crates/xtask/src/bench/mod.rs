//! `cargo xtask bench`: measurements that are not part of the tests.

mod dax;
mod fs;
mod picture;
mod targets;

use std::process::Command;

use anyhow::Result;
use clap::ValueEnum;

use crate::test::succeed;

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Bench {
    /// Innkeeper beside virtiofsd and the host over the ring, held against its targets; draws docs/bench.svg
    Fs,
    /// Nanoseconds a chain: our split and packed rings, and rust-vmm's on the same work
    Ring,
    /// Mappings a second, and a file read through a DAX window and through a local mmap, without a guest
    Window,
    /// Page cache of a guest and of the host while the guest reads a file, without and with DAX; draws docs/dax.svg
    Dax,
    /// Milliseconds that muting takes in 100,000 messages: mute-thread, and notmuch's own query
    Mute,
}

pub(crate) fn run(bench: Bench) -> Result<()> {
    match bench {
        Bench::Fs => fs::run(),
        Bench::Ring => cargo_bench("virtqueue", "ring"),
        Bench::Window => cargo_bench("devices", "window"),
        Bench::Dax => dax::run(),
        Bench::Mute => cargo_bench("mute-thread", "apply"),
    }
}

fn cargo_bench(package: &str, bench: &str) -> Result<()> {
    let mut command = Command::new("cargo");
    command.args(["bench", "--locked", "--package", package, "--bench", bench]);
    succeed(command)
}
