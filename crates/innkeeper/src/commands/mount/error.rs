//! Errors of `mount`: what failed, on what, why, and what to do.

use std::io;
use std::path::PathBuf;

/// Why nothing can be mounted, or a mount is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot mount on {path}: no such directory; create it or name another", path = .path.display())]
    NoMountpoint { path: PathBuf },
    #[error("cannot mount on {path}: not a directory; name one", path = .path.display())]
    MountpointNotADirectory { path: PathBuf },
    #[error(
        "cannot mount on {path}: a mount whose daemon has ended is there; remove it with `umount {path}`",
        path = .path.display()
    )]
    MountpointDead { path: PathBuf },
    #[error("cannot mount on {path}: {source}; name a directory that you may enter", path = .path.display())]
    Mountpoint { path: PathBuf, source: io::Error },
    #[error(
        "cannot mount on {path}: user {user} has no CAP_SYS_ADMIN here; run innkeeper mount as root",
        path = .path.display()
    )]
    MountNotPermitted { path: PathBuf, user: u32 },
    #[error(
        "cannot mount on {path}: {source}; check that the kernel supports FUSE and that the directory is free",
        path = .path.display()
    )]
    Mount { path: PathBuf, source: io::Error },
    #[error(
        "cannot open /dev/fuse: {source}; load the kernel module with `modprobe fuse`, run innkeeper mount as root, or give the \
         container that device"
    )]
    NoFuse { source: io::Error },
    #[error(
        "cannot connect to {socket}: no daemon listens there; start one, for example `innkeeper share DIR --socket-path {socket}`",
        socket = .socket.display()
    )]
    NoDaemon { socket: PathBuf },
    #[error("cannot connect to {socket}: {source}; name a socket that you may write to", socket = .socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    #[error(
        "the daemon on {socket} does not answer, maybe because it serves another machine or mount; end that one or start another daemon",
        socket = .socket.display()
    )]
    DaemonBusy { socket: PathBuf },
    #[error("the daemon on {socket} has no packed rings; omit --packed", socket = .socket.display())]
    NoPackedRings { socket: PathBuf },
    #[error(
        "the daemon on {socket} has {offered} request queues, not {wanted}; lower --queues, or start the daemon with more",
        socket = .socket.display()
    )]
    TooManyQueues { socket: PathBuf, wanted: u16, offered: u64 },
    #[error("cannot use the daemon on {socket}: {reason}; see what the daemon logs", socket = .socket.display())]
    Daemon { socket: PathBuf, reason: String },
    #[error("cannot open a session with the daemon: {reason}; see what the daemon logs")]
    Session { reason: String },
    #[error(
        "the daemon on {socket} has ended, so all accesses to {mountpoint} fail; remove it with `umount {mountpoint}`",
        socket = .socket.display(), mountpoint = .mountpoint.display()
    )]
    DaemonGone { socket: PathBuf, mountpoint: PathBuf },
    #[error("cannot serve the mount any longer: {reason}; unmount it and restart innkeeper")]
    Relay { reason: String },
    #[error(transparent)]
    Process(#[from] process::Error),
}
