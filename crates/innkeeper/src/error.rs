//! Everything that can stop innkeeper, each said in one sentence with the way out.

use std::io;
use std::path::PathBuf;

/// Why innkeeper could not do its job.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot share {path}: there is no such directory; create it or name another", path = .path.display())]
    NoDirectory { path: PathBuf },
    #[error("cannot share {path}: it is not a directory; share the directory that holds it", path = .path.display())]
    NotADirectory { path: PathBuf },
    #[error(
        "cannot share {path}: user {user} may not read and enter it; change its mode or run innkeeper as its owner",
        path = .path.display()
    )]
    NoPermission { path: PathBuf, user: u32 },
    #[error("cannot share {path}: {source}; check that its file system is mounted and sound", path = .path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("the tag {tag:?} is given to more than one share; name each differently (the root's is {root:?})")]
    TagTaken { tag: String, root: &'static str },

    #[error(
        "the socket path {path} has {length} bytes and Linux allows {limit}; choose a shorter one, for example in /run or /tmp",
        path = .path.display()
    )]
    SocketPathTooLong { path: PathBuf, length: usize, limit: usize },
    #[error(
        "the socket {path} is in use by another process; stop that one or choose another --socket-path",
        path = .path.display()
    )]
    SocketBusy { path: PathBuf },
    #[error(
        "{path} exists and is not a socket; remove it or choose another --socket-path",
        path = .path.display()
    )]
    SocketPathTaken { path: PathBuf },
    #[error(
        "cannot listen on {path}: {source}; choose a --socket-path in a directory that exists and that you may write to",
        path = .path.display()
    )]
    SocketListen { path: PathBuf, source: io::Error },
    #[error(
        "cannot give the socket {path} to group {group}: {source}; name a group that you belong to",
        path = .path.display()
    )]
    SocketGroup {
        path: PathBuf,
        group: u32,
        source: io::Error,
    },
    #[error("there is no group {group} in /etc/group; name an existing one or give its number")]
    NoSuchGroup { group: String },
    #[error(
        "descriptor {number} is not a listening UNIX socket; pass one that is bound and listening, or use --socket-path"
    )]
    NotListening { number: i32 },
    #[error(
        "cannot raise the limit of open files to {wanted}: {source}; ask for less with --rlimit-nofile or raise the hard limit"
    )]
    OpenFileLimit { wanted: u64, source: io::Error },
    #[error("cannot share {path}: {reason}; try other options", path = .path.display())]
    Export { path: PathBuf, reason: String },
    #[error(
        "cannot log errors to {path}: a symbolic link lies on the way, and a guest may have put it there; name the real path (realpath tells)",
        path = .path.display()
    )]
    LogBehindLink { path: PathBuf },
    #[error("cannot log errors to {path}: it is not a regular file; name another", path = .path.display())]
    LogNoFile { path: PathBuf },
    #[error(
        "cannot log errors to {path}: {source}; name a file in a directory that exists and that you may write to",
        path = .path.display()
    )]
    LogFile { path: PathBuf, source: io::Error },
    #[error("the share can no longer be served: {reason}; start innkeeper anew")]
    Serve { reason: String },

    #[error("cannot mount on {path}: there is no such directory; create it or name another", path = .path.display())]
    NoMountpoint { path: PathBuf },
    #[error("cannot mount on {path}: it is not a directory; name one", path = .path.display())]
    MountpointNotADirectory { path: PathBuf },
    #[error(
        "cannot mount on {path}: a mount whose daemon has ended is left there; remove it with `umount {path}`",
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
        "cannot mount on {path}: {source}; check that the kernel has FUSE and that nothing else is in the way there",
        path = .path.display()
    )]
    Mount { path: PathBuf, source: io::Error },
    #[error(
        "cannot open /dev/fuse: {source}; load the kernel's module with `modprobe fuse`, run innkeeper mount as root, or give the \
         container that device"
    )]
    NoFuse { source: io::Error },
    #[error(
        "no daemon listens on {socket}; start one, for example `innkeeper share DIR --socket-path {socket}`",
        socket = .socket.display()
    )]
    NoDaemon { socket: PathBuf },
    #[error("cannot connect to {socket}: {source}; name a socket that you may write to", socket = .socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    #[error(
        "the daemon on {socket} does not answer: it may be serving another machine or mount; end that one or start another daemon",
        socket = .socket.display()
    )]
    DaemonBusy { socket: PathBuf },
    #[error("the daemon on {socket} has no packed rings; leave --packed away", socket = .socket.display())]
    NoPackedRings { socket: PathBuf },
    #[error(
        "the daemon on {socket} has {offered} request queues and not {wanted}; ask for fewer with --queues, or start it with more",
        socket = .socket.display()
    )]
    TooManyQueues { socket: PathBuf, wanted: u16, offered: u64 },
    #[error("the daemon on {socket} cannot be used: {reason}; look at what it says itself", socket = .socket.display())]
    Daemon { socket: PathBuf, reason: String },
    #[error("no session with the daemon: {reason}; look at what it says itself")]
    Session { reason: String },
    #[error(
        "the daemon on {socket} has ended, so {mountpoint} answers with errors alone; remove it with `umount {mountpoint}`",
        socket = .socket.display(), mountpoint = .mountpoint.display()
    )]
    DaemonGone { socket: PathBuf, mountpoint: PathBuf },
    #[error("the mount can no longer be served: {reason}; unmount it and start innkeeper anew")]
    Relay { reason: String },

    #[error("there is no {program}; install it (Debian: apt-get install qemu-system-x86) or name it with --qemu")]
    NoQemu { program: String },
    #[error(
        "no QEMU here has shared memory for devices, which DAX needs (QEMU 11.1); name one with --qemu or run `cargo xtask setup`"
    )]
    NoQemuForDax,
    #[error("cannot run {program}: {source}; name a QEMU with --qemu", program = .program.display())]
    RunQemu { program: PathBuf, source: io::Error },
    #[error("QEMU ended before the guest did ({status}), saying: {said}")]
    QemuFailed { status: String, said: String },
    #[error(
        "there is no kernel vmlinuz-* in {root}/boot; install one there (Debian: linux-image-cloud-amd64) or name one with --kernel",
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
        "{directory} has no {file}, so it cannot be told which modules kernel {release} needs; run `depmod -b ROOT {release}` \
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
    #[error("the guest could not be set up: {line}")]
    GuestSetup { line: String },
    #[error("the guest ended before the command did; the last it said on its console:\n{console}")]
    EndedEarly { console: String },
    #[error("the guest broke the rules of its command channel: {reason}")]
    Channel { reason: String },

    #[error(transparent)]
    Bench(#[from] crate::bench::Error),

    #[error("cannot {doing}: {source}")]
    System { doing: &'static str, source: io::Error },
}

impl Error {
    /// For `map_err`: the system refused what every job needs, so there is no other way to name.
    pub(crate) fn system<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System {
            doing,
            source: source.into(),
        }
    }
}
