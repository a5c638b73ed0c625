//! virtio-blk: `innkeeper blk`, and `--disk` of `boot`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, ValueEnum};
use confinement::{Action, Argument, Calls, Declaration, Role, system_calls as call};
use devices::blk::{BlkDevice, BlkOptions, Engine, ImageOptions, QUEUES_MAX, SERIAL_MAX};
use process::arguments::{ACCESS, BASIC, PERFORMANCE};
use process::whole;
use rustix::thread::CapabilitySet;

use super::args::{Ring, Rings, Serving};
use super::common_calls::{waiting_for_files, with_common};
use super::device::{self, Attachment, Inside, Made, Opened, Service};
use super::error::Error;
use super::qemu::QemuDevice;
use super::threads::Threads;

/// Give a virtual machine a disk over a vhost-user socket
///
/// Prints the QEMU options, then serves one virtual machine after another until it receives SIGINT, SIGTERM or SIGHUP. The image
/// is locked meanwhile, as QEMU does it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                    innkeeper blk disk.img --socket-path /run/disk.sock\n  \
                    innkeeper blk /dev/vg/disk --socket-path /run/disk.sock --direct --num-queues 4 --serial data\n\n\
                  Exit status: 0 after SIGINT, SIGTERM or SIGHUP; 2 for a wrong command line; 1 for any other failure.")]
pub(crate) struct Blk {
    /// Raw image file or block device
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    #[command(flatten)]
    serving: Serving,
    /// Serial number that the guest sees, at most 20 bytes
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = parse_serial, hide_default_value = true, help_heading = BASIC)]
    serial: String,
    /// Refuse writes of the guest; several programs may serve the image then
    #[arg(long, help_heading = ACCESS)]
    readonly: bool,
    /// What becomes of space that the guest discards
    #[arg(long, value_name = "MODE", value_enum, default_value_t = Discard::Unmap, help_heading = ACCESS)]
    discard: Discard,
    /// Number of queues; a guest uses at most one per processor
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=i64::from(QUEUES_MAX)),
        help_heading = PERFORMANCE,
    )]
    num_queues: u16,
    /// Bypass the host's page cache (O_DIRECT)
    #[arg(long, help_heading = PERFORMANCE)]
    direct: bool,
    /// How the image is read and written
    #[arg(long, value_name = "MODE", value_enum, default_value_t = Aio::Auto, help_heading = PERFORMANCE)]
    aio: Aio,
}

/// See [`Blk::discard`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Discard {
    /// The host gets it back
    Unmap,
    /// Nothing: the guest cannot discard
    Ignore,
}

/// See [`Blk::aio`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Aio {
    /// By io_uring if the kernel offers it, by threads otherwise
    Auto,
    /// By threads
    Threads,
}

/// What `boot` takes of it.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Attach {
    /// Give the guest a disk: a raw image or a block device; the first one is /dev/vda
    #[arg(long = "disk", value_name = "IMAGE[,readonly]", help_heading = BASIC)]
    disks: Vec<Disk>,
}

/// A disk of `boot`, written `IMAGE[,readonly]`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Disk {
    image: PathBuf,
    readonly: bool,
}

impl FromStr for Disk {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (image, readonly) = match text.strip_suffix(",readonly") {
            Some(image) => (image, true),
            None => (text, false),
        };
        if image.is_empty() {
            return Err("write it as IMAGE or IMAGE,readonly".into());
        }
        Ok(Self {
            image: image.into(),
            readonly,
        })
    }
}

fn parse_serial(text: &str) -> Result<String, String> {
    if text.len() > SERIAL_MAX {
        return Err(format!("give at most {SERIAL_MAX} bytes"));
    }
    Ok(text.into())
}

impl Service for Blk {
    fn serving(&self) -> &Serving {
        &self.serving
    }

    fn declaration(&self) -> Result<Declaration, Error> {
        Ok(declaration())
    }

