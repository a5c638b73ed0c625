//! INIT: negotiates the version and the features of a session.

use crate::dax;
use crate::fs::Negotiated;
use crate::limits::{MAX_PAGES, MAX_WRITE};
use crate::request::Init;
use crate::wire::{self, InitFlags};

/// How many requests Linux may have under way in the background, and when it calls that congestion. The queue is the real
/// limit; the defaults of 12 and 9 would not fill it.
const MAX_BACKGROUND: u16 = u16::MAX;
const CONGESTION_THRESHOLD: u16 = MAX_BACKGROUND / 4 * 3;

/// What the server does itself, whatever the file system wants.
const BY_SERVER: InitFlags = InitFlags::INIT_EXT
    .union(InitFlags::MAX_PAGES)
    .union(InitFlags::BIG_WRITES);

/// What requests and replies are prepared for. Left out: locks, notifications, security contexts, splicing, and `.` and `..` in
/// LOOKUP (EXPORT_SUPPORT).
const SUPPORTED: InitFlags = BY_SERVER
    .union(InitFlags::ASYNC_READ)
    .union(InitFlags::ATOMIC_O_TRUNC)
    .union(InitFlags::DONT_MASK)
    .union(InitFlags::HAS_IOCTL_DIR)
    .union(InitFlags::AUTO_INVAL_DATA)
    .union(InitFlags::DO_READDIRPLUS)
    .union(InitFlags::READDIRPLUS_AUTO)
    .union(InitFlags::ASYNC_DIO)
    .union(InitFlags::WRITEBACK_CACHE)
    .union(InitFlags::NO_OPEN_SUPPORT)
    .union(InitFlags::PARALLEL_DIROPS)
    .union(InitFlags::HANDLE_KILLPRIV)
    .union(InitFlags::POSIX_ACL)
    .union(InitFlags::CACHE_SYMLINKS)
    .union(InitFlags::NO_OPENDIR_SUPPORT)
    .union(InitFlags::EXPLICIT_INVAL_DATA)
    .union(InitFlags::SUBMOUNTS)
    .union(InitFlags::HANDLE_KILLPRIV_V2)
    .union(InitFlags::SETXATTR_EXT)
    .union(InitFlags::CREATE_SUPP_GROUP)
    .union(InitFlags::ALLOW_IDMAP)
    .union(InitFlags::DIRECT_IO_ALLOW_MMAP)
    .union(InitFlags::NO_EXPORT_SUPPORT);

/// What there is besides if the device has a window.
const WITH_WINDOW: InitFlags = InitFlags::MAP_ALIGNMENT.union(InitFlags::HAS_INODE_DAX);

/// The answer to a guest of a later version.
pub(super) fn our_version() -> wire::InitOut {
    wire::InitOut {
        major: wire::MAJOR,
        minor: wire::MINOR,
        ..Default::default()
    }
}

/// The terms of a session: what the guest offers and the server has, as far as the server or the file system `wants` it.
pub(super) fn terms(init: &Init, has_window: bool, wants: impl FnOnce(InitFlags) -> InitFlags) -> Negotiated {
    let mut supported = SUPPORTED;
    supported.set(WITH_WINDOW, has_window);
    let offered = init.offered & supported;
    Negotiated {
        minor: init.minor.min(wire::MINOR),
        flags: (wants(offered) | BY_SERVER | InitFlags::MAP_ALIGNMENT) & offered,
    }
}

/// The answer to the INIT of a session of these terms.
pub(super) fn answer(init: &Init, terms: Negotiated) -> wire::InitOut {
    let (flags, flags2) = terms.flags.words();
    wire::InitOut {
        major: wire::MAJOR,
        minor: terms.minor,
        max_readahead: init.max_readahead,
        flags,
        flags2,
        max_background: MAX_BACKGROUND,
        congestion_threshold: CONGESTION_THRESHOLD,
        max_write: MAX_WRITE,
        time_gran: 1,
        max_pages: if terms.flags.contains(InitFlags::MAX_PAGES) {
            MAX_PAGES
        } else {
            0
        },
        map_alignment: if terms.flags.contains(InitFlags::MAP_ALIGNMENT) {
            dax::alignment().ilog2() as u16
        } else {
            0
        },
        ..Default::default()
    }
}
