//! virtio-net: `innkeeper net`, and `--net` of `boot`.

mod mac;
mod passt;

use std::path::{Path, PathBuf};

use clap::Args;
use confinement::{Action, Calls, Declaration, Ioctl, Occasion, Role, system_calls as call};
use devices::net::{Mac, NetDevice, NetOptions, PAIRS_MOST, Port, StreamPort, open_tap, text};
use process::arguments::{BASIC, PERFORMANCE};
use process::whole;
use rustix::thread::CapabilitySet;

use super::args::{Ring, Rings, Serving};
use super::common_calls::{OTHER_LIBRARY, with_common};
use super::device::{self, Attachment, Made, Opened, Service};
use super::error::Error;
use super::qemu::QemuDevice;
use super::threads::Threads;

/// Give virtual machines a network over a vhost-user socket
///
/// Prints the QEMU options, then serves one virtual machine after another until it receives SIGINT, SIGTERM or SIGHUP.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                    innkeeper net --socket-path /run/net.sock --passt\n  \
                    innkeeper net --socket-path /run/net.sock --tap tap0 --queue-pairs 2\n\n\
                  Exit status: 0 after SIGINT, SIGTERM or SIGHUP; 2 for a wrong command line; 1 for any other failure.")]
pub(crate) struct Net {
    #[command(flatten)]
    serving: Serving,
    #[command(flatten)]
    network: Network,
    /// MAC address of the guest [default: one derived from this machine and the socket's path]
    #[arg(long, value_name = "MAC", value_parser = mac::parse, help_heading = BASIC)]
    mac: Option<Mac>,
    /// MTU that the guest is given, 68 to 65535 [default: the guest chooses]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(68..), help_heading = BASIC)]
    mtu: Option<u16>,
    /// Pairs of queues, each with a thread; more than 1 takes a tap interface that was made with multi_queue
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(PAIRS_MOST)),
          help_heading = PERFORMANCE)]
    queue_pairs: u16,
    /// Stand by for another network device with the same MAC address
    #[arg(long, help_heading = BASIC)]
    standby: bool,
}

/// Where frames go.
#[derive(Clone, Debug, Args)]
#[group(required = false, multiple = false)]
struct Network {
    /// Use this tap interface, which is made if there is none and it is permitted
    #[arg(long, value_name = "NAME", help_heading = BASIC)]
    tap: Option<String>,
    /// Use the host's network as an ordinary user, through passt that is started for it; this is the default
    #[arg(long, help_heading = BASIC)]
    passt: bool,
    /// Use a passt that listens on this socket
    #[arg(long, value_name = "SOCKET", help_heading = BASIC)]
    passt_socket: Option<PathBuf>,
}

/// What `boot` takes of it.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Attach {
    /// Give the guest a network: `user` starts passt, `tap:NAME` uses a tap interface (does not start with QEMU yet)
    #[arg(long, value_name = "NETWORK", value_parser = parse_network, help_heading = BASIC)]
    net: Option<Network>,
}

fn parse_network(text: &str) -> Result<Network, String> {
    let network = |tap| Network {
        tap,
        passt: false,
        passt_socket: None,
    };
    match text.split_once(':') {
        None if text == "user" => Ok(network(None)),
        Some(("tap", name)) => Ok(network(Some(name.into()))),
        _ => Err("give user, or tap: with the name of a tap interface, such as tap:tap0".into()),
    }
}

impl Service for Net {
    fn serving(&self) -> &Serving {
        &self.serving
    }

    fn check(&self) -> Result<(), Error> {
        if self.queue_pairs > 1 && self.network.tap.is_none() {
            return Err(refused(
                "passt has 1 pair of queues: leave --queue-pairs out, or use --tap",
            ));
        }
        Ok(())
    }

    fn declaration(&self) -> Result<Declaration, Error> {
        Ok(self.network.declaration())
    }

    fn open(&self) -> Result<Box<dyn Opened + '_>, Error> {
        Ok(Box::new(make(&self.network, self.queue_pairs, self.options())?))
    }

    fn qemu(&self) -> QemuDevice {
        let packed = self.serving.rings.ring == Ring::Packed;
        qemu(&self.options(), self.queue_pairs, packed)
    }

    fn announcement(&self, qemu: &str, _open_files: u64) -> String {
        format!(
            "Connecting {} to {}. Start the virtual machine with\n\n  {qemu}\n",
            text(&self.options().mac),
            self.network.words()
        )
    }
}

impl Net {
    fn options(&self) -> NetOptions {
        let path = self.serving.endpoint.socket_path.first().map(PathBuf::as_path);
        NetOptions {
            mac: self.mac.unwrap_or_else(|| mac::of(path.unwrap_or(Path::new("")))),
            mtu: self.mtu,
            standby: self.standby,
        }
    }
}

