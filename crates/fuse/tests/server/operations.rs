//! Every operation: its bytes as a call of the file system, and the answer as bytes.

use std::time::Duration;

use fuse::fs::Errno;
use fuse::server::Server;
use fuse::wire::{self, InitFlags, Opcode};
use proptest::prelude::*;
use zerocopy::IntoBytes;

use crate::guest::{Chain, failure, init, join, numbered, request, send, success, with_header, z};
use crate::recorder::{self, Recorder};

/// A server of `fs` in a session of FUSE 7.45 with all flags it supports.
pub(crate) fn started(fs: &Recorder) -> Server<&Recorder> {
    let server = Server::new(fs);
    let reply = send(&server, &init(45, InitFlags::all()));
    assert_eq!(reply.len(), 16 + 64);
    fs.take();
    server
}

/// One request, the call it leads to, and the body of its reply.
pub(crate) struct Case {
    pub(crate) opcode: Opcode,
    pub(crate) request: Vec<u8>,
    call: &'static str,
    body: Vec<u8>,
}

fn case(opcode: Opcode, arguments: &[&[u8]], call: &'static str, body: &[&[u8]]) -> Case {
    Case {
        opcode,
        request: request(opcode, 7, &join(arguments)),
        call,
        body: join(body),
    }
}

fn entry_out() -> wire::EntryOut {
    wire::EntryOut {
        nodeid: 42,
        generation: 9,
        entry_valid: 3,
        attr_valid: 1,
        entry_valid_nsec: 0,
        attr_valid_nsec: 500_000_000,
        attr: recorder::attr(),
    }
}

fn dirent(plus: Option<wire::EntryOut>, inode: u64, off: u64, name: &[u8], padding: usize) -> Vec<u8> {
    let dirent = wire::Dirent {
        ino: inode,
        off,
        namelen: name.len() as u32,
        kind: 4,
    };
    let entry = plus.map_or(Vec::new(), |entry| entry.as_bytes().to_vec());
    join(&[&entry, dirent.as_bytes(), name, &[0; 8][..padding]])
}

