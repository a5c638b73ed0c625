//! What a host can lack for views of files.

use std::io;

/// Why there are no views.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ViewsError {
    #[error("/dev/fuse does not open: {0}")]
    Device(io::Error),
    #[error("no FUSE file system can be mounted, which needs CAP_SYS_ADMIN: {0}")]
    Mount(io::Error),
    #[error("the kernel's FUSE has no passthrough (Linux 6.9 with CONFIG_FUSE_PASSTHROUGH has)")]
    NoPassthrough,
    #[error("a trial failed, as it does without CAP_SYS_ADMIN on the host: {0}")]
    Trial(io::Error),
    #[error("its thread does not start: {0}")]
    Thread(io::Error),
}
