//! Files and directories.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};

use libc::{
    AT_FDCWD, O_CREAT, O_EXCL, O_NOFOLLOW, O_RDONLY, O_RDWR, O_TMPFILE, O_WRONLY, SYS_chdir, SYS_execve, SYS_fallocate,
    SYS_ftruncate, SYS_getdents64, SYS_ioctl, SYS_linkat, SYS_lseek, SYS_mkdir, SYS_openat, SYS_read, SYS_readlinkat,
    SYS_readv, SYS_renameat2, SYS_rmdir, SYS_setxattr, SYS_write,
};
use rustix::process::Resource;

use super::Case;
use super::call::{Call, be_a_user, descriptor, leak, limit, number, path};

const HERE: usize = AT_FDCWD.cast_unsigned() as usize;

fn open(name: impl AsRef<std::path::Path>, flags: i32) -> std::io::Result<Call> {
    Call::new(SYS_openat, [HERE, path(name), number(flags), 0o600])
}

fn execute(program: &std::path::Path) -> std::io::Result<Call> {
    let words = leak([path("program"), 0]);
    Call::new(SYS_execve, [path(program), words, leak([0_usize])])
}

/// A pipe's reading and writing end.
fn pipe() -> std::io::Result<(usize, usize)> {
    let (reading, writing) = rustix::pipe::pipe()?;
    Ok((descriptor(reading), descriptor(writing)))
}

