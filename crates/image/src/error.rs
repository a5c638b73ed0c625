//! Errors in opening an image.

use std::io;
use std::path::PathBuf;

/// Why an image cannot be used. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file.
    #[error("no such image: {}; create one with truncate -s 10G {}", path.display(), path.display())]
    Missing {
        /// The image.
        path: PathBuf,
    },
    /// It is a directory.
    #[error("the image {} is a directory; name a raw image file or a block device", path.display())]
    Directory {
        /// The image.
        path: PathBuf,
    },
    /// It is a FIFO, a socket or a character device.
    #[error("the image {} is neither a regular file nor a block device", path.display())]
    Special {
        /// The image.
        path: PathBuf,
    },
    /// It can be read only.
    #[error("cannot open the image {} for writing; grant the permission, or serve it with --readonly", path.display())]
    ReadOnly {
        /// The image.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// Another program uses it, or has mounted it.
    #[error(
        "the image {} is in use by another program; stop that one, or serve the image to both with --readonly",
        path.display()
    )]
    InUse {
        /// The image.
        path: PathBuf,
    },
    /// Its length is no multiple of a sector.
    #[error(
        "the image {} has {length} bytes, which is no multiple of 512; extend it with truncate -s {} {}",
        path.display(),
        length.next_multiple_of(512),
        path.display()
    )]
    Length {
        /// The image.
        path: PathBuf,
        /// Its length in bytes.
        length: u64,
    },
    /// The file system cannot bypass the page cache.
    #[error("cannot open the image {} for direct I/O, which its file system lacks; leave out --direct", path.display())]
    Direct {
        /// The image.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// Any other failure.
    #[error("cannot open the image {}", path.display())]
    Open {
        /// The image.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
}
