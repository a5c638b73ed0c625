//! Errors that end innkeeper: what failed, on what, why, and what to do.

use std::io;
use std::path::PathBuf;

/// An error that ends innkeeper.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot share {path}: no such directory; create it or name another", path = .path.display())]
    NoDirectory { path: PathBuf },
    #[error("cannot share {path}: not a directory; share the directory that holds it", path = .path.display())]
    NotADirectory { path: PathBuf },
    #[error(
        "cannot share {path}: user {user} may not read and enter it; change its mode or run innkeeper as its owner",
        path = .path.display()
    )]
    NoPermission { path: PathBuf, user: u32 },
    #[error("cannot share {path}: {source}; check that its file system is mounted and sound", path = .path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("cannot give the tag {tag:?} to more than one share; choose a tag for each (the root's is {root:?})")]
    TagTaken { tag: String, root: &'static str },

    #[error("cannot share {path}: {reason}; try other options", path = .path.display())]
    Export { path: PathBuf, reason: String },
    #[error(
        "cannot log errors to {path}: the path has a symbolic link, which a guest may have made; name the real path (`realpath` prints it)",
        path = .path.display()
    )]
    LogBehindLink { path: PathBuf },
    #[error("cannot log errors to {path}: not a regular file; name another", path = .path.display())]
    LogNoFile { path: PathBuf },
    #[error(
        "cannot log errors to {path}: {source}; name a file in a directory that exists and that you may write to",
        path = .path.display()
    )]
    LogFile { path: PathBuf, source: io::Error },
    #[error("cannot serve the share any longer: {reason}; restart innkeeper")]
    Serve { reason: String },

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

    #[error("cannot find {program}; install it (Debian: apt-get install qemu-system-x86) or name it with --qemu")]
    NoQemu { program: String },
    #[error("no QEMU here supports DAX, which needs QEMU 11.1; name one with --qemu or run `cargo xtask setup`")]
    NoQemuForDax,
    #[error("cannot run {program}: {source}; name a QEMU with --qemu", program = .program.display())]
    RunQemu { program: PathBuf, source: io::Error },
    #[error("QEMU ended before the guest did ({status}): {said}")]
    QemuFailed { status: String, said: String },
    #[error(
        "no kernel vmlinuz-* in {root}/boot; install one there (Debian: linux-image-cloud-amd64) or name one with --kernel",
        root = .root.display()
    )]
    NoKernel { root: PathBuf },
    #[error("cannot read the kernel {path}: {source}; name a readable one with --kernel", path = .path.display())]
    ReadKernel { path: PathBuf, source: io::Error },
    #[error("{path} is not a Linux kernel (bzImage) for x86-64; name one with --kernel", path = .path.display())]
    NotAKernel { path: PathBuf },
    #[error("cannot read the initramfs {path}: {source}; name a readable one with --initrd", path = .path.display())]
    ReadInitrd { path: PathBuf, source: io::Error },
    #[error(
        "kernel {release} has no {module}, neither built in nor as a module in {directory}; boot another kernel with --kernel",
        directory = .directory.display()
    )]
    NoModule {
        release: String,
        module: &'static str,
        directory: PathBuf,
    },
    #[error(
        "cannot find the modules of kernel {release}: {directory} has no {file}; run `depmod -b ROOT {release}` \
         or boot another kernel with --kernel",
        directory = .directory.display()
    )]
    ModuleIndex {
        directory: PathBuf,
        file: &'static str,
        release: String,
    },
    #[error("cannot read the module {path}: {source}; reinstall the kernel's package", path = .path.display())]
    ReadModule { path: PathBuf, source: io::Error },
    #[error(
        "{root} has neither /sbin/init nor /init; give a command to run after --, or name an init with --append init=PATH",
        root = .root.display()
    )]
    NoInit { root: PathBuf },
    #[error("cannot build the initramfs: {source}; check that {path} is readable", path = .path.display())]
    Initramfs { path: PathBuf, source: io::Error },
    #[error("the guest's kernel panicked: {line}")]
    Panicked { line: String },
    #[error("cannot set up the guest: {line}")]
    GuestSetup { line: String },
    #[error("the guest ended before the command did; its last console output:\n{console}")]
    EndedEarly { console: String },
    #[error("the guest broke the protocol of its command channel: {reason}")]
    Channel { reason: String },

    #[error(transparent)]
    Bench(#[from] crate::bench::Error),

    #[error(transparent)]
    Process(#[from] process::Error),
}
