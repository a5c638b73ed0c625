//! Contents of files.

use std::fs::File;

use driver::Error;
use fuse::wire::{self, Opcode};
use rustix::fs::{Advice, fadvise};
use zerocopy::IntoBytes;

use super::laid_out;
use super::session::{Open, Session, zeros};

const SIZE: u32 = 1 << 20;
const PAGE: u32 = 4096;

/// (name, command, bytes to the host, bytes from it) of linux/fs.h.
const FLAGS: (&str, u32) = ("FS_IOC_GETFLAGS", 0x8008_6601);
const SET_FLAGS: (&str, u32) = ("FS_IOC_SETFLAGS", 0x4008_6602);
const EXTENDED: (&str, u32) = ("FS_IOC_FSGETXATTR", 0x801c_581f);
const SET_EXTENDED: (&str, u32) = ("FS_IOC_FSSETXATTR", 0x401c_5820);
/// `TCGETS`.
const OF_A_TERMINAL: u32 = 0x5401;

/// Makes files in `parent`, which the host sees as `host`, reads, writes and removes them.
pub(super) fn data(session: &mut Session<'_>, parent: u64, host: &std::path::Path) -> Result<(), Error> {
    let file = session.create(Opcode::Create, parent, "contents", libc::O_RDWR)?;
    write(session, file, wire::WRITE_KILL_SUIDGID)?;
    write(session, file, wire::WRITE_CACHE)?;
    read(session, "", file, 0, SIZE)?;
    read(session, "beyond the end", file, SIZE.into(), SIZE)?;
    descriptor(session, file)?;
    change(session, file)?;
    copy(session, parent, file)?;
    session.release(Opcode::Release, file)?;
    for (what, flags) in [
        ("O_RDONLY", libc::O_RDONLY),
        ("O_WRONLY", libc::O_WRONLY),
        ("O_APPEND", libc::O_RDWR | libc::O_APPEND),
        ("O_TRUNC", libc::O_RDWR | libc::O_TRUNC),
        ("O_DIRECT", libc::O_RDWR | libc::O_DIRECT),
        ("O_SYNC", libc::O_RDWR | libc::O_SYNC),
    ] {
        let opened = session.open(what, Opcode::Open, file.node, flags)?;
        if flags & libc::O_DIRECT != 0 {
            laid_out::direct(session, opened, SIZE)?;
        } else if flags != libc::O_RDONLY {
            write(session, opened, 0)?;
        }
        if flags & (libc::O_WRONLY | libc::O_DIRECT) == 0 {
            read(session, what, opened, 0, SIZE)?;
        }
        session.release(Opcode::Release, opened)?;
    }
    not_in_memory(session, file.node, &host.join("contents"))?;
    let nameless = session.create(Opcode::Tmpfile, parent, "/", libc::O_RDWR)?;
    if nameless.node != 0 {
        let input = wire::LinkIn {
            oldnodeid: nameless.node,
        };
        session.node("of a TMPFILE", Opcode::Link, parent, &[input.as_bytes(), b"named\0"])?;
        session.release(Opcode::Release, nameless)?;
        session.ask("", Opcode::Unlink, parent, &[b"named\0"], 0)?;
    }
    session.ask("", Opcode::Unlink, parent, &[b"contents\0"], 0)?;
    Ok(())
}

fn write(session: &mut Session<'_>, file: Open, write_flags: u32) -> Result<(), Error> {
    let input = wire::WriteIn {
        fh: file.handle,
        size: SIZE,
        write_flags,
        ..zeros()
    };
    let data = vec![b'x'; SIZE as usize];
    session.ask("", Opcode::Write, file.node, &[input.as_bytes(), &data], 8)?;
    Ok(())
}

fn read(session: &mut Session<'_>, what: &str, file: Open, offset: u64, size: u32) -> Result<(), Error> {
    let input = wire::ReadIn {
        fh: file.handle,
        offset,
        size,
        ..zeros()
    };
    session.ask(what, Opcode::Read, file.node, &[input.as_bytes()], size as usize)?;
    Ok(())
}

/// READ of what the host has to fetch first, from one descriptor after another.
fn not_in_memory(session: &mut Session<'_>, node: u64, host: &std::path::Path) -> Result<(), Error> {
    for what in ["not in memory", "not in memory again"] {
        let opened = session.open("", Opcode::Open, node, libc::O_RDONLY)?;
        // Where that is in vain (tmpfs), nothing is fetched.
        let _no_matter =
            File::open(host).map(|file| file.sync_all().map(|()| fadvise(&file, 0, None, Advice::DontNeed)));
        for page in [0, 100, 101, 200] {
            read(session, what, opened, page * u64::from(PAGE), PAGE)?;
        }
        session.release(Opcode::Release, opened)?;
    }
    Ok(())
}

