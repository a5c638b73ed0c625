//! The UNIX socket on which a device listens for a virtual machine monitor.
#![expect(unsafe_code, reason = "an inherited descriptor is taken over by its number")]

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, lchown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, openat, statat, unlinkat};
use rustix::net::sockopt;

use crate::Error;

/// `sun_path` has 108 bytes, the closing NUL included (unix(7)).
const PATH_BYTES: usize = 107;

/// A socket file of ours, removed when dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Where it lies.
    directory: OwnedFd,
    /// An O_PATH descriptor of the file, so that no other has its inode number meanwhile. `None`: it is not ours to remove.
    file: Option<OwnedFd>,
}

/// Creates the socket at `path` and listens on it. Only the owner may connect, and `group` if given.
pub fn listen(path: &Path, group: Option<&str>) -> Result<(UnixListener, SocketFile), Error> {
    let length = path.as_os_str().len();
    if length > PATH_BYTES {
        return Err(Error::SocketPathTooLong {
            path: path.into(),
            length,
            limit: PATH_BYTES,
        });
    }
    let group = group.map(group_number).transpose()?;
    remove_stale(path)?;
    let listen_error = |source| Error::SocketListen {
        path: path.into(),
        source,
    };

    // Set at birth rather than changed afterwards, so that nobody else can connect in between.
    let closed = if group.is_some() {
        Mode::RWXO
    } else {
        Mode::RWXG | Mode::RWXO
    };
    let before = rustix::process::umask(closed);
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = bound.map_err(listen_error)?;

    let open = |path, flags| {
        let flags = OFlags::PATH | OFlags::CLOEXEC | flags;
        openat(CWD, path, flags, Mode::empty()).map_err(|error| listen_error(error.into()))
    };
    let made = open(path, OFlags::NOFOLLOW)?;
    let directory = open(directory_of(path), OFlags::DIRECTORY)?;
    let file = SocketFile {
        path: path.into(),
        directory,
        file: Some(made),
    };
    if let Some(group) = group {
        // Not what a link leads to that somebody has put in its place.
        lchown(path, None, Some(group)).map_err(|source| Error::SocketGroup {
            path: path.into(),
            group,
            source,
        })?;
    }
    Ok((listener, file))
}

/// The directory of `path`, which may be a name alone.
fn directory_of(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// Takes over descriptor `number`, which whoever started us left listening.
pub fn inherit(number: RawFd) -> Result<UnixListener, Error> {
    // SAFETY: borrowed only to ask what it is; a closed descriptor answers EBADF.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    let listening = sockopt::socket_domain(descriptor) == Ok(rustix::net::AddressFamily::UNIX)
        && sockopt::socket_acceptconn(descriptor) == Ok(true);
    if !listening {
        return Err(Error::NotListening { number });
    }
    rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC).map_err(|_| Error::NotListening { number })?;
    // SAFETY: the descriptor is open, numbers below 3 are refused on the command line, and we have opened nothing that
    // the user could name by number: whoever passed it gave it to us.
    Ok(UnixListener::from(unsafe { OwnedFd::from_raw_fd(number) }))
}

/// Where `listener` listens, if that has a name in the file system.
pub fn path_of(listener: &UnixListener) -> Option<PathBuf> {
    listener.local_addr().ok()?.as_pathname().map(Path::to_path_buf)
}

/// A socket file nobody listens on any more is left over from a process that was killed; it may be replaced. Nothing else may.
fn remove_stale(path: &Path) -> Result<(), Error> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(Error::SocketListen {
                path: path.into(),
                source,
            });
        }
    };
    if !metadata.file_type().is_socket() {
        return Err(Error::SocketPathTaken { path: path.into() });
    }
    if is_listened_on(path, &metadata) {
        return Err(Error::SocketBusy { path: path.into() });
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|source| Error::SocketListen {
                path: path.into(),
                source,
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Any other answer, EACCES and EAGAIN too, means that somebody else may be there.
        Ok(_) | Err(_) => Err(Error::SocketBusy { path: path.into() }),
    }
}