/// The table: every operation that a file system is asked.
pub(crate) fn cases() -> Vec<Case> {
    use Opcode::*;
    let entry = &entry_out();
    let entry = entry.as_bytes();
    let opened = |fh, open_flags| wire::OpenOut {
        fh,
        open_flags,
        backing_id: 0,
    };
    let (kept, cached_dir, plain) = (
        opened(77, wire::FOPEN_KEEP_CACHE),
        opened(78, wire::FOPEN_CACHE_DIR),
        opened(77, 0),
    );
    let attr = |attr_valid, attr_valid_nsec| wire::AttrOut {
        attr_valid,
        attr_valid_nsec,
        dummy: 0,
        attr: recorder::attr(),
    };
    let read = wire::ReadIn {
        fh: 77,
        offset: 4096,
        size: 300,
        ..Default::default()
    };
    let short_read = wire::ReadIn { size: 3, ..read };
    let narrow = wire::ReadIn { size: 70, ..read };
    let release = wire::ReleaseIn {
        fh: 77,
        ..Default::default()
    };
    let sync = |fsync_flags| wire::FsyncIn {
        fh: 77,
        fsync_flags,
        padding: 0,
    };
    let create = wire::CreateIn {
        flags: 0x8042,
        mode: 0o100_640,
        umask: 0o22,
        open_flags: wire::OPEN_KILL_SUIDGID,
    };
    let copy = wire::CopyFileRangeIn {
        fh_in: 1,
        off_in: 2,
        nodeid_out: 3,
        fh_out: 4,
        off_out: 5,
        len: 1 << 33,
        flags: 0,
    };
    let setattr = wire::SetattrIn {
        valid: wire::FATTR_MODE
            | wire::FATTR_UID
            | wire::FATTR_GID
            | wire::FATTR_SIZE
            | wire::FATTR_ATIME
            | wire::FATTR_MTIME
            | wire::FATTR_MTIME_NOW
            | wire::FATTR_FH
            | wire::FATTR_CTIME
            | wire::FATTR_KILL_SUIDGID,
        fh: 77,
        size: 99,
        atime: -5_i64 as u64,
        atimensec: 6,
        mode: 0o644,
        uid: 1,
        gid: 2,
        ..Default::default()
    };
    let setxattr = wire::SetxattrIn {
        size: 5,
        flags: 1,
        setxattr_flags: wire::SETXATTR_ACL_KILL_SGID,
        padding: 0,
    };
    let ioctl = wire::IoctlIn {
        fh: 77,
        flags: 0,
        cmd: 0x8008_6601,
        arg: 0xdead,
        in_size: 2,
        out_size: 8,
    };
    let xattr_size = |size| wire::GetxattrIn { size, padding: 0 };
    vec![
        case(Lookup, &[z(c"file")], "lookup 1000:100/5 7 file", &[entry]),
        case(Lookup, &[z(c"...")], "lookup 1000:100/5 7 ...", &[entry]),
        case(
            Getattr,
            &[wire::GetattrIn::default().as_bytes()],
            "getattr 1000:100/5 7 None",
            &[attr(2, 500_000_000).as_bytes()],
        ),
        case(
            Getattr,
            &[wire::GetattrIn {
                getattr_flags: wire::GETATTR_FH,
                dummy: 0,
                fh: 77,
            }
            .as_bytes()],
            "getattr 1000:100/5 7 Some(Handle(77))",
            &[attr(2, 500_000_000).as_bytes()],
        ),
        case(
            Statx,
            &[wire::StatxIn {
                getattr_flags: 1,
                reserved: 0,
                fh: 77,
                sx_flags: 0x100,
                sx_mask: 0xfff,
            }
            .as_bytes()],
            "statx 1000:100/5 7 Some(Handle(77)) 100 fff",
            &[wire::StatxOut {
                attr_valid: 1,
                stat: wire::Statx {
                    mask: 0x7ff,
                    ino: 42,
                    ..Default::default()
                },
                ..Default::default()
            }
            .as_bytes()],
        ),
        case(
            Setattr,
            &[setattr.as_bytes()],
            "setattr 1000:100/5 7 SetAttr { handle: Some(Handle(77)), mode: Some(420), uid: Some(1), gid: Some(2), \
             size: Some(99), atime: Some(At(-5, 6)), mtime: Some(Now), kill_suid_gid: true }",
            &[attr(0, 0).as_bytes()],
        ),
        case(Readlink, &[], "readlink 1000:100/5 7", &[b"../target"]),
        case(
            Symlink,
            &[z(c"name"), z(c"/a/b")],
            "symlink 1000:100/5 7 name \"/a/b\"",
            &[entry],
        ),
        case(
            Mknod,
            &[
                wire::MknodIn {
                    mode: 0o20_600,
                    rdev: 0x501,
                    umask: 0o77,
                    padding: 0,
                }
                .as_bytes(),
                z(c"null"),
            ],
            "mknod 1000:100/5 7 null mode=20600 umask=77 flags=0 device=501",
            &[entry],
        ),
        case(
            Mkdir,
            &[
                wire::MkdirIn {
                    mode: 0o755,
                    umask: 0o22,
                }
                .as_bytes(),
                z(c"dir"),
            ],
            "mkdir 1000:100/5 7 dir mode=755 umask=22 flags=0 device=0",
            &[entry],
        ),
        case(Unlink, &[z(c"file")], "unlink 1000:100/5 7 file", &[]),
        case(Rmdir, &[z(c"dir")], "rmdir 1000:100/5 7 dir", &[]),
        case(
            Rename,
            &[wire::RenameIn { newdir: 8 }.as_bytes(), z(c"old"), z(c"new")],
            "rename 1000:100/5 (7, \"old\") (8, \"new\") 0",
            &[],
        ),
        case(
            Rename2,
            &[
                wire::Rename2In {
                    newdir: 8,
                    flags: 4,
                    padding: 0,
                }
                .as_bytes(),
                z(c"old"),
                z(c"new"),
            ],
            "rename 1000:100/5 (7, \"old\") (8, \"new\") 4",
            &[],
        ),
        case(
            Link,
            &[wire::LinkIn { oldnodeid: 6 }.as_bytes(), z(c"hard")],
            "link 1000:100/5 6 7 hard",
            &[entry],
        ),
        case(
            Open,
            &[wire::OpenIn {
                flags: 0x8002,
                open_flags: wire::OPEN_KILL_SUIDGID,
            }
            .as_bytes()],
            "open 1000:100/5 7 8002 true",
            &[kept.as_bytes()],
        ),
        case(
            Create,
            &[create.as_bytes(), z(c"new")],
            "create 1000:100/5 7 new mode=100640 umask=22 flags=8042 device=0 true",
            &[entry, plain.as_bytes()],
        ),
        // Linux gives a file without a name the name "/".
        case(
            Tmpfile,
            &[create.as_bytes(), z(c"/")],
            "tmpfile 1000:100/5 7 mode=100640 umask=22 flags=8042 device=0",
            &[entry, plain.as_bytes()],
        ),
        case(Read, &[read.as_bytes()], "read 7 77 4096 300", &[b"contents"]),
        case(Read, &[short_read.as_bytes()], "read 7 77 4096 3", &[b"con"]),
        case(
            Write,
            &[
                wire::WriteIn {
                    fh: 77,
                    offset: 9,
                    size: 4,
                    write_flags: 4,
                    flags: 0x401,
                    ..Default::default()
                }
                .as_bytes(),
                b"data",
            ],
            "write 1000:100/5 7 77 9 4 401 data",
            &[wire::WriteOut { size: 4, padding: 0 }.as_bytes()],
        ),
        case(
            Flush,
            &[wire::FlushIn {
                fh: 77,
                ..Default::default()
            }
            .as_bytes()],
            "flush 7 77",
            &[],
        ),
        case(Release, &[release.as_bytes()], "release 7 77", &[]),
        case(Fsync, &[sync(0).as_bytes()], "fsync 7 77 false", &[]),
        case(Fsync, &[sync(1).as_bytes()], "fsync 7 77 true", &[]),
        case(Syncfs, &[&[0; 8]], "syncfs 7", &[]),
        case(Opendir, &[&[0; 8]], "opendir 1000:100/5 7 0", &[cached_dir.as_bytes()]),
        case(
            Readdir,
            &[read.as_bytes()],
            "readdir 1000:100/5 7 77 4096 false",
            &[
                &dirent(None, 100, 1, b".", 7),
                &dirent(None, 101, 2, b"eight_by", 0),
                &dirent(None, 102, 3, b"last one", 0),
            ],
        ),
        // What does not fit in the size asked for stays out as a whole.
        case(
            Readdir,
            &[narrow.as_bytes()],
            "readdir 1000:100/5 7 77 4096 false",
            &[&dirent(None, 100, 1, b".", 7), &dirent(None, 101, 2, b"eight_by", 0)],
        ),
        case(
            Readdirplus,
            &[wire::ReadIn { size: 320, ..read }.as_bytes()],
            "readdir 1000:100/5 7 77 4096 true",
            &[
                &dirent(Some(wire::EntryOut::default()), 100, 1, b".", 7),
                &dirent(Some(entry_out()), 101, 2, b"eight_by", 0),
            ],
        ),
        case(Releasedir, &[release.as_bytes()], "releasedir 7 77", &[]),
        case(Fsyncdir, &[sync(1).as_bytes()], "fsyncdir 7 77 true", &[]),
        case(
            Statfs,
            &[],
            "statfs 7",
            &[wire::Statfs {
                blocks: 1000,
                bfree: 10,
                bsize: 4096,
                namelen: 255,
                ..Default::default()
            }
            .as_bytes()],
        ),
        case(
            Access,
            &[wire::AccessIn { mask: 4, padding: 0 }.as_bytes()],
            "access 1000:100/5 7 4",
            &[],
        ),
        case(
            Setxattr,
            &[setxattr.as_bytes(), z(c"user.a"), b"va\0ue"],
            "setxattr 1000:100/5 7 \"user.a\" va\\x00ue 1 true",
            &[],
        ),
        case(
            Getxattr,
            &[xattr_size(0).as_bytes(), z(c"user.a")],
            "getxattr 1000:100/5 7 \"user.a\" 0",
            &[wire::GetxattrOut { size: 5, padding: 0 }.as_bytes()],
        ),
        case(
            Getxattr,
            &[xattr_size(5).as_bytes(), z(c"user.a")],
            "getxattr 1000:100/5 7 \"user.a\" 5",
            &[b"value"],
        ),
        case(
            Listxattr,
            &[xattr_size(0).as_bytes()],
            "listxattr 1000:100/5 7 0",
            &[wire::GetxattrOut { size: 14, padding: 0 }.as_bytes()],
        ),
        case(
            Listxattr,
            &[xattr_size(64).as_bytes()],
            "listxattr 1000:100/5 7 64",
            &[b"user.a\0user.b\0"],
        ),
        case(Removexattr, &[z(c"user.a")], "removexattr 1000:100/5 7 \"user.a\"", &[]),
        case(
            Fallocate,
            &[wire::FallocateIn {
                fh: 77,
                offset: 1,
                length: 2,
                mode: 3,
                padding: 0,
            }
            .as_bytes()],
            "fallocate 1000:100/5 7 77 3 1 2",
            &[],
        ),
        case(
            Lseek,
            &[wire::LseekIn {
                fh: 77,
                offset: 5,
                whence: 3,
                padding: 0,
            }
            .as_bytes()],
            "lseek 7 77 5 3",
            &[wire::LseekOut { offset: 1 << 40 }.as_bytes()],
        ),
        // A count of 32 bits: the file system is asked for no more than can be answered.
        case(
            CopyFileRange,
            &[copy.as_bytes()],
            "copy_file_range 1000:100/5 CopyRange { from: (NodeId(7), Handle(1), 2), to: (NodeId(3), Handle(4), 5), \
             len: 4294963200, flags: 0 }",
            &[wire::WriteOut {
                size: 0xffff_f000,
                padding: 0,
            }
            .as_bytes()],
        ),
        case(
            CopyFileRange64,
            &[copy.as_bytes()],
            "copy_file_range 1000:100/5 CopyRange { from: (NodeId(7), Handle(1), 2), to: (NodeId(3), Handle(4), 5), \
             len: 8589934592, flags: 0 }",
            &[wire::CopyFileRangeOut { bytes_copied: 1 << 33 }.as_bytes()],
        ),
        case(
            Ioctl,
            &[ioctl.as_bytes(), b"in"],
            "ioctl 1000:100/5 7 77 80086601 in 8",
            &[wire::IoctlOut::default().as_bytes(), b"flag"],
        ),
    ]
}

