//! Reasons why a recording cannot be read or explained.

use crate::kernel::code;
use crate::kernel::ring_buffer::FormatError;

/// Version of the file.
pub(super) const VERSION: u32 = 4;

/// Why there is nothing to explain.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not one of `record`.
    #[error("not a recording of `innkeeper why`: {0}")]
    Json(#[from] serde_json::Error),
    /// The file is of another version.
    #[error(
        "the recording has version {0}, and this innkeeper reads version {VERSION}: record the case again, or explain it \
         with the innkeeper that recorded it"
    )]
    Version(u32),
    /// The kernel's descriptions cannot be understood.
    #[error("cannot read the kernel's description of its trace: {0}")]
    Format(#[from] FormatError),
    /// The kernel's code cannot be read.
    #[error(transparent)]
    Code(#[from] code::Error),
}
