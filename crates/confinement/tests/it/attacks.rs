//! What code under a guest's control would try. Each attack answers `Ok` if it succeeded.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, FromRawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;

use confinement::Entered;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, chmodat, openat};

use crate::world::World;

/// An attack and its name.
pub(crate) type Attack = (&'static str, fn(&World, &Entered) -> io::Result<()>);

/// All of them.
pub(crate) const ATTACKS: &[Attack] = &[
    ("open by absolute path", |world, _| File::open(&world.secret).map(drop)),
    ("write by absolute path", |world, _| {
        let mut file = File::options().append(true).open(&world.secret)?;
        file.write_all(b"!")
    }),
    ("open by ..", |_, entered| {
        let share = openat(CWD, shared(entered), OFlags::PATH, Mode::empty())?;
        openat(share, "../secret", OFlags::RDONLY, Mode::empty())?;
        Ok(())
    }),
    ("open through an absolute link", |_, entered| {
        File::open(shared(entered).join("link")).map(drop)
    }),
    ("open by .. of /proc/self/fd", |world, entered| {
        let path = format!("../../..{}", world.secret.display());
        openat(&entered.proc_self_fd, path, OFlags::RDONLY, Mode::empty())?;
        Ok(())
    }),
    ("open through /proc/PID/root", |world, entered| {
        let path = format!("../../{}/root{}", world.victim(), world.secret.display());
        openat(&entered.proc_self_fd, path, OFlags::RDONLY, Mode::empty())?;
        Ok(())
    }),
    ("open by file handle", |world, entered| {
        let share = openat(CWD, shared(entered), OFlags::RDONLY, Mode::empty())?;
        let file = world.handle.open(share.as_fd())?;
        let name = file.as_raw_fd().to_string();
        openat(&entered.proc_self_fd, name, OFlags::RDONLY, Mode::empty())?;
        Ok(())
    }),
    ("chmod by absolute path", |world, _| {
        fs::set_permissions(&world.secret, PermissionsExt::from_mode(0o666))
    }),
    ("chmod by .. of /proc/self/fd", |world, entered| {
        let path = format!("../../..{}", world.secret.display());
        chmodat(&entered.proc_self_fd, path, Mode::RWXU, AtFlags::empty())?;
        Ok(())
    }),
    ("open a device node", |_, entered| {
        File::open(shared(entered).join("null")).map(drop)
    }),
    ("connect to TCP", |world, _| {
        TcpStream::connect(world.tcp.local_addr()?).map(drop)
    }),
    ("connect to a socket file", |world, _| {
        UnixStream::connect(&world.socket).map(drop)
    }),
    ("connect to an abstract socket", |world, _| {
        let address = SocketAddr::from_abstract_name(&world.abstract_name)?;
        UnixStream::connect_addr(&address).map(drop)
    }),
    ("signal another process", |world, _| {
        // SAFETY: sends a signal to another process.
        check(unsafe { libc::kill(world.victim().as_raw_nonzero().get(), libc::SIGCONT) }.into())
    }),
    ("trace another process", |world, _| {
        let victim = world.victim().as_raw_nonzero().get();
        // SAFETY: touches no memory of this process.
        check(unsafe { libc::ptrace(libc::PTRACE_SEIZE, victim, 0, 0) })?;
        // SAFETY: as above.
        check(unsafe { libc::ptrace(libc::PTRACE_DETACH, victim, 0, 0) }).or(Ok(()))
    }),
    ("mount", |_, entered| {
        let target = path(&shared(entered).join("sub"));
        // SAFETY: all pointers are terminated strings or null.
        check(
            unsafe {
                libc::mount(
                    c"none".as_ptr(),
                    target.as_ptr(),
                    c"tmpfs".as_ptr(),
                    0,
                    std::ptr::null(),
                )
            }
            .into(),
        )
    }),
    ("make a user namespace", |_, _| {
        // SAFETY: touches no memory and no descriptors.
        check(unsafe { libc::unshare(libc::CLONE_NEWUSER) }.into())
    }),
    ("enter the host's mounts", |world, _| {
        // SAFETY: touches no memory.
        check(unsafe { libc::setns(world.host.as_raw_fd(), libc::CLONE_NEWNS) }.into())
    }),
    ("load a module", |_, _| {
        // SAFETY: the descriptor is not open, the string terminated.
        check(unsafe { libc::syscall(libc::SYS_finit_module, -1, c"".as_ptr(), 0) })
    }),
    ("make a BPF map", |_, _| {
        // BPF_MAP_CREATE: an array of one value.
        let attributes: [u32; 32] = std::array::from_fn(|at| match at {
            0 => 2,
            1 | 2 => 4,
            3 => 1,
            _ => 0,
        });
        // SAFETY: the kernel reads as many bytes as are said.
        made(unsafe { libc::syscall(libc::SYS_bpf, 0, &raw const attributes, size_of_val(&attributes)) })
    }),
    ("execute a program", |_, _| {
        let program = c"/bin/true";
        let none: *const libc::c_char = std::ptr::null();
        // SAFETY: a terminated string and two lists that end at once; where it succeeds, nothing of this program is left.
        check(unsafe { libc::execve(program.as_ptr(), &raw const none, &raw const none) }.into())
    }),
    ("make memory executable", |_, _| {
        // SAFETY: a new mapping at a place of the kernel's choice.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        // SAFETY: the mapping made above, to which nothing refers.
        check(unsafe { libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_EXEC) }.into())
    }),
    ("set up io_uring", |_, _| {
        let mut parameters = [0_u32; 30];
        // SAFETY: the kernel reads and writes a structure of 120 bytes.
        made(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut parameters) })
    }),
];

/// Where the shared directory lies now.
fn shared(entered: &Entered) -> &Path {
    entered.shared.as_deref().unwrap()
}

fn path(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// For a call that makes a descriptor.
fn made(fd: libc::c_long) -> io::Result<()> {
    check(fd)?;
    // SAFETY: the kernel has just made it.
    drop(unsafe { File::from_raw_fd(fd as i32) });
    Ok(())
}