#[test]
fn each_operation_reaches_the_file_system_and_its_answer_the_guest() {
    let fs = Recorder::default();
    let server = started(&fs);
    for case in cases() {
        let reply = send(&server, &case.request);
        assert_eq!(fs.take(), [case.call], "{:?}", case.opcode);
        assert_eq!(reply, success(&case.body), "{:?}", case.opcode);
    }
}

#[test]
fn every_opcode_is_in_the_table_or_answered_without_the_file_system() {
    let fs = Recorder::default();
    let server = started(&fs);
    let table: Vec<Opcode> = cases().iter().map(|case| case.opcode).collect();
    let by_session = [
        Opcode::Init,
        Opcode::Destroy,
        Opcode::Forget,
        Opcode::BatchForget,
        Opcode::Interrupt,
    ];
    for opcode in Opcode::ALL {
        if table.contains(opcode) || by_session.contains(opcode) {
            continue;
        }
        assert_eq!(
            send(&server, &request(*opcode, 7, &[0; 64])),
            failure(libc::ENOSYS),
            "{opcode:?}"
        );
    }
    for number in [0, 7, 19, 54, 4096, 1 << 20, u32::MAX] {
        assert_eq!(
            send(&server, &numbered(number, 7, &[])),
            failure(libc::ENOSYS),
            "{number}"
        );
    }
    assert!(fs.take().is_empty());
}

