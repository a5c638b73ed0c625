//! What a share may be told.

use std::time::Duration;

/// How long the guest may trust what it has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// Nothing is cached: every access asks the host.
    Never,
    /// Names and attributes are cached for a day, contents are not.
    Metadata,
    /// Names and attributes are cached for a second, contents until the file changes or is opened again.
    #[default]
    Auto,
    /// All is cached for a day: for shares that only this guest changes.
    Always,
}

impl CacheMode {
    /// How long names and attributes stay valid in the guest.
    pub(super) fn timeout(self) -> Duration {
        Duration::from_secs(match self {
            CacheMode::Never => 0,
            CacheMode::Auto => 1,
            CacheMode::Metadata | CacheMode::Always => 86_400,
        })
    }
}

/// Whether nodes are kept by file handle, which costs no open file each, or by descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InodeHandles {
    /// By descriptor.
    Never,
    /// By handle where file system and privileges allow (CAP_DAC_READ_SEARCH), else by descriptor.
    #[default]
    Prefer,
    /// By handle; where that cannot be, nodes are refused.
    Mandatory,
}

/// Which files a guest with a window maps rather than reads. A guest mounts with `dax=inode`, or nothing, to be told; `dax=always`
/// and `dax=never` overrule it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DaxFiles {
    /// Those whose length is a multiple of 2 MiB when the guest first meets them: Linux maps 2 MiB at a time, and QEMU (11.1) maps
    /// nothing behind the end of a file.
    #[default]
    Fitting,
    /// All of them: for front ends that map beyond the end of a file, as mmap(2) does.
    Always,
    /// None.
    Never,
    /// Those of at least so many bytes when the guest first meets them.
    AtLeast(u64),
}

/// How a directory is shared.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What the guest may cache.
    pub cache: CacheMode,
    /// How nodes are kept.
    pub inode_file_handles: InodeHandles,
    /// Refuse every change with EROFS.
    pub readonly: bool,
    /// Extended attributes; ENOSYS without.
    pub xattr: bool,
    /// POSIX ACLs, enforced by the guest. Takes effect with `xattr` only.
    pub posix_acl: bool,
    /// Show mounts of the host within the share as mounts to the guest, each with its own device number.
    pub announce_submounts: bool,
    /// Attributes along with directory entries. Without effect under [`CacheMode::Never`], where they would not be kept.
    pub readdirplus: bool,
    /// Let the guest delay writes and join them.
    pub writeback: bool,
    /// Shared mappings of files under [`CacheMode::Never`] and [`CacheMode::Metadata`].
    pub allow_mmap: bool,
    /// Honour O_DIRECT of the guest on the host.
    pub allow_direct_io: bool,
    /// Which files to map, where there is a window.
    pub dax_files: DaxFiles,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            cache: CacheMode::default(),
            inode_file_handles: InodeHandles::default(),
            readonly: false,
            xattr: true,
            posix_acl: false,
            announce_submounts: true,
            readdirplus: true,
            writeback: false,
            allow_mmap: false,
            allow_direct_io: false,
            dax_files: DaxFiles::default(),
        }
    }
}
