//! A shared directory, and what lies outside of it.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use rustix::process::Pid;

use crate::child::{Child, User, fork};

/// All of it belongs to the user who attacks, so that no permission but the sandbox's stands in the way.
pub(crate) struct World {
    _directory: tempfile::TempDir,
    pub(crate) share: PathBuf,
    pub(crate) secret: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) abstract_name: String,
    pub(crate) tcp: TcpListener,
    pub(crate) handle: Handle,
    /// The namespace of mounts that the host has, as a daemon might hold it.
    pub(crate) host: File,
    victim: Option<Child>,
    _listeners: [UnixListener; 2],
}

impl World {
    pub(crate) fn new(user: User) -> World {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap();
        let (share, secret, socket) = (path.join("share"), path.join("secret"), path.join("socket"));
        fs::create_dir(&share).unwrap();
        fs::create_dir(share.join("sub")).unwrap();
        fs::write(&secret, "secret").unwrap();
        fs::write(share.join("file"), "shared").unwrap();
        symlink(&secret, share.join("link")).unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        let abstract_name = format!("innkeeper-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        let other = UnixListener::bind_addr(&address).unwrap();
        let device = CString::new(share.join("null").to_str().unwrap()).unwrap();
        // SAFETY: makes a node; the path is a terminated string.
        let made = unsafe { libc::mknod(device.as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(1, 3)) };
        assert_eq!(made, 0);
        for path in [
            &path,
            &share,
            &secret,
            &socket,
            &share.join("sub"),
            &share.join("file"),
            &share.join("null"),
        ] {
            chown(path, Some(user.id()), Some(user.id())).unwrap();
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let victim = fork(user, |talk| {
            talk.say("here");
            talk.wait();
        });
        let mut victim = victim;
        assert_eq!(victim.line().as_deref(), Some("here"));
        World {
            handle: Handle::of(&secret).unwrap(),
            host: File::open("/proc/self/ns/mnt").unwrap(),
            _directory: directory,
            share,
            secret,
            socket,
            abstract_name,
            tcp: TcpListener::bind("127.0.0.1:0").unwrap(),
            victim: Some(victim),
            _listeners: [listener, other],
        }
    }

    /// A process of the same user, outside.
    pub(crate) fn victim(&self) -> Pid {
        self.victim.as_ref().unwrap().pid
    }

    /// To be called by the process that made it.
    pub(crate) fn end(mut self) {
        self.victim.take().unwrap().end();
    }
}

/// A file handle (`struct file_handle`).
#[repr(C)]
pub(crate) struct Handle {
    length: u32,
    kind: i32,
    bytes: [u8; 128],
}

impl Handle {
    pub(crate) fn of(path: &Path) -> io::Result<Handle> {
        let mut handle = Handle {
            length: 128,
            kind: 0,
            bytes: [0; 128],
        };
        let path = CString::new(path.to_str().unwrap()).unwrap();
        let mut mount = 0;
        // SAFETY: `handle` has room for the bytes that it says, the path is terminated, and `mount` is written once.
        let result = unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                libc::AT_FDCWD,
                path.as_ptr(),
                &raw mut handle,
                &raw mut mount,
                0,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(handle)
    }

    /// An O_PATH descriptor of the file, on the mount of `mount`.
    pub(crate) fn open(&self, mount: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        // SAFETY: the handle has the kernel's layout and lives through the call.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_open_by_handle_at,
                mount.as_raw_fd(),
                &raw const *self,
                libc::O_PATH | libc::O_CLOEXEC,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }
}