/// Whether a listener of this network namespace was bound to `socket` by a name that still leads there. That is found out without
/// a connection, which might be the only one that the listener takes. Not all are found: one in another namespace, or bound by
/// a relative path or another file name, is left to a connection.
fn is_listened_on(path: &Path, socket: &Metadata) -> bool {
    listeners().iter().any(|bound| {
        // Others are not looked at: their file systems may hang.
        bound.is_absolute()
            && bound.file_name() == path.file_name()
            && fs::symlink_metadata(bound).is_ok_and(|found| (found.dev(), found.ino()) == (socket.dev(), socket.ino()))
    })
}

/// The paths that the listeners of this network namespace were bound to, as they gave them; none if the kernel's table cannot be
/// read.
pub fn listeners() -> Vec<PathBuf> {
    let table = fs::read("/proc/net/unix").unwrap_or_default();
    let lines = table.split(|&byte| byte == b'\n');
    lines.filter_map(bound_to).map(Path::to_path_buf).collect()
}

/// The path in a line of a socket that listens: the last of eight columns, which may have spaces in it.
fn bound_to(line: &[u8]) -> Option<&Path> {
    /// `__SO_ACCEPTCON` (linux/net.h).
    const LISTENING: &[u8] = b"00010000";
    let (mut rest, mut columns) = (line, [&b""[..]; 7]);
    for column in &mut columns {
        rest = rest.trim_ascii_start();
        (*column, rest) = rest.split_at(rest.iter().position(|&byte| byte == b' ')?);
    }
    let path = Path::new(OsStr::from_bytes(&rest[1..]));
    (columns[3] == LISTENING).then_some(path)
}

/// The number of a group. Read from /etc/group by ourselves: a statically linked binary cannot load the C library's name services.
fn group_number(group: &str) -> Result<u32, Error> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let table = fs::read_to_string("/etc/group").unwrap_or_default();
    group_in(&table, group).ok_or_else(|| Error::NoSuchGroup { group: group.into() })
}

/// Finds `group` in a table of group(5).
fn group_in(table: &str, group: &str) -> Option<u32> {
    table.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group))
            .then(|| fields.nth(1)?.parse().ok())
            .flatten()
    })
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

impl SocketFile {
    /// The descriptors that it takes to remove the file.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let file = self.file.as_ref().map(AsRawFd::as_raw_fd);
        file.into_iter().chain([self.directory.as_raw_fd()])
    }

    /// Leaves the file to another process.
    pub(crate) fn leave(mut self) {
        self.file = None;
    }

    /// Removes the file, unless somebody has put another in its place.
    pub(crate) fn remove(&self) {
        // Whoever replaced the file in the meantime keeps it.
        let Some(name) = self.path.file_name() else { return };
        let Some(Ok(ours)) = self.file.as_ref().map(fstat) else {
            return;
        };
        let found = statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW);
        let is_ours = found.is_ok_and(|found| (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino));
        if is_ours && let Err(error) = unlinkat(&self.directory, name, AtFlags::empty()) {
            tracing::warn!("cannot remove the socket {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listeners_path_may_have_spaces_in_it() {
        let line = |flags: &str, path: &str| format!("0000000000000000: 00000002 00000000 {flags} 0001 01   213{path}");
        for path in ["/run/a socket", "relative", "/run/double  space"] {
            let listens = line("00010000", &format!(" {path}"));
            assert_eq!(bound_to(listens.as_bytes()), Some(Path::new(path)));
        }
        assert_eq!(bound_to(line("00000000", " /run/connected").as_bytes()), None);
        assert_eq!(bound_to(line("00010000", "").as_bytes()), None);
        assert_eq!(
            bound_to(b"Num       RefCount Protocol Flags    Type St Inode Path"),
            None
        );
    }

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let table = "root:x:0:\nkvm:x:107:alice,bob\nkvmx:x:9:\n";
        assert_eq!(group_in(table, "kvm"), Some(107));
        assert_eq!(group_in(table, "kv"), None);
        assert_eq!(group_number("42").ok(), Some(42));
    }

    #[test]
    fn the_socket_file_of_a_successor_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let (_listener, file) = listen(&path, None).unwrap();
        fs::rename(&path, directory.path().join("moved")).unwrap();
        let _successor = UnixListener::bind(&path).unwrap();
        drop(file);
        assert!(path.exists());
    }

    #[test]
    fn only_the_owner_may_connect() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let (_listener, _file) = listen(&path, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o077, 0);
    }
}