impl device::Attach for Attach {
    fn drivers(&self) -> &'static [&'static str] {
        if self.net.is_some() { &["virtio_net"] } else { &[] }
    }

    fn attach(&self, root: &Path, rings: Rings, seccomp: Action) -> Result<Vec<Attachment>, Error> {
        let Some(network) = &self.net else {
            return Ok(Vec::new());
        };
        let options = NetOptions {
            mac: mac::of(root),
            mtu: None,
            standby: false,
        };
        Ok(vec![Attachment {
            made: make(network, 1, options)?,
            qemu: qemu(&options, 1, rings.offers_packed()),
            threads: Threads::new(network.declaration(), seccomp, CapabilitySet::all())?,
        }])
    }
}

impl Network {
    fn ports(&self, pairs: u16) -> Result<Vec<Box<dyn Port>>, Error> {
        if let Some(name) = &self.tap {
            return open_tap(name, pairs).map_err(|error| refused(&whole(&error)));
        }
        let stream = match &self.passt_socket {
            Some(path) => passt::connect(path),
            None => passt::start(),
        };
        let stream = stream.map_err(|error| refused(&whole(&error)))?;
        Ok(vec![Box::new(StreamPort::new(stream))])
    }

    fn words(&self) -> String {
        match (&self.tap, &self.passt_socket) {
            (Some(name), _) => format!("the tap interface {name}"),
            (None, Some(path)) => format!("passt on {}", path.display()),
            (None, None) => "the host's network by passt".into(),
        }
    }

    /// What it needs once it serves.
    fn declaration(&self) -> Declaration {
        let (calls, ioctls) = if self.tap.is_some() {
            (TAP_CALLS, TAP_IOCTLS.to_vec())
        } else {
            (STREAM_CALLS, Vec::new())
        };
        with_common(Declaration {
            device: "net",
            shared: None,
            network: false,
            capabilities: Vec::new(),
            calls: vec![
                Calls {
                    roles: &[Role::ControlPlane],
                    why: "make what a lane waits with, and its timer for frames that wait for buffers",
                    permits: const {
                        &[
                            call::EPOLL_CREATE1.any(),
                            call::EPOLL_CTL.any(),
                            call::TIMERFD_CREATE.any(),
                        ]
                    },
                },
                Calls {
                    roles: &[Role::Lane],
                    why: "wait for frames and for buffers",
                    permits: const {
                        &[
                            call::READ.any(),
                            call::EPOLL_CTL.any(),
                            call::EPOLL_PWAIT.any(),
                            call::EPOLL_WAIT.any().rarely(OTHER_LIBRARY),
                            call::TIMERFD_SETTIME.any(),
                        ]
                    },
                },
                calls,
            ],
            ioctls,
        })
    }
}

const TAP_CALLS: Calls = Calls {
    roles: &[Role::Lane],
    why: "exchange frames with the tap interface",
    permits: const { &[call::READV.any(), call::WRITEV.any()] },
};

const STREAM_CALLS: Calls = Calls {
    roles: &[Role::Lane],
    why: "exchange frames with passt",
    permits: const { &[call::SENDTO.any(), call::RECVFROM.any()] },
};

const TAP_IOCTLS: &[Ioctl] = &[
    Ioctl {
        name: "TUNSETOFFLOAD",
        number: tap::SET_OFFLOAD,
        roles: &[Role::ControlPlane, Role::Lane],
        why: "leave to the guest what it can do",
        occasion: Occasion::Usual,
    },
    Ioctl {
        name: "TUNSETQUEUE",
        number: tap::SET_QUEUE,
        roles: &[Role::ControlPlane, Role::Lane],
        why: "use as many queues as the guest does",
        occasion: Occasion::Usual,
    },
];

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NoNetwork(String);

fn refused(reason: &str) -> Error {
    Error::Device(Box::new(NoNetwork(reason.into())))
}

fn make(network: &Network, pairs: u16, options: NetOptions) -> Result<Made, Error> {
    let device = NetDevice::new(network.ports(pairs)?, options).map_err(|error| refused(&whole(&error)))?;
    Ok(Made {
        devices: vec![Box::new(device)],
        at_end: None,
    })
}

/// QEMU has the configuration space of its own network devices, and is given what the guest finds there.
fn qemu(options: &NetOptions, pairs: u16, packed: bool) -> QemuDevice {
    let mut words = format!(",mac={}", text(&options.mac));
    if pairs > 1 {
        // One vector for each queue, one for the control queue and one for the configuration.
        words.push_str(&format!(",mq=on,vectors={}", 2 * pairs + 2));
    }
    if let Some(mtu) = options.mtu {
        words.push_str(&format!(",host_mtu={mtu}"));
    }
    if options.standby {
        words.push_str(",failover=on");
    }
    if packed {
        words.push_str(",packed=on");
    }
    QemuDevice {
        id: "net",
        name: "virtio-net-pci",
        options: words,
        netdev: Some(if pairs > 1 {
            format!(",queues={pairs}")
        } else {
            String::new()
        }),
    }
}
