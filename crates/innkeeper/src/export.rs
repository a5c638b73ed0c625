//! A host directory as a virtio-fs device, as `share` and `boot` both serve it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use devices::fs::{FsDevice, FsOptions};
use fuse::failure::Failures;
use fuse::passthrough::{CacheMode, InodeHandles, Options, Passthrough};
use fuse::server::Server;
use process::whole;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::thread::CapabilitySet;

use crate::args::{Cache, Export, FileHandles, Ring};
use crate::error::Error;

/// All that requests and the start of a share need. Not among them is CAP_SYS_RESOURCE, with which a guest would write beyond
/// the hard limits of quotas.
pub(crate) const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    // chattr +i and +a.
    .union(CapabilitySet::LINUX_IMMUTABLE)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP)
    // trusted.* and security.*, views, and file handles in a mount namespace of one's own.
    .union(CapabilitySet::SYS_ADMIN)
    // Labels of SELinux and Smack.
    .union(CapabilitySet::MAC_ADMIN)
    .union(CapabilitySet::MAC_OVERRIDE);

/// A directory that is being shared.
pub(crate) type Device = FsDevice<Passthrough>;

/// Refuses what cannot be shared, in words that tell what to do about it.
pub(crate) fn check(directory: &Path) -> Result<(), Error> {
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

/// Makes the device for `directory`. `failures` is told of what the guest is refused.
pub(crate) fn device(
    directory: &Path,
    tag: &str,
    export: &Export,
    failures: Option<Arc<dyn Failures>>,
) -> Result<Device, Error> {
    let cannot = |error: &dyn std::error::Error| Error::Export {
        path: directory.into(),
        reason: whole(error),
    };
    let file_system = Passthrough::new(directory, options(export)).map_err(|error| cannot(&error))?;
    if export.allow_idmap && !file_system.changes_identity() {
        tracing::warn!("--allow-idmap has no effect: a daemon that is not root makes all files its own");
    }
    let options = FsOptions {
        tag: tag.into(),
        request_queues: export.num_queues,
        window_size: export.dax.map_or(0, |size| size.0),
    };
    let server = Server::new(file_system);
    let server = match failures {
        Some(failures) => server.tell(failures),
        None => server,
    };
    FsDevice::new(options, server).map_err(|error| cannot(&error))
}

/// Serves whoever connects to `listener`, until `stop` is readable.
pub(crate) fn serve(
    listener: &UnixListener,
    device: &Device,
    export: &Export,
    stop: BorrowedFd<'_>,
) -> Result<(), Error> {
    let options = backend::Options {
        packed: export.ring != Ring::Split,
        poll: Duration::from_micros(export.poll_us.into()),
    };
    backend::serve(listener, device, options, stop).map_err(|error| Error::Serve { reason: whole(&error) })
}

/// Serves one machine from a thread that lives as long as the process. Answers the socket to give to it, already
/// connected: in a directory that nobody else may enter, and gone from there again, so that nothing is left over whatever
/// becomes of us.
pub(crate) fn serve_connected(device: Device, export: &Export) -> Result<OwnedFd, Error> {
    let connect = || {
        let directory = tempfile::Builder::new().prefix("innkeeper-").tempdir()?;
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path)?;
        let socket = UnixStream::connect(&path)?;
        directory.close()?;
        Ok((listener, socket, eventfd(0, EventfdFlags::CLOEXEC)?))
    };
    let (listener, socket, never) = connect().map_err(process::Error::system::<io::Error>("make a socket for QEMU"))?;
    let export = export.clone();
    thread::spawn(move || {
        // This thread and those that it starts alone: else QEMU would get back what its parent lacks, and the kernel would forget
        // to end it with us (PR_SET_PDEATHSIG).
        let served = process::capabilities::keep(KEPT)
            .map_err(Error::from)
            .and_then(|()| serve(&listener, &device, &export, never.as_fd()));
        if let Err(error) = served {
            tracing::error!("{error}");
        }
    });
    Ok(socket.into())
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
        views: export.dax.is_some(),
        ..Options::default()
    }
}
