//! Options of every served device: its socket, its rings, its process.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use backend::ThreadStart;
use clap::{Args, ValueEnum};
use confinement::{Action, Sandbox};
use process::arguments::{ACCESS, BASIC, PERFORMANCE, Process};

/// How a device is served on a socket of its own.
#[derive(Clone, Debug, Args)]
pub(crate) struct Serving {
    #[command(flatten)]
    pub(crate) endpoint: Endpoint,
    /// Let this group (a name or a number) connect to the socket too
    #[arg(long, value_name = "GROUP", requires = "socket_path", help_heading = ACCESS)]
    pub(crate) socket_group: Option<String>,
    #[command(flatten)]
    pub(crate) confinement: Confinement,
    #[command(flatten)]
    pub(crate) rings: Rings,
    #[command(flatten)]
    pub(crate) process: Process,
}

/// What the daemon may still do once it serves.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Confinement {
    /// Hide all of the host from the daemon but what it serves
    #[arg(long, value_name = "MODE", value_enum, default_value_t = SandboxMode::Auto, help_heading = ACCESS)]
    pub(crate) sandbox: SandboxMode,
    #[command(flatten)]
    pub(crate) system_calls: SystemCalls,
}

/// Which system calls threads may make that serve. In `boot` this holds for all devices.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct SystemCalls {
    /// What happens if the process makes a system call that its device does not need
    #[arg(long, value_name = "ACTION", value_enum, default_value_t = SeccompAction::Kill, help_heading = ACCESS)]
    pub(crate) seccomp: SeccompAction,
}

/// See [`Confinement::sandbox`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SandboxMode {
    /// The strongest that works here
    Auto,
    /// Namespaces of its own, with the served directory as root
    Namespace,
    /// The served directory as root, and Landlock (needs root)
    Chroot,
    /// Landlock: only files of the served directory may be opened
    Landlock,
    /// None
    None,
}

impl From<SandboxMode> for Sandbox {
    fn from(mode: SandboxMode) -> Self {
        match mode {
            SandboxMode::Auto => Self::Auto,
            SandboxMode::Namespace => Self::Namespace,
            SandboxMode::Chroot => Self::Chroot,
            SandboxMode::Landlock => Self::Landlock,
            SandboxMode::None => Self::None,
        }
    }
}

/// See [`SystemCalls::seccomp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SeccompAction {
    /// It ends
    Kill,
    /// The thread receives SIGSYS
    Trap,
    /// The kernel logs the call and does it
    Log,
    /// No call is refused
    None,
}

impl From<SeccompAction> for Action {
    fn from(action: SeccompAction) -> Self {
        match action {
            SeccompAction::Kill => Self::Kill,
            SeccompAction::Trap => Self::Trap,
            SeccompAction::Log => Self::Log,
            SeccompAction::None => Self::None,
        }
    }
}

/// The socket to which the virtual machine monitor connects; one for each machine where a device serves several.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Endpoint {
    /// Create this UNIX socket and listen on it; it is removed at the end
    #[arg(long, value_name = "SOCKET", help_heading = BASIC, display_order = 0)]
    pub(crate) socket_path: Vec<PathBuf>,
    /// Listen on this inherited descriptor of a listening UNIX socket
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(RawFd).range(3..), help_heading = BASIC, display_order = 1)]
    pub(crate) fd: Vec<RawFd>,
}

impl Endpoint {
    /// How many sockets that are.
    pub(crate) fn count(&self) -> usize {
        self.socket_path.len() + self.fd.len()
    }
}

/// The rings of a device's queues. In `boot` this holds for all devices.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Rings {
    /// Ring formats to offer
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Ring::Auto, help_heading = PERFORMANCE)]
    pub(crate) ring: Ring,
    /// Under load, poll for up to N microseconds before sleeping (0 to 1000, 0 turns polling off)
    ///
    /// Polling saves both sides a wake-up, and takes processor time that no other thread wants. An idle queue sleeps.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 50,
        value_parser = clap::value_parser!(u32).range(0..=1000),
        help_heading = PERFORMANCE,
    )]
    pub(crate) poll_us: u32,
}

impl Rings {
    /// Whether a virtual machine may use packed rings.
    pub(crate) fn offers_packed(self) -> bool {
        self.ring != Ring::Split
    }

    /// As `backend` takes it, with what the thread of each lane does first.
    pub(crate) fn options(self, at_lane_start: ThreadStart) -> backend::Options {
        backend::Options {
            packed: self.offers_packed(),
            poll: Duration::from_micros(self.poll_us.into()),
            at_lane_start,
        }
    }
}

/// See [`Rings::ring`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ring {
    /// Offer both and let the virtual machine choose
    Auto,
    /// Offer split rings only
    Split,
    /// Offer both and print QEMU options that use packed rings
    Packed,
}