    fn open(&self) -> Result<Box<dyn Opened + '_>, Error> {
        let device = make(BlkOptions {
            image: ImageOptions {
                path: self.image.clone(),
                read_only: self.readonly,
                direct: self.direct,
            },
            queues: self.num_queues,
            serial: self.serial.clone(),
            discard: self.discard == Discard::Unmap,
            engine: match self.aio {
                Aio::Auto => Engine::Auto,
                Aio::Threads => Engine::Threads,
            },
        })?;
        Ok(Box::new(device))
    }

    fn qemu(&self) -> QemuDevice {
        qemu(self.num_queues, self.serving.rings.ring == Ring::Packed)
    }

    fn announcement(&self, qemu: &str, _open_files: u64) -> String {
        let access = if self.readonly { " for reading" } else { "" };
        format!(
            "Serving the disk {}{access}. Start the virtual machine with\n\n  {qemu}\n",
            self.image.display()
        )
    }
}

impl device::Attach for Attach {
    fn drivers(&self) -> &'static [&'static str] {
        if self.disks.is_empty() { &[] } else { &["virtio_blk"] }
    }

    fn attach(&self, _root: &Path, rings: Rings, seccomp: Action) -> Result<Vec<Attachment>, Error> {
        let attach = |disk: &Disk| {
            let device = make(BlkOptions {
                image: ImageOptions {
                    path: disk.image.clone(),
                    read_only: disk.readonly,
                    direct: false,
                },
                queues: 1,
                serial: String::new(),
                discard: true,
                engine: Engine::Auto,
            })?;
            let threads = Threads::new(declaration(), seccomp, CapabilitySet::all())?;
            Ok(Attachment {
                made: made(device, &threads),
                qemu: qemu(1, rings.offers_packed()),
                threads,
            })
        };
        self.disks.iter().map(attach).collect()
    }
}

/// Why there is no disk.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NoDisk(String);

fn make(options: BlkOptions) -> Result<BlkDevice, Error> {
    BlkDevice::new(options).map_err(|error| Error::Device(Box::new(NoDisk(whole(&error)))))
}

fn made(device: BlkDevice, threads: &Threads) -> Made {
    Made {
        devices: vec![Box::new(device.at_helper_start(threads.narrowed(Role::Helper)))],
        at_end: None,
    }
}

/// The image is open and the rings are made before the daemon is confined.
impl Opened for BlkDevice {
    fn make(self: Box<Self>, _inside: Inside, threads: &Threads) -> Result<Made, Error> {
        Ok(made(*self, threads))
    }
}

const SEAL: &[&[Argument]] = &[&[Argument::is(1, libc::F_ADD_SEALS as u32)]];

/// What it needs once it serves.
fn declaration() -> Declaration {
    with_common(Declaration {
        device: "blk",
        shared: None,
        network: false,
        capabilities: Vec::new(),
        calls: vec![
            waiting_for_files(
                &[Role::ControlPlane, Role::Lane],
                "wait for kicks, and for what the image has done",
            ),
            Calls {
                roles: &[Role::Lane],
                why: "have the kernel read and write, through a ring that can do nothing else",
                permits: const { &[call::IO_URING_ENTER.any()] },
            },
            Calls {
                roles: &[Role::Lane, Role::Helper],
                why: "read, write and flush the image, and give up its space",
                permits: const {
                    &[
                        call::PREADV2.any(),
                        call::PWRITEV2.any(),
                        call::PREAD64.any(),
                        call::FALLOCATE.any(),
                        call::FDATASYNC.any(),
                    ]
                },
            },
            Calls {
                roles: &[Role::ControlPlane],
                why: "make the record of requests in flight, by which another daemon goes on after this one",
                permits: const { &[call::MEMFD_CREATE.any(), call::FTRUNCATE.any(), call::FCNTL.when(SEAL)] },
            },
            Calls {
                roles: &[Role::ControlPlane],
                why: "make earlier writes durable when the guest turns the write cache off",
                permits: const { &[call::FDATASYNC.any()] },
            },
        ],
        ioctls: Vec::new(),
    })
}

fn qemu(queues: u16, packed: bool) -> QemuDevice {
    let packed = if packed { ",packed=on" } else { "" };
    QemuDevice {
        id: "blk",
        name: "vhost-user-blk-pci",
        options: format!(",num-queues={queues}{packed}"),
        netdev: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_of_boot_may_be_read_only() {
        let disk = |image: &str, readonly| {
            Ok(Disk {
                image: image.into(),
                readonly,
            })
        };
        assert_eq!("a.img".parse(), disk("a.img", false));
        assert_eq!("a.img,readonly".parse(), disk("a.img", true));
        assert_eq!("a,b.img".parse(), disk("a,b.img", false));
        assert!(",readonly".parse::<Disk>().is_err());
    }
}
