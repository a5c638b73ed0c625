//! The policy for which files a guest should map.

use rustix::fs::{FileType, Statx};

use super::super::inode::Node;
use crate::fs::Name;

/// What Linux maps at once (FUSE_DAX_SZ).
const LINUX_RANGE: u64 = 2 << 20;

/// Which files a guest with a window maps rather than reads. A guest mounts with `dax=inode`, or nothing, to be told; `dax=always`
/// and `dax=never` overrule it. Files that cannot be written are left out in any case, and programs by those that choose by length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DaxFiles {
    /// Those whose length is a multiple of 2 MiB when the guest first meets them: Linux maps 2 MiB at a time, and QEMU (11.1) maps
    /// nothing behind the end of a file, but for a view of it ([`super::super::Options::views`]).
    Fitting,
    /// All of them.
    Always,
    /// None.
    Never,
    /// Those of at least so many bytes when the guest first meets them.
    AtLeast(u64),
    /// Those whose name matches when the guest first meets them, whatever they are called later. The name is the last component
    /// of the path; what is not UTF-8 in it counts as U+FFFD.
    Named(glob::Pattern),
}

impl DaxFiles {
    /// What is best where nothing else is asked for. Smaller files are read once into the guest's cache with less ado than they are
    /// mapped, and would each take 2 MiB of the window.
    pub(in super::super) fn by_default(views: bool) -> DaxFiles {
        if views {
            DaxFiles::AtLeast(LINUX_RANGE)
        } else {
            DaxFiles::Fitting
        }
    }

    /// Whether a node that is met by this name is one of those chosen by name.
    pub(in super::super) fn names(&self, name: Option<Name<'_>>) -> bool {
        match (self, name) {
            (DaxFiles::Named(pattern), Some(name)) => pattern.matches(&name.as_c_str().to_string_lossy()),
            _ => false,
        }
    }

    pub(super) fn includes(&self, node: &Node, stat: &Statx) -> bool {
        let size = stat.stx_size;
        // A program that is open for writing, as it may have to be to be mapped, cannot be run on the host.
        let program = stat.stx_mode & 0o111 != 0;
        node.kind == FileType::RegularFile
            && match self {
                DaxFiles::Fitting => !program && size > 0 && size.is_multiple_of(LINUX_RANGE),
                DaxFiles::Always => true,
                DaxFiles::Never => false,
                DaxFiles::AtLeast(least) => !program && size >= *least,
                DaxFiles::Named(_) => node.dax_by_name,
            }
    }
}
