//! The device of a shared directory.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use confinement::Role;
use devices::fs::{FsDevice, FsOptions};
use fuse::failure::Failures;
use fuse::passthrough::{CacheMode, InodeHandles, Options, Outside, Passthrough};
use fuse::server::Server;
use process::whole;
use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::args::{Cache, Export, FileHandles};
use super::error::Error;
use crate::serve::threads::Threads;

/// Refuses what cannot be shared, in words that tell what to do about it.
pub(super) fn check(directory: &Path) -> Result<(), Error> {
    let path = || directory.to_path_buf();
    match fs::metadata(directory) {
        Ok(metadata) if !metadata.is_dir() => return Err(Error::NotADirectory { path: path() }),
        Ok(_) => {}
        Err(error) => return Err(refusal(directory, error)),
    }
    // With the effective user's rights, as every later access.
    accessat(CWD, directory, Access::READ_OK | Access::EXEC_OK, AtFlags::EACCESS)
        .map_err(|error| refusal(directory, error.into()))
}

fn refusal(directory: &Path, source: io::Error) -> Error {
    let path = directory.to_path_buf();
    match source.kind() {
        io::ErrorKind::NotFound => Error::NoDirectory { path },
        io::ErrorKind::NotADirectory => Error::NotADirectory { path },
        io::ErrorKind::PermissionDenied => Error::NoPermission {
            path,
            user: rustix::process::geteuid().as_raw(),
        },
        _ => Error::Directory { path, source },
    }
}

/// Makes the device for `directory`, of which `outside` has what is open. `failures` is told of what the guest is refused.
pub(super) fn device(
    outside: Result<Outside, fuse::passthrough::Error>,
    directory: &Path,
    tag: &str,
    export: &Export,
    failures: Option<Arc<dyn Failures>>,
    threads: &Threads,
) -> Result<FsDevice<Passthrough>, Error> {
    let cannot = |error: &dyn std::error::Error| Error::Export {
        path: directory.into(),
        reason: whole(error),
    };
    let file_system = outside.and_then(|outside| Passthrough::from_outside(outside, options(export)));
    let file_system = file_system.map_err(|error| cannot(&error))?;
    if export.allow_idmap && !file_system.changes_identity() {
        tracing::warn!("--allow-idmap has no effect: a daemon that is not root owns all files that it makes");
    }
    let options = FsOptions {
        tag: tag.into(),
        request_queues: export.num_queues,
        at_helper_start: threads.narrowed(Role::Helper),
        window_size: export.dax.map_or(0, |size| size.0),
        deferral: export.budgets.deferral(),
    };
    let server = Server::new(file_system);
    let server = match failures {
        Some(failures) => server.tell(failures),
        None => server,
    };
    FsDevice::new(options, server).map_err(|error| cannot(&error))
}

fn options(export: &Export) -> Options {
    Options {
        cache: match export.cache {
            Cache::Never => CacheMode::Never,
            Cache::Metadata => CacheMode::Metadata,
            Cache::Auto => CacheMode::Auto,
            Cache::Always => CacheMode::Always,
        },
        inode_file_handles: match export.inode_file_handles {
            FileHandles::Never => InodeHandles::Never,
            FileHandles::Prefer => InodeHandles::Prefer,
            FileHandles::Mandatory => InodeHandles::Mandatory,
        },
        max_nodes: export.budgets.max_nodes,
        readonly: export.readonly,
        xattr: !export.no_xattr,
        posix_acl: export.posix_acl,
        announce_submounts: !export.no_announce_submounts,
        writeback: export.writeback,
        allow_mmap: export.allow_mmap,
        allow_direct_io: export.allow_direct_io,
        allow_idmap: export.allow_idmap,
        allow_project_ids: export.allow_project_ids,
        dax_files: export.dax_files.clone(),
        ..Options::default()
    }
}
