//! Reasons why the tracer cannot be used.

use std::io;
use std::path::PathBuf;

use crate::kernel::ring_buffer::FormatError;

/// Why the kernel's functions cannot be traced.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Calls and their functions go by other names on other processors.
    #[error("the functions of system calls are known only for x86-64, and this is {0}")]
    Architecture(&'static str),
    /// The kernel was built without.
    #[error("this kernel has no tracefs (CONFIG_TRACING), and therefore no tracer")]
    NoTracefs,
    /// It is not mounted, and this process may not mount it.
    #[error(
        "tracefs is not mounted, and cannot be mounted here; as root, run `mount -t tracefs nodev /sys/kernel/tracing`"
    )]
    NotMounted,
    /// The files are root's.
    #[error("no permission for {0}: only root may trace the kernel's functions; run innkeeper with sudo")]
    NotAllowed(PathBuf),
    /// The files are the system's root's.
    #[error(
        "this is the root of a container (a user namespace), and only the system's root may trace; run innkeeper there"
    )]
    NotRootEnough,
    /// Lockdown in its confidentiality mode.
    #[error(
        "the kernel is locked down for confidentiality, which forbids tracing; boot with lockdown=integrity to allow it"
    )]
    Lockdown,
    /// Process numbers here are not those of the tracer.
    #[error(
        "this is a container with its own process numbers, and the tracer knows those of the host; run innkeeper there"
    )]
    PidNamespace,
    /// Somebody else is tracing.
    #[error("another tracer is active ({0}) and is left alone; retry when it is off")]
    Busy(String),
    /// The kernel was built without.
    #[error("this kernel has no function_graph tracer (CONFIG_FUNCTION_GRAPH_TRACER)")]
    NoGraph,
    /// A file of tracefs could not be read or written.
    #[error("cannot {doing} {path}: {source}")]
    File {
        /// Read, write or the like, and what.
        doing: String,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file of tracefs says what this program does not understand.
    #[error("cannot parse {path}: {source}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: FormatError,
    },
    /// The process that puts everything back could not be started.
    #[error("cannot start the process that restores tracefs: {0}")]
    Guardian(io::Error),
    /// What is to be put back could not be written down or read.
    #[error("cannot keep a journal of the settings to restore, in /run or /dev/shm: {0}")]
    Journal(io::Error),
}