#[test]
fn an_error_is_the_whole_reply() {
    let fs = Recorder::default();
    let server = started(&fs);
    fs.fail(Errno::ESTALE);
    for case in cases() {
        let reply = send(&server, &case.request);
        if matches!(case.opcode, Opcode::Readdir | Opcode::Readdirplus) {
            // The entries that were added before the error count, since the guest may hold nodes by them.
            assert_eq!(reply, success(&case.body), "{:?}", case.opcode);
        } else {
            assert_eq!(reply, failure(libc::ESTALE), "{:?}", case.opcode);
        }
    }
    let read = wire::ReadIn {
        size: 8,
        ..Default::default()
    };
    assert_eq!(
        send(&server, &request(Opcode::Readdir, 7, read.as_bytes())),
        failure(libc::ESTALE)
    );
}

#[test]
fn an_absence_that_may_be_trusted_has_node_0_and_its_timeout() {
    struct Nothing(Duration);
    impl fuse::fs::FileSystem for Nothing {
        fn wants(&self, offered: InitFlags) -> InitFlags {
            offered
        }
        fn lookup(
            &self,
            _: &fuse::fs::Caller,
            _: fuse::fs::NodeId,
            _: fuse::fs::Name<'_>,
        ) -> fuse::fs::Result<fuse::fs::Entry> {
            Err(fuse::fs::Errno::ENOENT)
        }
        fn absence_timeout(&self) -> Duration {
            self.0
        }
    }
    let server = Server::new(Nothing(Duration::from_millis(2500)));
    send(&server, &init(45, InitFlags::all()));
    let absent = wire::EntryOut {
        entry_valid: 2,
        entry_valid_nsec: 500_000_000,
        ..Default::default()
    };
    assert_eq!(
        send(&server, &request(Opcode::Lookup, 1, z(c"absent"))),
        success(absent.as_bytes())
    );
    let server = Server::new(Nothing(Duration::ZERO));
    send(&server, &init(45, InitFlags::all()));
    assert_eq!(
        send(&server, &request(Opcode::Lookup, 1, z(c"absent"))),
        failure(libc::ENOENT)
    );
    // The methods it leaves out.
    assert_eq!(
        send(&server, &request(Opcode::Unlink, 1, z(c"absent"))),
        failure(libc::ENOSYS)
    );
}

