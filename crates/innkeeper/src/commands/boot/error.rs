//! Errors of `boot`: what failed, on what, why, and what to do.

use std::io;
use std::path::PathBuf;

/// Why there is no guest, or no longer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot find {program}; install it (Debian: apt-get install qemu-system-x86) or name it with --qemu")]
    NoQemu { program: String },
    #[error(
        "{program} does not support DAX, which needs QEMU 11.1; name another with --qemu, or omit --dax",
        program = .program.display()
    )]
    NoQemuForDax { program: PathBuf },
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
    #[error("cannot read the root {path}: {source}; check that its file system is mounted and sound", path = .path.display())]
    Root { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Serve(#[from] crate::serve::error::Error),
    #[error(transparent)]
    Process(#[from] process::Error),
}
