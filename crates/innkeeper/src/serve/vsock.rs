//! virtio-vsock: `innkeeper vsock`, and `--vsock` of `boot`.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use clap::Args;
use confinement::{Access, Action, Argument, Calls, Capabilities, Declaration, Role, Shared, system_calls as call};
use devices::vsock::{CONNECTIONS_MOST, VsockDevice, VsockOptions, check_cid};
use process::arguments::BASIC;
use process::socket::{self, SocketFile};
use process::whole;
use rustix::process::{Resource, getrlimit};
use rustix::thread::CapabilitySet;

use super::args::{Ring, Rings, Serving};
use super::common_calls::{waiting_for_files, with_common};
use super::device::{self, Attachment, Inside, Made, Opened, Service};
use super::error::Error;
use super::qemu::QemuDevice;
use super::threads::Threads;

/// CID of `boot`'s guest.
const BOOTED_CID: u32 = 3;
/// Bytes of the longest path: one of a socket (unix(7)), less those of `_4294967295`.
const PATH_BYTES: usize = 107 - 11;
/// Open files that connections leave to the rest of the daemon.
const OTHER_FILES: u64 = 64;

/// Connect programs of the host and of virtual machines over a vhost-user socket
///
/// Prints the QEMU options, then serves one virtual machine after another until it receives SIGINT, SIGTERM or SIGHUP. A program of the
/// guest that connects to port P of the host (CID 2) reaches the Unix socket PATH_P. `innkeeper connect PATH P` reaches port P of the
/// guest, as does any program that connects to PATH and sends `CONNECT P` in a line.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                    innkeeper vsock --guest-cid 3 --uds-path /run/vm1/v --socket-path /run/vm1/vsock.sock\n  \
                    ssh -o ProxyCommand='innkeeper connect /run/vm1/v 22' root@vm1\n\n\
                  Exit status: 0 after SIGINT, SIGTERM or SIGHUP; 2 for a wrong command line; 1 for any other failure.")]
pub(crate) struct Vsock {
    #[command(flatten)]
    serving: Serving,
    /// CID (address) of the guest, 3 to 4294967294
    #[arg(long, value_name = "CID", value_parser = parse_cid, help_heading = BASIC)]
    guest_cid: u32,
    /// Create this UNIX socket for programs that connect to the guest; ports of the host are sockets of this name with _PORT behind it
    ///
    /// Of the host's files, the daemon sees the directory of this socket alone. Only the owner may connect.
    #[arg(long, value_name = "PATH", help_heading = BASIC)]
    uds_path: PathBuf,
}

/// What `boot` takes of it.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Attach {
    /// Connect programs of host and guest: port P of the host (CID 2) is the UNIX socket PATH_P, and `innkeeper connect PATH P` reaches
    /// port P of the guest (CID 3)
    #[arg(long, value_name = "PATH", help_heading = BASIC)]
    vsock: Option<PathBuf>,
}

fn parse_cid(text: &str) -> Result<u32, String> {
    let most = u32::MAX - 1;
    let number: u64 = text.parse().map_err(|_| format!("give a number from 3 to {most}"))?;
    let cid = u32::try_from(number).map_err(|_| format!("a CID has 32 bits; give a number from 3 to {most}"))?;
    check_cid(cid).map_err(|error| error.to_string())?;
    Ok(cid)
}

impl Service for Vsock {
    fn serving(&self) -> &Serving {
        &self.serving
    }

    fn check(&self) -> Result<(), Error> {
        check(&self.uds_path)
    }

    fn declaration(&self) -> Result<Declaration, Error> {
        declaration(&self.uds_path)
    }

    fn open(&self) -> Result<Box<dyn Opened + '_>, Error> {
        Ok(Box::new(OpenedVsock {
            vsock: self,
            listener: None,
        }))
    }

    fn qemu(&self) -> QemuDevice {
        qemu(self.serving.rings.ring == Ring::Packed)
    }

    fn announcement(&self, qemu: &str, _open_files: u64) -> String {
        let path = self.uds_path.display();
        format!(
            "Connecting guest CID {} by {path}. Start the virtual machine with\n\n  {qemu}\n\nPort P of the host is the UNIX socket \
             {path}_P. Reach port P of the guest with\n\n  innkeeper connect {path} P\n",
            self.guest_cid
        )
    }
}

/// Its listener is made last of all that lies outside of the sandbox.
struct OpenedVsock<'v> {
    vsock: &'v Vsock,
    listener: Option<UnixListener>,
}

impl Opened for OpenedVsock<'_> {
    fn listen(&mut self) -> Result<Vec<SocketFile>, Error> {
        let (listener, file) = listen(&self.vsock.uds_path)?;
        self.listener = Some(listener);
        Ok(vec![file])
    }

    fn make(self: Box<Self>, inside: Inside, _threads: &Threads) -> Result<Made, Error> {
        let Vsock {
            guest_cid, uds_path, ..
        } = self.vsock;
        let path = match (inside.shared, uds_path.file_name()) {
            (Some(directory), Some(name)) => directory.join(name),
            _ => uds_path.clone(),
        };
        let Some(listener) = self.listener else {
            return Err(refused("the device has no listener".into()));
        };
        let device = make(*guest_cid, path, listener)?;
        Ok(Made {
            devices: vec![Box::new(device)],
            at_end: None,
        })
    }
}