/// What a guest does with an open file besides reading and writing.
fn descriptor(session: &mut Session<'_>, file: Open) -> Result<(), Error> {
    let Open { node, handle: fh } = file;
    let input = wire::FlushIn { fh, ..zeros() };
    session.ask("", Opcode::Flush, node, &[input.as_bytes()], 0)?;
    for (what, fsync_flags) in [("", 0), ("data", wire::FSYNC_FDATASYNC)] {
        let input = wire::FsyncIn {
            fh,
            fsync_flags,
            padding: 0,
        };
        session.ask(what, Opcode::Fsync, node, &[input.as_bytes()], 0)?;
    }
    session.ask("", Opcode::Syncfs, node, &[wire::SyncfsIn::default().as_bytes()], 0)?;
    for (what, whence) in [("SEEK_DATA", libc::SEEK_DATA), ("SEEK_HOLE", libc::SEEK_HOLE)] {
        let input = wire::LseekIn {
            fh,
            whence: whence.cast_unsigned(),
            ..zeros()
        };
        // So is it answered if the guest may have data that the host has not.
        session.ask_in_vain(what, Opcode::Lseek, node, &[input.as_bytes()], libc::ENOSYS)?;
    }
    for (what, mode) in [
        ("", 0),
        ("FALLOC_FL_KEEP_SIZE", libc::FALLOC_FL_KEEP_SIZE),
        (
            "FALLOC_FL_PUNCH_HOLE",
            libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE,
        ),
    ] {
        let input = wire::FallocateIn {
            fh,
            length: SIZE.into(),
            mode: mode.cast_unsigned(),
            ..zeros()
        };
        session.ask(what, Opcode::Fallocate, node, &[input.as_bytes()], 0)?;
    }
    let input = wire::GetattrIn {
        getattr_flags: wire::GETATTR_FH,
        dummy: 0,
        fh,
    };
    session.ask("open", Opcode::Getattr, node, &[input.as_bytes()], 256)?;
    flags(session, file)?;
    // The locks of a guest are the guest's own.
    for (opcode, errno) in [
        (Opcode::Getlk, libc::ENOSYS),
        (Opcode::Setlk, libc::ENOSYS),
        (Opcode::Bmap, libc::ENOSYS),
        (Opcode::Poll, libc::ENOSYS),
    ] {
        session.ask_in_vain("not implemented", opcode, node, &[&[0; 48]], errno)?;
    }
    Ok(())
}

fn flags(session: &mut Session<'_>, file: Open) -> Result<(), Error> {
    for ((get, read), (set, write), size) in [(FLAGS, SET_FLAGS, 4_u32), (EXTENDED, SET_EXTENDED, 28)] {
        let input = |cmd, in_size, out_size| wire::IoctlIn {
            fh: file.handle,
            cmd,
            in_size,
            out_size,
            ..zeros()
        };
        let room = size_of::<wire::IoctlOut>() + size as usize;
        let body = session.ask(get, Opcode::Ioctl, file.node, &[input(read, 0, size).as_bytes()], room)?;
        let now = body
            .get(size_of::<wire::IoctlOut>()..room)
            .map_or_else(|| vec![0; size as usize], <[u8]>::to_vec);
        session.ask(
            set,
            Opcode::Ioctl,
            file.node,
            &[input(write, size, 0).as_bytes(), &now],
            room,
        )?;
    }
    let input = wire::IoctlIn {
        fh: file.handle,
        cmd: OF_A_TERMINAL,
        ..zeros()
    };
    session.ask_in_vain(
        "of a driver",
        Opcode::Ioctl,
        file.node,
        &[input.as_bytes()],
        libc::ENOTTY,
    )
}

/// SETATTR of an open file, and of its size.
fn change(session: &mut Session<'_>, file: Open) -> Result<(), Error> {
    let owner = wire::FATTR_UID | wire::FATTR_GID;
    let (uid, gid) = (session.requests.uid, session.requests.gid);
    for (what, valid) in [
        ("size, open", wire::FATTR_SIZE | wire::FATTR_FH),
        ("size", wire::FATTR_SIZE | wire::FATTR_KILL_SUIDGID),
        ("mode, open", wire::FATTR_MODE | wire::FATTR_FH),
        ("owner, open", owner | wire::FATTR_FH),
        ("time, open", wire::FATTR_FH | wire::FATTR_MTIME | wire::FATTR_MTIME_NOW),
    ] {
        let input = wire::SetattrIn {
            valid,
            fh: file.handle,
            size: SIZE.into(),
            mode: 0o6755,
            uid,
            gid,
            ..zeros()
        };
        session.ask(what, Opcode::Setattr, file.node, &[input.as_bytes()], 256)?;
    }
    Ok(())
}

fn copy(session: &mut Session<'_>, parent: u64, file: Open) -> Result<(), Error> {
    let to = session.create(Opcode::Create, parent, "copy", libc::O_RDWR)?;
    for opcode in [Opcode::CopyFileRange, Opcode::CopyFileRange64] {
        let input = wire::CopyFileRangeIn {
            fh_in: file.handle,
            nodeid_out: to.node,
            fh_out: to.handle,
            len: SIZE.into(),
            ..zeros()
        };
        session.ask("", opcode, file.node, &[input.as_bytes()], 8)?;
    }
    session.release(Opcode::Release, to)?;
    session.ask("", Opcode::Unlink, parent, &[b"copy\0"], 0).map(drop)
}
