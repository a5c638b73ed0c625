//! The object of a call.

use std::path::PathBuf;

/// An argument that is a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Object {
    /// An open one.
    Descriptor(i32),
    /// One that has this name, if it is there at all.
    Path(PathBuf),
}
