//! Memory, io_uring, epoll, and calls that are refused before they begin.

use std::fs::{self, File};
use std::io;
use std::mem::offset_of;

use libc::{
    AT_FDCWD, MAP_ANONYMOUS, MAP_PRIVATE, MAP_SHARED, O_RDONLY, PROT_READ, PROT_WRITE, SYS_bpf, SYS_epoll_ctl,
    SYS_io_uring_register, SYS_io_uring_setup, SYS_mkdir, SYS_mlock, SYS_mmap, SYS_munmap, SYS_openat,
};
use rustix::event::epoll;
use rustix::process::Resource;

use super::Case;
use super::call::{Call, be_a_user, descriptor, leak, limit, number, path};

const PAGE: usize = 4096;

/// Has the kernel refuse `call` with `errno` on this thread.
fn forbid(call: i64, errno: i32) -> io::Result<()> {
    let statement = |code: u32, k: u32, jumps: (u8, u8)| libc::sock_filter {
        code: code as u16,
        jt: jumps.0,
        jf: jumps.1,
        k,
    };
    let returned = libc::BPF_RET | libc::BPF_K;
    let program = [
        statement(
            libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
            offset_of!(libc::seccomp_data, nr) as u32,
            (0, 0),
        ),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call as u32, (0, 1)),
        statement(returned, libc::SECCOMP_RET_ERRNO | errno.cast_unsigned(), (0, 0)),
        statement(returned, libc::SECCOMP_RET_ALLOW, (0, 0)),
    ];
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: leak(program) as *mut libc::sock_filter,
    };
    // SAFETY: takes numbers alone.
    let unprivileged = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the program is leaked and as long as its description says.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, leak(filter)) };
    if unprivileged == 0 && set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Denies this thread every file that is opened for reading.
fn deny_reading() -> io::Result<()> {
    const READ_FILE: u64 = 1 << 2;
    // SAFETY: a ruleset of 8 bytes, which the kernel reads.
    let ruleset = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, leak(READ_FILE), 8_usize, 0) };
    if ruleset < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: takes numbers alone.
    let unprivileged = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: takes numbers alone.
    let restricted = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0) };
    if unprivileged == 0 && restricted == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Of `struct io_uring_params` the kernel's length, zero but for the flags.
fn ring_parameters(flags: u32) -> usize {
    let mut parameters = [0_u32; 30];
    parameters[2] = flags;
    leak(parameters)
}

fn ring() -> io::Result<usize> {
    // SAFETY: the parameters are leaked and long enough.
    let ring = unsafe { libc::syscall(SYS_io_uring_setup, 4_usize, ring_parameters(0)) };
    match i32::try_from(ring) {
        Ok(ring) if ring >= 0 => Ok(number(ring)),
        _ => Err(io::Error::last_os_error()),
    }
}

fn add_to_epoll(set: usize, watched: usize) -> io::Result<Call> {
    let event = libc::epoll_event {
        events: libc::EPOLLIN as u32,
        u64: 0,
    };
    Call::new(SYS_epoll_ctl, [set, number(libc::EPOLL_CTL_ADD), watched, leak(event)])
}

fn epoll_set() -> io::Result<usize> {
    Ok(descriptor(epoll::create(epoll::CreateFlags::empty())?))
}

#[rustfmt::skip] // One case a block, no wider than its words.
pub(super) const CASES: &[&Case] = &[
    &Case { name: "mmap-not-writable", prepare: |places| {
        fs::write(places.local.join("file"), "x")?;
        let file = descriptor(File::open(places.local.join("file"))?);
        Call::new(SYS_mmap, [0, PAGE, number(PROT_READ | PROT_WRITE), number(MAP_SHARED), file, 0])
    } },
    &Case { name: "mmap-no-length", prepare: |_| {
        Call::new(SYS_mmap, [0, 0, number(PROT_READ), number(MAP_PRIVATE | MAP_ANONYMOUS), usize::MAX, 0])
    } },
    &Case { name: "mmap-too-much", prepare: |_| {
        limit(Resource::As, 64 << 20)?;
        Call::new(SYS_mmap, [0, 1 << 30, number(PROT_READ), number(MAP_PRIVATE | MAP_ANONYMOUS), usize::MAX, 0])
    } },
    &Case { name: "mmap-more-than-memory", prepare: |_| {
        Call::new(SYS_mmap, [0, 1 << 46, number(PROT_READ | PROT_WRITE), number(MAP_PRIVATE | MAP_ANONYMOUS), usize::MAX, 0])
    } },
    &Case { name: "munmap-odd", prepare: |_| Call::new(SYS_munmap, [1, PAGE]) },
    &Case { name: "mlock-too-much", prepare: |_| {
        let memory = leak([0_u8; 16 * PAGE]);
        limit(Resource::Memlock, PAGE as u64)?;
        be_a_user()?;
        Call::new(SYS_mlock, [memory, 16 * PAGE])
    } },
    &Case { name: "io_uring_setup-empty", prepare: |_| Call::new(SYS_io_uring_setup, [0, ring_parameters(0)]) },
    &Case { name: "io_uring_setup-flags", prepare: |_| Call::new(SYS_io_uring_setup, [4, ring_parameters(1 << 31)]) },
    &Case { name: "io_uring_register-memlock", prepare: |_| {
        const REGISTER_BUFFERS: usize = 0;
        let memory = leak([0_u8; 16 * PAGE]);
        limit(Resource::Memlock, PAGE as u64)?;
        be_a_user()?;
        Call::new(SYS_io_uring_register, [ring()?, REGISTER_BUFFERS, leak([memory, 16 * PAGE]), 1])
    } },
    &Case { name: "io_uring_register-nonsense", prepare: |_| Call::new(SYS_io_uring_register, [ring()?, 9999, 0, 0]) },
    &Case { name: "epoll-itself", prepare: |_| {
        let set = epoll_set()?;
        add_to_epoll(set, set)
    } },
    &Case { name: "epoll-loop", prepare: |_| {
        let [outer, inner] = [epoll_set()?, epoll_set()?];
        if let Ok(errno) = add_to_epoll(outer, inner)?.make() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        add_to_epoll(inner, outer)
    } },
    &Case { name: "epoll-file", prepare: |places| {
        add_to_epoll(epoll_set()?, descriptor(File::create(places.local.join("file"))?))
    } },
    &Case { name: "bpf-as-user", prepare: |_| {
        const MAP_CREATE: usize = 0;
        be_a_user()?;
        // An array of one word, which is refused when the caller is looked at.
        Call::new(SYS_bpf, [MAP_CREATE, leak([2_u32, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 72])
    } },
    &Case { name: "seccomp", prepare: |places| {
        forbid(SYS_mkdir, libc::EPERM)?;
        Call::new(SYS_mkdir, [path(places.local.join("directory")), 0o700])
    } },
    &Case { name: "no-such-call", prepare: |_| Call::new(900, [1]) },
    &Case { name: "landlock", prepare: |places| {
        fs::write(places.local.join("file"), "x")?;
        deny_reading()?;
        Call::new(SYS_openat, [number(AT_FDCWD), path(places.local.join("file")), number(O_RDONLY), 0])
    } },
];
