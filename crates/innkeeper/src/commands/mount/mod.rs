//! `innkeeper mount`: a virtio-fs without a virtual machine.
//!
//! The kernel's FUSE and a vhost-user-fs daemon use the same messages. [`worker`] carries them between /dev/fuse and
//! a virtqueue, one thread per queue; [`session`] negotiates between both ends; [`device`] is the mount itself;
//! [`supervisor`] waits for the end.

pub(crate) mod args;
mod device;
mod error;
mod hiprio;
mod layout;
mod session;
mod supervisor;
mod trouble;
mod worker;

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use driver::{Guest, Options};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use vhost_user::ProtocolFeatures;
use virtqueue::features::{EVENT_IDX, RING_PACKED};

use args::Mount;
use error::Error;
use hiprio::Hiprio;
use process::signals::{ENDING, Signals};
use supervisor::{End, Supervisor};
use trouble::Trouble;
use worker::{Shared, Worker};

/// A daemon that is there answers at once; one that serves somebody else does not.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Mounts, relays until it is unmounted, and answers the exit status.
pub(crate) fn run(args: &Mount) -> Result<u8, Error> {
    let mountpoint = check(&args.mountpoint)?;
    // Before the first thread, which would take the signals otherwise.
    let signals = Signals::take(&ENDING).map_err(process::Error::system("wait for signals"))?;
    let device = device::connect().map_err(|errno| Error::NoFuse { source: errno.into() })?;
    let mut guest = connect(args)?;
    let mut queues = std::mem::take(&mut guest.queues).into_iter();
    let (Some(hiprio), Some(mut first)) = (queues.next(), queues.next()) else {
        unreachable!("at least two queues were asked for")
    };

    let cannot_mount = |errno| refusal(&mountpoint, errno);
    let mount = device::mount(device.as_fd(), &args.socket).map_err(cannot_mount)?;
    session::begin(&device, &mut first)?;
    let mut devices = Vec::new();
    for _ in 1..args.queues {
        devices.push(
            device::duplicate(device.as_fd()).map_err(process::Error::system("open /dev/fuse for one more thread"))?,
        );
    }
    devices.push(device);
    let shared = Shared {
        memory: guest.memory().clone(),
        hiprio: Mutex::new(Hiprio::new(hiprio, guest.memory().clone())),
        stop: event()?,
        poll: Duration::from_micros(args.poll_us.into()),
    };
    let queues = std::iter::once(first).chain(queues);
    let workers = devices
        .into_iter()
        .zip(queues)
        .map(|(device, queue)| Worker::new(&shared, device, queue))
        .collect::<Result<Vec<_>, _>>()
        .map_err(broken)?;
    let attach = || {
        let number = device::attach(&mount, &mountpoint).map_err(cannot_mount)?;
        // Held by us it would never be free to be unmounted.
        drop(mount);
        announce(args, &mountpoint, guest.features() & RING_PACKED != 0);
        Ok(number)
    };
    let supervisor = Supervisor {
        daemon: guest.as_fd(),
        signals: &signals,
        mountpoint: &mountpoint,
    };
    match supervisor.run(workers, &shared.stop, attach)? {
        End::Unmounted(mut queue) => session::end(&mut queue),
        End::Abandoned => {}
        End::DaemonGone => {
            return Err(Error::DaemonGone {
                socket: args.socket.clone(),
                mountpoint,
            });
        }
    }
    Ok(0)
}

/// The mount point as an absolute path, or why nothing can be mounted there.
fn check(mountpoint: &Path) -> Result<PathBuf, Error> {
    let path = || mountpoint.to_path_buf();
    let refused = |source: io::Error| match (source.kind(), source.raw_os_error()) {
        (io::ErrorKind::NotFound, _) => Error::NoMountpoint { path: path() },
        (_, Some(libc::ENOTCONN)) => Error::MountpointDead { path: path() },
        _ => Error::Mountpoint { path: path(), source },
    };
    if !fs::metadata(mountpoint).map_err(refused)?.is_dir() {
        return Err(Error::MountpointNotADirectory { path: path() });
    }
    fs::canonicalize(mountpoint).map_err(refused)
}

fn refusal(mountpoint: &Path, errno: Errno) -> Error {
    let path = mountpoint.to_path_buf();
    match errno {
        Errno::PERM => Error::MountNotPermitted {
            path,
            user: rustix::process::geteuid().as_raw(),
        },
        _ => Error::Mount {
            path,
            source: errno.into(),
        },
    }
}

/// A virtual machine with nothing in it but the queues that we need.
fn connect(args: &Mount) -> Result<Guest, Error> {
    let options = Options {
        queues: args.queues + 1,
        queue_size: args.queue_size,
        packed: args.packed,
        features: EVENT_IDX,
        protocol_features: ProtocolFeatures::MQ | ProtocolFeatures::REPLY_ACK | ProtocolFeatures::CONFIGURE_MEM_SLOTS,
        indirect: false,
        // A request takes two descriptors, its own and that of its reply.
        places: args.queue_size / 2,
        place_size: layout::PLACE_SIZE,
        timeout: ANSWER_WITHIN,
        ..Options::default()
    };
    let socket = args.socket.clone();
    Guest::connect(&args.socket, &options).map_err(|error| match error {
        driver::Error::Connect { source, .. } => match source.raw_os_error() {
            Some(libc::ENOENT | libc::ECONNREFUSED) => Error::NoDaemon { socket },
            _ => Error::Connect { socket, source },
        },
        driver::Error::Protocol(vhost_user::Error::Timeout(_)) => Error::DaemonBusy { socket },
        driver::Error::Features { missing } if missing & RING_PACKED != 0 => Error::NoPackedRings { socket },
        driver::Error::Queues { offered, .. } => Error::TooManyQueues {
            socket,
            wanted: args.queues,
            offered: offered.saturating_sub(1),
        },
        other => Error::Daemon {
            socket,
            reason: process::whole(&other),
        },
    })
}

/// Tells the user that it is there.
fn announce(args: &Mount, mountpoint: &Path, packed: bool) {
    let rings = if packed { "packed" } else { "split" };
    let queues = match args.queues {
        1 => "1 request queue".into(),
        queues => format!("{queues} request queues"),
    };
    let text = format!(
        "Mounted {} on {} ({queues}, {rings} rings). End it with Ctrl-C or `umount {1}`.\n",
        args.socket.display(),
        mountpoint.display(),
    );
    process::say::announce(&text);
}

fn broken(trouble: Trouble) -> Error {
    Error::Relay {
        reason: process::whole(&trouble),
    }
}

fn event() -> Result<OwnedFd, Error> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(process::Error::system("make an event descriptor"))?)
}
