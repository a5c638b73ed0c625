//! Directories, names and attributes.

use driver::Error;
use fuse::wire::{self, InitFlags, Opcode};
use zerocopy::IntoBytes;

use super::session::{Session, zeros};

const ENTRIES: usize = 64;
/// Names with values; the capability is of version 2 (linux/capability.h).
const ATTRIBUTES: [(&str, &[u8]); 4] = [
    ("user.innkeeper", b"value"),
    ("trusted.innkeeper", b"value"),
    (
        "security.capability",
        &[0, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ),
    ("system.posix_acl_access", &ACL),
];
/// `struct posix_acl_xattr_header` and its entries: owner, user 1000, group, mask, others.
const ACL: [u8; 44] = [
    2, 0, 0, 0, // version
    1, 0, 6, 0, 255, 255, 255, 255, // ACL_USER_OBJ
    2, 0, 4, 0, 232, 3, 0, 0, // ACL_USER
    4, 0, 4, 0, 255, 255, 255, 255, // ACL_GROUP_OBJ
    16, 0, 4, 0, 255, 255, 255, 255, // ACL_MASK
    32, 0, 4, 0, 255, 255, 255, 255, // ACL_OTHER
];

/// Makes, finds, renames and removes names in `parent`.
pub(super) fn names(session: &mut Session<'_>, parent: u64) -> Result<(), Error> {
    let missing: &[&[u8]] = &[b"missing\0"];
    session.ask_in_vain("missing", Opcode::Lookup, parent, missing, libc::ENOENT)?;
    let input = wire::MkdirIn {
        mode: libc::S_IFDIR | 0o2755,
        umask: 0o022,
    };
    let directory = session.node("", Opcode::Mkdir, parent, &[input.as_bytes(), b"directory\0"])?;
    let root = session.requests.uid == 0;
    let mut made = Vec::new();
    for (what, name, kind) in [
        ("file", "file", libc::S_IFREG),
        ("FIFO", "fifo", libc::S_IFIFO),
        ("socket", "socket", libc::S_IFSOCK),
        ("character device", "character", libc::S_IFCHR),
        ("block device", "block", libc::S_IFBLK),
    ] {
        let device = matches!(kind, libc::S_IFCHR | libc::S_IFBLK);
        if device && !root {
            continue;
        }
        let input = wire::MknodIn {
            mode: kind | 0o644,
            rdev: if device { 0x103 } else { 0 },
            umask: 0o022,
            padding: 0,
        };
        let node = session.node(what, Opcode::Mknod, parent, &[input.as_bytes(), name.as_bytes(), b"\0"])?;
        if node != 0 {
            attributes(session, what, node)?;
            made.push(name);
        }
    }
    let link = session.node("", Opcode::Symlink, parent, &[b"symlink\0", b"target\0"])?;
    session.ask("", Opcode::Readlink, link, &[], 4096)?;
    attributes(session, "symbolic link", link)?;
    attributes(session, "directory", directory)?;

    let file = session.lookup(parent, "file")?;
    attributes_by_name(session, "file", file)?;
    attributes_by_name(session, "directory", directory)?;
    let input = wire::LinkIn { oldnodeid: file };
    session.node("", Opcode::Link, parent, &[input.as_bytes(), b"hard\0"])?;
    let input = wire::LinkIn { oldnodeid: link };
    session.node("symbolic link", Opcode::Link, parent, &[input.as_bytes(), b"soft\0"])?;
    let input = wire::RenameIn { newdir: directory };
    session.ask(
        "",
        Opcode::Rename,
        parent,
        &[input.as_bytes(), b"hard\0", b"moved\0"],
        0,
    )?;
    for (what, flags) in [
        ("RENAME_NOREPLACE", libc::RENAME_NOREPLACE),
        ("RENAME_EXCHANGE", libc::RENAME_EXCHANGE),
        ("RENAME_WHITEOUT", libc::RENAME_WHITEOUT),
    ] {
        let input = wire::Rename2In {
            newdir: parent,
            flags,
            padding: 0,
        };
        let new: &[u8] = if flags == libc::RENAME_EXCHANGE {
            b"socket\0"
        } else {
            b"renamed\0"
        };
        session.ask(what, Opcode::Rename2, parent, &[input.as_bytes(), b"fifo\0", new], 0)?;
        if flags == libc::RENAME_NOREPLACE {
            session.ask(
                "back",
                Opcode::Rename2,
                parent,
                &[input.as_bytes(), b"renamed\0", b"fifo\0"],
                0,
            )?;
        }
    }
    list(session, parent)?;
    session.ask("", Opcode::Unlink, directory, &[b"moved\0"], 0)?;
    // A whiteout has the name of the FIFO now.
    for name in made.into_iter().chain(["renamed", "symlink", "soft"]) {
        session.ask("", Opcode::Unlink, parent, &[name.as_bytes(), b"\0"], 0)?;
    }
    session.ask(
        "without a name",
        Opcode::Getattr,
        file,
        &[wire::GetattrIn::default().as_bytes()],
        256,
    )?;
    session.ask("", Opcode::Rmdir, parent, &[b"directory\0"], 0)?;
    let input = wire::ForgetIn { nlookup: 1 };
    session.tell(Opcode::Forget, directory, &[input.as_bytes()])?;
    let one = wire::ForgetOne {
        nodeid: link,
        nlookup: 1,
    };
    let input = wire::BatchForgetIn { count: 1, dummy: 0 };
    session.tell(Opcode::BatchForget, 0, &[input.as_bytes(), one.as_bytes()])
}

/// STATFS, ACCESS, GETATTR, STATX and SETATTR.
fn attributes(session: &mut Session<'_>, what: &str, node: u64) -> Result<(), Error> {
    session.ask(
        what,
        Opcode::Getattr,
        node,
        &[wire::GetattrIn::default().as_bytes()],
        256,
    )?;
    let input = wire::StatxIn {
        sx_mask: libc::STATX_ALL,
        ..zeros()
    };
    session.ask(what, Opcode::Statx, node, &[input.as_bytes()], 512)?;
    session.ask(what, Opcode::Statfs, node, &[], size_of::<wire::Statfs>())?;
    for mask in [libc::F_OK, libc::R_OK] {
        let input = wire::AccessIn {
            mask: mask.cast_unsigned(),
            padding: 0,
        };
        session.ask(what, Opcode::Access, node, &[input.as_bytes()], 0)?;
    }
    let (uid, gid) = (session.requests.uid, session.requests.gid);
    let owner = wire::FATTR_UID | wire::FATTR_GID | wire::FATTR_KILL_SUIDGID | wire::FATTR_CTIME;
    let now = wire::FATTR_ATIME_NOW | wire::FATTR_MTIME_NOW;
    for (change, valid) in [
        ("mode", wire::FATTR_MODE),
        ("owner", owner),
        ("times", wire::FATTR_ATIME | wire::FATTR_MTIME),
        ("time", wire::FATTR_ATIME | wire::FATTR_MTIME | now),
    ] {
        if valid == wire::FATTR_MODE && what == "symbolic link" {
            continue;
        }
        let input = wire::SetattrIn {
            valid,
            mode: 0o2755,
            uid,
            gid,
            atime: 1,
            mtime: 1,
            ..zeros()
        };
        session.ask(
            &format!("{change} of {what}"),
            Opcode::Setattr,
            node,
            &[input.as_bytes()],
            256,
        )?;
    }
    Ok(())
}

/// SETXATTR, GETXATTR, LISTXATTR and REMOVEXATTR.
fn attributes_by_name(session: &mut Session<'_>, what: &str, node: u64) -> Result<(), Error> {
    for (name, value) in ATTRIBUTES {
        let root = session.requests.uid == 0;
        let acl = name.starts_with("system.");
        if acl && !session.has(InitFlags::POSIX_ACL) {
            continue;
        }
        // Only root may set these two, the first by an option, and only a file has the latter.
        if name.starts_with("trusted.") && !(root && session.trusted)
            || name.starts_with("security.") && (!root || what != "file")
        {
            continue;
        }
        let what = format!("{name} of {what}");
        let name = [name.as_bytes(), b"\0"].concat();
        let input = wire::SetxattrIn {
            size: u32::try_from(value.len()).unwrap_or_default(),
            setxattr_flags: wire::SETXATTR_ACL_KILL_SGID,
            ..zeros()
        };
        // The longer form takes SETXATTR_EXT.
        let form = size_of::<wire::SetxattrShortIn>();
        let form = if session.has(InitFlags::SETXATTR_EXT) {
            input.as_bytes()
        } else {
            &input.as_bytes()[..form]
        };
        session.ask(&what, Opcode::Setxattr, node, &[form, &name, value], 0)?;
        for size in [0, 4096] {
            let input = wire::GetxattrIn { size, padding: 0 };
            session.ask(&what, Opcode::Getxattr, node, &[input.as_bytes(), &name], 4096)?;
            session.ask(&what, Opcode::Listxattr, node, &[input.as_bytes()], 4096)?;
        }
        session.ask(&what, Opcode::Removexattr, node, &[&name], 0)?;
    }
    Ok(())
}

/// OPENDIR, READDIR, READDIRPLUS, FSYNCDIR and RELEASEDIR.
fn list(session: &mut Session<'_>, parent: u64) -> Result<(), Error> {
    for number in 0..ENTRIES {
        let opened = session.create(Opcode::Create, parent, &format!("entry{number}"), libc::O_RDWR)?;
        session.release(Opcode::Release, opened)?;
    }
    let opened = session.open("", Opcode::Opendir, parent, libc::O_RDONLY)?;
    for opcode in [Opcode::Readdir, Opcode::Readdirplus] {
        for offset in [0, 2] {
            let input = wire::ReadIn {
                fh: opened.handle,
                offset,
                size: 8192,
                ..zeros()
            };
            session.ask("", opcode, parent, &[input.as_bytes()], 8192)?;
        }
    }
    for fsync_flags in [0, wire::FSYNC_FDATASYNC] {
        let input = wire::FsyncIn {
            fh: opened.handle,
            fsync_flags,
            padding: 0,
        };
        session.ask("", Opcode::Fsyncdir, parent, &[input.as_bytes()], 0)?;
    }
    session.release(Opcode::Releasedir, opened)?;
    for number in 0..ENTRIES {
        let name = format!("entry{number}\0");
        session.ask("", Opcode::Unlink, parent, &[name.as_bytes()], 0)?;
    }
    Ok(())
}
