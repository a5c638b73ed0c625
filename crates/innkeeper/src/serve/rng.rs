//! virtio-rng: `innkeeper rng`, and `--rng` of `boot`.

mod exercise;

use std::path::{Path, PathBuf};

use clap::Args;
use confinement::{Action, Calls, Declaration, Role, system_calls as call};
use devices::rng::{RngDevice, RngOptions};
use process::arguments::{BASIC, bytes};
use process::whole;
use rustix::thread::CapabilitySet;

use super::args::{Ring, Rings, Serving};
use super::common_calls::{waiting_for_files, with_common};
use super::device::{self, Attachment, Inside, Made, Opened, Service};
use super::error::Error;
use super::exercise::Exercise;
use super::qemu::QemuDevice;
use super::threads::Threads;

/// Give virtual machines entropy over a vhost-user socket
///
/// Prints the QEMU options, then serves one virtual machine after another until it receives SIGINT, SIGTERM or SIGHUP. Linux
/// guests feed their random number generator from it and have it as /dev/hwrng.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                    innkeeper rng --socket-path /run/rng.sock\n  \
                    innkeeper rng --socket-path /run/rng.sock --source /dev/hwrng --rate 1K\n\n\
                  Exit status: 0 after SIGINT, SIGTERM or SIGHUP; 2 for a wrong command line; 1 for any other failure.")]
pub(crate) struct Rng {
    #[command(flatten)]
    serving: Serving,
    /// Read entropy from this file, device or FIFO
    ///
    /// If it has nothing to give, guests wait. No byte is given twice.
    #[arg(long, value_name = "FILE", default_value = devices::rng::DEFAULT_SOURCE, help_heading = BASIC)]
    source: PathBuf,
    /// Give at most this many bytes per second, in bytes or with suffix K or M [default: no limit]
    #[arg(long, value_name = "BYTES", value_parser = parse_rate, help_heading = BASIC)]
    rate: Option<u64>,
}

/// What `boot` takes of it.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Attach {
    /// Give the guest entropy of the host (/dev/hwrng)
    #[arg(long, help_heading = BASIC)]
    rng: bool,
}

fn parse_rate(text: &str) -> Result<u64, String> {
    bytes(text)
        .filter(|&rate| rate > 0)
        .ok_or_else(|| "give bytes per second from 1 up, such as 512 or 1K".into())
}

impl Service for Rng {
    fn serving(&self) -> &Serving {
        &self.serving
    }

    fn declaration(&self) -> Result<Declaration, Error> {
        Ok(declaration())
    }

    fn open(&self) -> Result<Box<dyn Opened + '_>, Error> {
        Ok(Box::new(make(RngOptions {
            source: self.source.clone(),
            rate: self.rate,
        })?))
    }

    fn exercise(&self) -> Option<Exercise> {
        Some(exercise::exercise())
    }

    fn qemu(&self) -> QemuDevice {
        qemu(self.serving.rings.ring == Ring::Packed)
    }

    fn announcement(&self, qemu: &str, _open_files: u64) -> String {
        format!(
            "Providing entropy from {}. Start the virtual machine with\n\n  {qemu}\n",
            self.source.display()
        )
    }
}

impl device::Attach for Attach {
    fn drivers(&self) -> &'static [&'static str] {
        if self.rng { &["virtio_rng"] } else { &[] }
    }

    fn attach(&self, _root: &Path, rings: Rings, seccomp: Action) -> Result<Vec<Attachment>, Error> {
        if !self.rng {
            return Ok(Vec::new());
        }
        Ok(vec![Attachment {
            made: make(RngOptions::default())?,
            qemu: qemu(rings.offers_packed()),
            threads: Threads::new(declaration(), seccomp, CapabilitySet::all())?,
        }])
    }
}

/// Why there is no entropy.
#[derive(Debug, thiserror::Error)]
#[error("{0}; name another file with --source")]
struct NoSource(String);

fn make(options: RngOptions) -> Result<Made, Error> {
    let device = RngDevice::new(options).map_err(|error| Error::Device(Box::new(NoSource(whole(&error)))))?;
    Ok(Made {
        devices: vec![Box::new(device)],
        at_end: None,
    })
}

/// The device is made before the daemon is confined: all that it needs is its source, which is open then.
impl Opened for Made {
    fn make(self: Box<Self>, _inside: Inside, _threads: &Threads) -> Result<Made, Error> {
        Ok(*self)
    }
}

/// What it needs once it serves.
fn declaration() -> Declaration {
    with_common(Declaration {
        device: "rng",
        shared: None,
        network: false,
        capabilities: Vec::new(),
        calls: vec![
            waiting_for_files(&[Role::Lane], "wait for the source or for the rate"),
            Calls {
                roles: &[Role::Lane],
                why: "read the source, and set the time of the rate",
                permits: const {
                    &[
                        call::READ.any(),
                        call::TIMERFD_CREATE.any(),
                        call::TIMERFD_SETTIME.any(),
                    ]
                },
            },
        ],
        ioctls: Vec::new(),
    })
}

fn qemu(packed: bool) -> QemuDevice {
    QemuDevice {
        id: "rng",
        name: "vhost-user-rng-pci",
        options: if packed { ",packed=on".into() } else { String::new() },
        netdev: None,
    }
}