#[rustfmt::skip] // One case a block, no wider than its words.
pub(super) const CASES: &[&Case] = &[
    &Case { name: "open-missing", prepare: |places| open(places.local.join("missing"), O_RDONLY) },
    &Case { name: "open-missing-shared", prepare: |places| open(places.shared.join("missing"), O_RDONLY) },
    &Case { name: "create-existing", prepare: |places| {
        fs::write(places.local.join("file"), "x")?;
        open(places.local.join("file"), O_CREAT | O_EXCL | O_WRONLY)
    } },
    &Case { name: "open-directory-to-write", prepare: |places| open(&places.local, O_WRONLY) },
    &Case { name: "open-link-nofollow", prepare: |places| {
        symlink("nowhere", places.local.join("link"))?;
        open(places.local.join("link"), O_RDONLY | O_NOFOLLOW)
    } },
    &Case { name: "open-below-file", prepare: |places| {
        fs::write(places.local.join("file"), "x")?;
        open(places.local.join("file/below"), O_RDONLY)
    } },
    &Case { name: "open-long-path", prepare: |_| open("a/".repeat(3000), O_RDONLY) },
    &Case { name: "open-long-name", prepare: |places| open(places.local.join("n".repeat(300)), O_RDONLY) },
    &Case { name: "open-link-loop", prepare: |places| {
        symlink("loop", places.local.join("loop"))?;
        open(places.local.join("loop"), O_RDONLY)
    } },
    &Case { name: "open-not-mine", prepare: |places| {
        let name = places.local.join("file");
        fs::write(&name, "x")?;
        fs::set_permissions(&name, fs::Permissions::from_mode(0o600))?;
        be_a_user()?;
        open(name, O_RDONLY)
    } },
    &Case { name: "open-not-mine-shared", prepare: |places| {
        let name = places.shared.join("file");
        fs::write(&name, "x")?;
        fs::set_permissions(&name, fs::Permissions::from_mode(0o600))?;
        be_a_user()?;
        open(name, O_RDONLY)
    } },
    &Case { name: "open-tmpfile-read-only", prepare: |places| open(&places.local, O_TMPFILE & !O_WRONLY) },
    &Case { name: "open-too-many", prepare: |places| {
        limit(Resource::Nofile, 3)?;
        open(&places.local, O_RDONLY)
    } },
    &Case { name: "open-long-name-shared", prepare: |places| open(places.shared.join("n".repeat(300)), O_CREAT | O_RDWR) },
    &Case { name: "mkdir-existing-shared", prepare: |places| {
        fs::create_dir(places.shared.join("directory"))?;
        Call::new(SYS_mkdir, [path(places.shared.join("directory")), 0o700])
    } },
    &Case { name: "rmdir-full-shared", prepare: |places| {
        fs::create_dir_all(places.shared.join("directory/below"))?;
        Call::new(SYS_rmdir, [path(places.shared.join("directory"))])
    } },
    &Case { name: "rename-onto-full-shared", prepare: |places| {
        fs::create_dir_all(places.shared.join("full/below"))?;
        fs::create_dir(places.shared.join("empty"))?;
        Call::new(SYS_renameat2, [HERE, path(places.shared.join("empty")), HERE, path(places.shared.join("full")), 0])
    } },
    &Case { name: "rmdir-full", prepare: |places| {
        fs::create_dir_all(places.local.join("directory/below"))?;
        Call::new(SYS_rmdir, [path(places.local.join("directory"))])
    } },
    &Case { name: "rename-into-itself", prepare: |places| {
        fs::create_dir(places.local.join("directory"))?;
        Call::new(SYS_renameat2, [HERE, path(places.local.join("directory")), HERE, path(places.local.join("directory/below")), 0])
    } },
    &Case { name: "rename-across", prepare: |places| {
        fs::write(places.local.join("file"), "x")?;
        Call::new(SYS_renameat2, [HERE, path(places.local.join("file")), HERE, path(places.shared.join("file")), 0])
    } },
    &Case { name: "link-directory", prepare: |places| {
        fs::create_dir(places.local.join("directory"))?;
        Call::new(SYS_linkat, [HERE, path(places.local.join("directory")), HERE, path(places.local.join("link")), 0])
    } },
    &Case { name: "chdir-file", prepare: |places| {
        fs::write(places.local.join("file"), "x")?;
        Call::new(SYS_chdir, [path(places.local.join("file"))])
    } },
    &Case { name: "readlink-file", prepare: |places| {
        fs::write(places.local.join("file"), "x")?;
        Call::new(SYS_readlinkat, [HERE, path(places.local.join("file")), leak([0_u8; 64]), 64])
    } },
    &Case { name: "setxattr-unknown", prepare: |places| {
        Call::new(SYS_setxattr, [path(&places.local), path("nonsense.name"), leak([0_u8; 8]), 8, 0])
    } },
    &Case { name: "read-closed", prepare: |_| Call::new(SYS_read, [999, leak([0_u8; 8]), 8]) },
    &Case { name: "read-directory", prepare: |places| {
        Call::new(SYS_read, [descriptor(File::open(&places.local)?), leak([0_u8; 8]), 8])
    } },
    &Case { name: "write-read-only", prepare: |places| {
        fs::write(places.local.join("file"), "x")?;
        Call::new(SYS_write, [descriptor(File::open(places.local.join("file"))?), leak([0_u8; 8]), 8])
    } },
    &Case { name: "write-beyond-limit", prepare: |places| {
        let file = descriptor(File::create(places.local.join("file"))?);
        limit(Resource::Fsize, 0)?;
        // SAFETY: no handler, the signal that comes with the refusal is ignored.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        Call::new(SYS_write, [file, leak([0_u8; 8]), 8])
    } },
    &Case { name: "write-broken-pipe", prepare: |_| {
        let (reading, writing) = rustix::pipe::pipe()?;
        drop(reading);
        Call::new(SYS_write, [descriptor(writing), leak([0_u8; 8]), 8])
    } },
    &Case { name: "lseek-pipe", prepare: |_| Call::new(SYS_lseek, [pipe()?.0, 0, 0]) },
    &Case { name: "fallocate-pipe", prepare: |_| Call::new(SYS_fallocate, [pipe()?.1, 0, 0, 4096]) },
    &Case { name: "ftruncate-read-only", prepare: |places| {
        fs::write(places.local.join("file"), "x")?;
        Call::new(SYS_ftruncate, [descriptor(File::open(places.local.join("file"))?), 0])
    } },
    &Case { name: "getdents-file", prepare: |places| {
        fs::write(places.local.join("file"), "x")?;
        Call::new(SYS_getdents64, [descriptor(File::open(places.local.join("file"))?), leak([0_u8; 256]), 256])
    } },
    &Case { name: "ioctl-no-terminal", prepare: |places| {
        let tcgets = usize::try_from(libc::TCGETS).unwrap_or(0);
        Call::new(SYS_ioctl, [descriptor(File::create(places.local.join("file"))?), tcgets, leak([0_u8; 256])])
    } },
    &Case { name: "execve-bad-interpreter", prepare: |places| {
        let program = places.local.join("script");
        fs::write(&program, format!("#!{}\n", places.local.join("interpreter").display()))?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        execute(&program)
    } },
    &Case { name: "execve-not-executable", prepare: |places| {
        let program = places.local.join("file");
        fs::write(&program, "#!/bin/sh\n")?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o644))?;
        execute(&program)
    } },
    &Case { name: "execve-bad-format", prepare: |places| {
        let program = places.local.join("file");
        fs::write(&program, "neither a script nor an ELF file\n")?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        execute(&program)
    } },
    &Case { name: "oom-score-not-a-number", prepare: |_| {
        let file = File::options().write(true).open("/proc/self/oom_score_adj")?;
        Call::new(SYS_write, [descriptor(file), path("abc"), 3])
    } },
    &Case { name: "readv-too-many", prepare: |places| {
        const PIECES_MAX: usize = 1024;
        fs::write(places.local.join("file"), "x")?;
        let pieces = leak([[0_usize; 2]; PIECES_MAX + 1]);
        Call::new(SYS_readv, [descriptor(File::open(places.local.join("file"))?), pieces, PIECES_MAX + 1])
    } },
];