#[test]
fn setxattr_is_short_unless_the_long_form_was_agreed_on() {
    let fs = Recorder::default();
    let server = Server::new(&fs);
    send(&server, &init(45, InitFlags::all() - InitFlags::SETXATTR_EXT));
    fs.take();
    let arguments = join(&[
        wire::SetxattrShortIn { size: 2, flags: 2 }.as_bytes(),
        z(c"user.a"),
        b"va",
    ]);
    assert_eq!(send(&server, &request(Opcode::Setxattr, 7, &arguments)), success(&[]));
    assert_eq!(fs.take(), ["setxattr 1000:100/5 7 \"user.a\" va 2 false"]);
}

/// MKDIR with `extensions` behind its name.
fn extended(extensions: &[u8]) -> Vec<u8> {
    let arguments = join(&[wire::MkdirIn::default().as_bytes(), z(c"dir"), extensions]);
    with_header(request(Opcode::Mkdir, 7, &arguments), |header| {
        header.total_extlen = extensions.len() as u16 / 8;
    })
}

fn groups(list: &[u32]) -> Vec<u8> {
    let size = wire::record_length(12 + 4 * list.len());
    let mut bytes = join(&[
        wire::ExtHeader {
            size: size as u32,
            kind: wire::EXT_GROUPS,
        }
        .as_bytes(),
        &[list.len() as u8, 0, 0, 0],
        list.as_bytes(),
    ]);
    bytes.resize(size, 0);
    bytes
}

#[test]
fn one_supplementary_group_comes_with_an_extension() {
    let fs = Recorder::default();
    let server = started(&fs);
    // One security context with 8 bytes, which nobody asked for, in front.
    let context = join(&[wire::ExtHeader { size: 24, kind: 1 }.as_bytes(), &[0x55; 16]]);
    // The same, with a size that leaves the padding out.
    let unpadded = join(&[wire::ExtHeader { size: 20, kind: 1 }.as_bytes(), &[0x55; 16]]);
    for (extensions, caller) in [
        (groups(&[33]), "1000:100+33/5"),
        (groups(&[]), "1000:100/5"),
        (join(&[&context, &groups(&[33])]), "1000:100+33/5"),
        (join(&[&unpadded, &groups(&[33])]), "1000:100+33/5"),
    ] {
        assert_eq!(send(&server, &extended(&extensions))[4..8], [0; 4]);
        assert_eq!(
            fs.take(),
            [format!("mkdir {caller} 7 dir mode=0 umask=0 flags=0 device=0")]
        );
    }
    for malformed in [
        groups(&[33, 34]),
        join(&[wire::ExtHeader {
            size: 0,
            kind: wire::EXT_GROUPS,
        }
        .as_bytes()]),
        join(&[wire::ExtHeader { size: 7, kind: 0 }.as_bytes()]),
        join(&[wire::ExtHeader { size: 16, kind: 0 }.as_bytes()]),
        join(&[wire::ExtHeader {
            size: u32::MAX,
            kind: 0,
        }
        .as_bytes()]),
        join(&[wire::ExtHeader {
            size: 8,
            kind: wire::EXT_GROUPS,
        }
        .as_bytes()]),
    ] {
        assert_eq!(
            send(&server, &extended(&malformed)),
            failure(libc::EINVAL),
            "{malformed:?}"
        );
    }
    let beyond = with_header(request(Opcode::Rmdir, 7, z(c"dir")), |header| header.total_extlen = 1);
    assert_eq!(send(&server, &beyond), failure(libc::EINVAL));
    assert!(fs.take().is_empty());
}

