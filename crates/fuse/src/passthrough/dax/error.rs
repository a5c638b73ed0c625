//! Reasons why a host cannot provide views of files.

use std::io;

/// Why there are no views.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ViewsError {
    #[error("cannot open /dev/fuse: {0}")]
    Device(io::Error),
    #[error("cannot mount a FUSE file system, which needs CAP_SYS_ADMIN: {0}")]
    Mount(io::Error),
    #[error("the kernel's FUSE has no passthrough (it needs Linux 6.9 with CONFIG_FUSE_PASSTHROUGH)")]
    NoPassthrough,
    #[error("a trial failed, as it does without CAP_SYS_ADMIN on the host: {0}")]
    Trial(io::Error),
    #[error("cannot start its thread: {0}")]
    Thread(io::Error),
}
