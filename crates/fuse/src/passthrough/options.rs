//! Options of a share.

use std::time::Duration;

use super::dax::DaxFiles;

/// How many nodes a guest may know by default. They take some 0.7 GiB of the daemon's memory: 180 bytes each.
pub const MAX_NODES: u64 = 4_000_000;

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
    /// All is cached for a day, also that a name is not there: for shares that only this guest changes.
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

    pub(super) fn keeps_contents(self) -> bool {
        matches!(self, CacheMode::Auto | CacheMode::Always)
    }

    /// How long a name that is not there counts as absent in the guest. Programs poll for names that others make, so only
    /// where there are no others.
    pub(super) fn absence_timeout(self) -> Duration {
        match self {
            CacheMode::Never | CacheMode::Auto | CacheMode::Metadata => Duration::ZERO,
            CacheMode::Always => self.timeout(),
        }
    }
}

/// Whether nodes are opened by file handle, which needs no descriptor and no name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InodeHandles {
    /// By a descriptor that is closed when others are needed, and opened again by name; on file systems where that could lead to
    /// another inode, by a descriptor.
    Never,
    /// By handle where file system and privileges allow (CAP_DAC_READ_SEARCH), else as with `Never`.
    #[default]
    Prefer,
    /// By handle; where that cannot be, nodes are refused.
    Mandatory,
}

/// How a directory is shared.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the guest may cache.
    pub cache: CacheMode,
    /// How nodes are kept.
    pub inode_file_handles: InodeHandles,
    /// How many nodes the guest may know at a time besides the root. What would make one more is refused with ENFILE, and makes
    /// nothing; a listing has its names without nodes. A FORGET of the last lookup of a node makes room.
    pub max_nodes: u64,
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
    /// Let the guest delay writes and join them. Takes effect where it caches contents ([`CacheMode::Auto`], [`CacheMode::Always`]):
    /// what goes past its cache would go past its order of writes and its syncs too.
    pub writeback: bool,
    /// Shared mappings of files under [`CacheMode::Never`] and [`CacheMode::Metadata`].
    pub allow_mmap: bool,
    /// Honour O_DIRECT of the guest on the host.
    pub allow_direct_io: bool,
    /// Let the guest make idmapped mounts of the share (Linux 6.12). All requests but those that create then come from
    /// [`Caller::UNNAMED`](crate::fs::Caller::UNNAMED). Takes effect where nodes can be made in the caller's name.
    pub allow_idmap: bool,
    /// Let the guest's root change project ids, and whether directories hand theirs on. Without it they stay as the host set them,
    /// so that project quotas hold for the guest.
    pub allow_project_ids: bool,
    /// Which files to map, where there is a window. `None`: with views those of 2 MiB and more, else [`DaxFiles::Fitting`].
    pub dax_files: Option<DaxFiles>,
    /// Have the front end map views of files, which seem endless, rather than the files: QEMU (11.1) maps nothing behind the end of
    /// a file. Takes effect where the daemon may mount FUSE and hand files through it (CAP_SYS_ADMIN, Linux 6.9); else a warning
    /// says why not.
    pub views: bool,
}

impl Options {
    pub(super) fn writes_back(&self) -> bool {
        self.writeback && !self.readonly && self.cache.keeps_contents()
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            cache: CacheMode::default(),
            inode_file_handles: InodeHandles::default(),
            max_nodes: MAX_NODES,
            readonly: false,
            xattr: true,
            posix_acl: false,
            announce_submounts: true,
            readdirplus: true,
            writeback: false,
            allow_mmap: false,
            allow_direct_io: false,
            allow_idmap: false,
            allow_project_ids: false,
            dax_files: None,
            views: false,
        }
    }
}