#[test]
fn a_supplementary_group_that_was_not_agreed_on_is_ignored() {
    let fs = Recorder::default();
    let server = Server::new(&fs);
    send(&server, &init(45, InitFlags::all() - InitFlags::CREATE_SUPP_GROUP));
    fs.take();
    send(&server, &extended(&groups(&[33])));
    assert_eq!(fs.take(), ["mkdir 1000:100/5 7 dir mode=0 umask=0 flags=0 device=0"]);
}

#[test]
fn a_reply_without_enough_room_is_an_error_before_anything_is_done() {
    let fs = Recorder::default();
    let server = started(&fs);
    for case in cases() {
        let whole = success(&case.body).len();
        let errno = match case.opcode {
            // These need the size they name, whatever they find; the target of a link is measured when it is there.
            Opcode::Read | Opcode::Readdir | Opcode::Readdirplus | Opcode::Ioctl | Opcode::Readlink => None,
            Opcode::Getxattr | Opcode::Listxattr => Some(libc::ERANGE),
            _ => (whole > 16).then_some(libc::EINVAL),
        };
        if let Some(errno) = errno {
            let chain = Chain::new(&case.request, whole - 1, &[usize::MAX]);
            assert_eq!(chain.send(&server), failure(errno), "{:?}", case.opcode);
        }
        // Without room for a header there is nothing to say, and nothing is done.
        assert!(Chain::new(&case.request, 15, &[usize::MAX]).send(&server).is_empty());
        assert!(fs.take().is_empty(), "{:?}", case.opcode);
    }
    let ioctl = wire::IoctlIn {
        out_size: 8,
        ..Default::default()
    };
    let chain = Chain::new(&request(Opcode::Ioctl, 7, ioctl.as_bytes()), 16 + 16 + 7, &[usize::MAX]);
    assert_eq!(chain.send(&server), failure(libc::EINVAL));
    let read = wire::ReadIn {
        size: 100,
        ..Default::default()
    };
    for opcode in [Opcode::Read, Opcode::Readdir, Opcode::Readdirplus] {
        let chain = Chain::new(&request(opcode, 7, read.as_bytes()), 16 + 99, &[usize::MAX]);
        assert_eq!(chain.send(&server), failure(libc::EINVAL), "{opcode:?}");
    }
    assert!(fs.take().is_empty());
    let chain = Chain::new(&request(Opcode::Readlink, 7, &[]), 16 + 8, &[usize::MAX]);
    assert_eq!(chain.send(&server), failure(libc::ENAMETOOLONG));
}

#[test]
fn a_value_longer_than_asked_for_is_erange() {
    let fs = Recorder::default();
    let server = started(&fs);
    let arguments = join(&[wire::GetxattrIn { size: 4, padding: 0 }.as_bytes(), z(c"user.a")]);
    assert_eq!(
        send(&server, &request(Opcode::Getxattr, 7, &arguments)),
        failure(libc::ERANGE)
    );
}

proptest! {
    /// VIRTIO 1.2 2.7.4.1: nothing may depend on how a request is cut into descriptors.
    #[test]
    fn the_cut_of_a_chain_changes_nothing(cuts in prop::collection::vec(1_usize..50, 1..10)) {
        let fs = Recorder::default();
        let server = started(&fs);
        for case in cases() {
            let reply = Chain::new(&case.request, 8192, &cuts).send(&server);
            prop_assert_eq!(reply, success(&case.body));
            prop_assert_eq!(fs.take(), [case.call]);
        }
    }
}

#[test]
fn requests_carry_the_number_they_are_answered_with() {
    let fs = Recorder::default();
    let server = started(&fs);
    let reply = send(
        &server,
        &with_header(request(Opcode::Statfs, 7, &[]), |header| header.unique = 1 << 63 | 1),
    );
    assert_eq!(reply[8..16], (1_u64 << 63 | 1).to_ne_bytes());
}
