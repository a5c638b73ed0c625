//! Why the tracer cannot be used.

use std::io;
use std::path::PathBuf;

use crate::kernel::ring_buffer::FormatError;

/// Why the kernel's functions cannot be traced.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Calls and their functions go by other names on other processors.
    #[error("the functions of system calls are known for x86-64 alone, and this is {0}")]
    Architecture(&'static str),
    /// The kernel was built without.
    #[error("this kernel has no tracefs (CONFIG_TRACING), and so no tracer")]
    NoTracefs,
    /// It is not mounted, and this process may not mount it.
    #[error(
        "tracefs is not mounted, and may not be here; root mounts it by `mount -t tracefs nodev /sys/kernel/tracing`"
    )]
    NotMounted,
    /// The files are root's.
    #[error("no permission for {0}: only root may trace the kernel's functions; sudo makes you that")]
    NotAllowed(PathBuf),
    /// The files are the system's root's.
    #[error("this root is one of a container (a user namespace), and only the system's own may trace; run it there")]
    NotRootEnough,
    /// Lockdown in its confidentiality mode.
    #[error(
        "the kernel is locked down for confidentiality, which forbids tracing; a boot with lockdown=integrity allows it"
    )]
    Lockdown,
    /// Process numbers here are not those of the tracer.
    #[error(
        "this is a container with process numbers of its own, and the tracer knows those of the host; run it there"
    )]
    PidNamespace,
    /// Somebody else is tracing.
    #[error("another tracer is at work ({0}) and is left alone; try again once that is off")]
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
    #[error("cannot understand {path}: {source}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: FormatError,
    },
    /// The process that puts everything back could not be started.
    #[error("cannot start the process that puts tracefs back: {0}")]
    Guardian(io::Error),
    /// What is to be put back could not be written down or read.
    #[error("cannot keep a journal of what is to be put back, in /run or /dev/shm: {0}")]
    Journal(io::Error),
}