impl device::Attach for Attach {
    fn check(&self, _root: &Path) -> Result<(), Error> {
        self.vsock.as_deref().map_or(Ok(()), check)
    }

    fn drivers(&self) -> &'static [&'static str] {
        if self.vsock.is_some() {
            &["vmw_vsock_virtio_transport"]
        } else {
            &[]
        }
    }

    fn attach(&self, _root: &Path, rings: Rings, seccomp: Action) -> Result<Vec<Attachment>, Error> {
        let Some(path) = &self.vsock else {
            return Ok(Vec::new());
        };
        let threads = Threads::new(declaration(path)?, seccomp, CapabilitySet::all())?;
        let (listener, file) = listen(path)?;
        let device = make(BOOTED_CID, path.clone(), listener)?;
        Ok(vec![Attachment {
            made: Made {
                devices: vec![Box::new(device)],
                // Removes it.
                at_end: Some(Box::new(move || drop(file))),
            },
            qemu: qemu(rings.offers_packed()),
            threads,
        }])
    }
}

/// Why there are no sockets for the guest.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NoSockets(String);

fn refused(reason: String) -> Error {
    Error::Device(Box::new(NoSockets(reason)))
}

fn check(path: &Path) -> Result<(), Error> {
    let shown = path.display();
    let length = path.as_os_str().len();
    if length > PATH_BYTES {
        return Err(refused(format!(
            "cannot listen on {shown}: the path has {length} bytes, and {PATH_BYTES} leave room for _4294967295; choose a shorter --uds-path, \
             for example in /run or /tmp"
        )));
    }
    if path.file_name().is_none() || path.is_dir() {
        return Err(refused(format!(
            "cannot listen on {shown}: it names a directory; give --uds-path the name of a socket in it"
        )));
    }
    directory_of(path).map(|_| ())
}

/// The real directory of the sockets.
fn directory_of(path: &Path) -> Result<PathBuf, Error> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = parent.unwrap_or(Path::new("."));
    directory.canonicalize().map_err(|error| {
        refused(format!(
            "cannot listen on {}: {}: {error}; make the directory or choose another --uds-path",
            path.display(),
            directory.display()
        ))
    })
}

fn listen(path: &Path) -> Result<(UnixListener, SocketFile), Error> {
    let reason = |error| match error {
        process::Error::SocketBusy { .. } => "the socket is in use by another process; stop it".into(),
        process::Error::SocketPathTaken { .. } => "the file exists and is not a socket; remove it".into(),
        process::Error::SocketListen { source, .. } => format!("{source}; get write permission"),
        other => whole(&other),
    };
    socket::listen(path, None).map_err(|error| {
        let shown = path.display();
        refused(format!(
            "cannot listen on {shown}: {} or choose another --uds-path",
            reason(error)
        ))
    })
}

fn make(guest_cid: u32, path: PathBuf, listener: UnixListener) -> Result<VsockDevice, Error> {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let connections = files.saturating_sub(OTHER_FILES);
    let options = VsockOptions {
        guest_cid,
        path,
        connections: usize::try_from(connections).map_or(CONNECTIONS_MOST, |files| files.min(CONNECTIONS_MOST)),
    };
    VsockDevice::new(options, listener).map_err(|error| refused(whole(&error)))
}

const UNIX: &[&[Argument]] = &[&[Argument::is(0, libc::AF_UNIX as u32)]];

/// What it needs once it serves.
fn declaration(path: &Path) -> Result<Declaration, Error> {
    Ok(with_common(Declaration {
        device: "vsock",
        shared: Some(Shared {
            directory: directory_of(path)?,
            // To connect to a socket takes permission on the socket alone.
            access: Access::Read,
            why: "the directory of the sockets that are the host's ports",
        }),
        network: false,
        capabilities: vec![Capabilities {
            set: CapabilitySet::DAC_OVERRIDE,
            roles: &[Role::ControlPlane, Role::Lane],
            why: "connect to sockets of other users",
        }],
        calls: vec![
            waiting_for_files(&[Role::Lane], "wait for programs, data and room"),
            Calls {
                roles: &[Role::Lane],
                why: "connect to the host's programs, and accept them",
                permits: const { &[call::SOCKET.when(UNIX), call::CONNECT.any(), call::ACCEPT4.any()] },
            },
            Calls {
                roles: &[Role::Lane],
                why: "pass on data, and its end",
                permits: const {
                    &[
                        call::SENDMSG.any(),
                        call::RECVMSG.any(),
                        call::SENDTO.any(),
                        call::RECVFROM.any(),
                        call::SHUTDOWN.any(),
                    ]
                },
            },
        ],
        ioctls: Vec::new(),
    }))
}

fn qemu(packed: bool) -> QemuDevice {
    QemuDevice {
        id: "vsock",
        name: "vhost-user-vsock-pci",
        options: if packed { ",packed=on".into() } else { String::new() },
        netdev: None,
    }
}
