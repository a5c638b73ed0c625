//! Reading, writing, attributes and everything else on open files.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, symlink};

use fuse::fs::{Caller, CopyRange, Errno, FileSystem, Handle, NodeId, SetAttr, SetTime, WriteTo};
use fuse::passthrough::{CacheMode, Options, Passthrough};
use fuse::wire::{self, InitFlags};
use guestmem::{Memory, Pieces, Writer};

use crate::broken::{Broken, PAGE};
use crate::share::{IDENTITIES, ROOT, Share, USER, at, by, create, is_root, name, refused, share};

#[test]
fn reads_and_writes_reach_the_file() {
    for identity in IDENTITIES {
        let share = share(by(identity));
        fs::write(share.host("f"), "0123456789").unwrap();
        let node = share.node(c"f");
        let handle = share.open(node, libc::O_RDWR).unwrap();
        assert_eq!(share.read(node, handle, 2, 6).unwrap(), b"234567");
        assert_eq!(
            share.read(node, handle, 8, 6).unwrap(),
            b"89",
            "short at the end of the file"
        );
        assert_eq!(share.read(node, handle, 80, 6).unwrap(), b"");
        assert_eq!(share.write(&ROOT, node, at(handle, 8, 4), b"ABCD").unwrap(), 4);
        assert_eq!(fs::read(share.host("f")).unwrap(), b"01234567ABCD");
        share.fs.fsync(node, handle, true).unwrap();
        share.fs.flush(node, handle).unwrap();
        share.fs.syncfs(NodeId::ROOT).unwrap();
        share.fs.release(node, handle).unwrap();
        assert_eq!(refused(share.read(node, handle, 0, 1)), Errno::EBADF);
        assert_eq!(refused(share.fs.release(node, handle)), Errno::EBADF);
    }
}

/// The guest takes a short answer for the end of the file.
#[test]
fn a_read_that_fails_behind_its_first_bytes_fails() {
    let Broken { share, node, good, .. } = &Broken::new();
    let handle = share.open(*node, libc::O_RDONLY).unwrap();
    let good_alone = share.read(*node, handle, *good, PAGE).unwrap();
    assert_eq!(good_alone.len(), PAGE as usize);
    let read = share.read(*node, handle, *good, 2 * PAGE);
    assert_eq!(read.map(|bytes| bytes.len()), Err(Errno::EIO));
}

/// Linux looks at the error of pages that it writes back, never at the count.
#[test]
fn a_write_that_fails_behind_its_first_bytes_is_short_unless_it_is_of_cached_pages() {
    let Broken { share, node, good, .. } = &Broken::new();
    let handle = share.open(*node, libc::O_RDWR).unwrap();
    let data = [7; 2 * PAGE as usize];
    let ordinary = at(handle, *good, data.len());
    let cached = WriteTo {
        flags: wire::WRITE_CACHE,
        ..ordinary
    };
    assert_eq!(share.write(&ROOT, *node, ordinary, &data), Ok(PAGE));
    assert_eq!(share.write(&ROOT, *node, cached, &data), Err(Errno::EIO));
}

#[test]
fn a_handle_is_good_for_its_node_and_mode_only() {
    let share = share(Options::default());
    fs::write(share.host("f"), "x").unwrap();
    fs::write(share.host("g"), "y").unwrap();
    let (f, g) = (share.node(c"f"), share.node(c"g"));
    let handle = share.open(f, libc::O_RDONLY).unwrap();
    assert_eq!(refused(share.read(g, handle, 0, 1)), Errno::EBADF);
    assert_eq!(refused(share.write(&ROOT, f, at(handle, 0, 1), b"z")), Errno::EBADF);
    assert_eq!(refused(share.read(f, Handle(0), 0, 1)), Errno::EBADF);
    let directory = share.fs.opendir(&ROOT, NodeId::ROOT, 0).unwrap().handle;
    assert_eq!(refused(share.read(NodeId::ROOT, directory, 0, 1)), Errno::EBADF);
    assert_eq!(refused(share.open(NodeId::ROOT, libc::O_RDONLY)), Errno::EISDIR);
    assert_eq!(refused(share.fs.opendir(&ROOT, f, 0)), Errno::ENOTDIR);
}

#[test]
fn appending_goes_by_the_flags_of_the_moment() {
    let share = share(Options::default());
    fs::write(share.host("f"), "0123456789").unwrap();
    let node = share.node(c"f");
    let handle = share.open(node, libc::O_RDWR | libc::O_APPEND).unwrap();
    let append = |offset| WriteTo {
        open_flags: libc::O_APPEND as u32,
        ..at(handle, offset, 1)
    };
    // Grown on the host since the guest looked: appended all the same.
    share.write(&ROOT, node, append(3), b"a").unwrap();
    assert_eq!(fs::read(share.host("f")).unwrap(), b"0123456789a");
    // fcntl(F_SETFL) took O_APPEND away.
    share.write(&ROOT, node, at(handle, 0, 1), b"b").unwrap();
    // A page of a shared mapping has its place.
    share
        .write(
            &ROOT,
            node,
            WriteTo {
                flags: wire::WRITE_CACHE,
                ..append(1)
            },
            b"c",
        )
        .unwrap();
    assert_eq!(fs::read(share.host("f")).unwrap(), b"bc23456789a");
}

#[test]
fn the_writeback_cache_reads_what_it_writes_in_part() {
    let share = share(Options {
        writeback: true,
        ..Options::default()
    });
    fs::write(share.host("f"), "0123").unwrap();
    let node = share.node(c"f");
    let handle = share.open(node, libc::O_WRONLY | libc::O_APPEND).unwrap();
    assert_eq!(share.read(node, handle, 0, 4).unwrap(), b"0123");
    let to = WriteTo {
        open_flags: (libc::O_WRONLY | libc::O_APPEND) as u32,
        ..at(handle, 1, 1)
    };
    share.write(&ROOT, node, to, b"x").unwrap();
    assert_eq!(
        fs::read(share.host("f")).unwrap(),
        b"0x23",
        "the guest knows where the end is"
    );
}

/// `fuse_lseek` writes no pages back before it asks, and takes ENOSYS for "all is data".
#[test]
fn holes_are_not_told_to_a_guest_that_may_have_data_in_them() {
    let hole = |cache, writeback| {
        let share = share(Options {
            cache,
            writeback,
            ..Options::default()
        });
        fs::File::create(share.host("f")).unwrap().set_len(1 << 20).unwrap();
        let node = share.node(c"f");
        let handle = share.open(node, libc::O_RDONLY).unwrap();
        share.fs.lseek(node, handle, 0, libc::SEEK_HOLE as u32)
    };
    assert_eq!(hole(CacheMode::Auto, false), Ok(0));
    assert_eq!(hole(CacheMode::Metadata, true), Ok(0));
    assert_eq!(hole(CacheMode::Auto, true), Err(Errno::ENOSYS));
    assert_eq!(hole(CacheMode::Always, false), Err(Errno::ENOSYS));
}

/// What goes past the guest's cache has neither its order of writes nor its fsync (`fuse_direct_write_iter`).
#[test]
fn writing_back_is_for_guests_that_cache_contents() {
    let wants = |cache| {
        let share = share(Options {
            cache,
            writeback: true,
            ..Options::default()
        });
        share.fs.wants(InitFlags::all()).contains(InitFlags::WRITEBACK_CACHE)
    };
    assert!(wants(CacheMode::Auto) && wants(CacheMode::Always));
    assert!(!wants(CacheMode::Never) && !wants(CacheMode::Metadata));
}

#[test]
fn open_flags_follow_the_cache_mode() {
    let opened = |cache| {
        let share = share(Options {
            cache,
            ..Options::default()
        });
        fs::write(share.host("f"), "x").unwrap();
        let flags = share.fs.open(&ROOT, share.node(c"f"), 0, false).unwrap().flags & !wire::FOPEN_NOFLUSH;
        (flags, share.fs.opendir(&ROOT, NodeId::ROOT, 0).unwrap().flags)
    };
    let direct = wire::FOPEN_DIRECT_IO | wire::FOPEN_PARALLEL_DIRECT_WRITES;
    let directory = wire::FOPEN_CACHE_DIR | wire::FOPEN_KEEP_CACHE;
    assert_eq!(opened(CacheMode::Never), (direct, 0));
    assert_eq!(opened(CacheMode::Metadata), (direct, directory));
    assert_eq!(opened(CacheMode::Auto), (0, 0));
    assert_eq!(opened(CacheMode::Always), (wire::FOPEN_KEEP_CACHE, directory));
}

#[test]
fn only_what_is_implemented_and_offered_is_wanted() {
    let wants = |options| {
        let share = share(options);
        assert_eq!(share.fs.wants(InitFlags::empty()), InitFlags::empty());
        share.fs.wants(InitFlags::all())
    };
    let all = wants(Options {
        posix_acl: true,
        writeback: true,
        allow_mmap: true,
        ..Options::default()
    });
    let not_ours = InitFlags::POSIX_LOCKS
        | InitFlags::FLOCK_LOCKS
        | InitFlags::EXPORT_SUPPORT
        | InitFlags::SECURITY_CTX
        | InitFlags::MAP_ALIGNMENT
        | InitFlags::PASSTHROUGH
        | InitFlags::OVER_IO_URING
        | InitFlags::HAS_RESEND
        | InitFlags::HANDLE_KILLPRIV;
    assert_eq!(all & not_ours, InitFlags::empty());
    assert!(all.contains(InitFlags::POSIX_ACL | InitFlags::DONT_MASK | InitFlags::SETXATTR_EXT));
    assert!(
        all.contains(InitFlags::HAS_INODE_DAX),
        "the server offers it where there is a window"
    );
    assert!(all.contains(InitFlags::WRITEBACK_CACHE | InitFlags::DIRECT_IO_ALLOW_MMAP | InitFlags::SUBMOUNTS));
    let conditional = InitFlags::POSIX_ACL
        | InitFlags::DONT_MASK
        | InitFlags::SETXATTR_EXT
        | InitFlags::WRITEBACK_CACHE
        | InitFlags::DIRECT_IO_ALLOW_MMAP
        | InitFlags::SUBMOUNTS
        | InitFlags::DO_READDIRPLUS
        | InitFlags::CACHE_SYMLINKS;
    let little = wants(Options {
        cache: CacheMode::Never,
        announce_submounts: false,
        ..Options::default()
    });
    assert_eq!(little & conditional, InitFlags::empty());
    let part = InitFlags::POSIX_ACL | InitFlags::DONT_MASK;
    let acl = share(Options {
        posix_acl: true,
        ..Options::default()
    });
    assert_eq!(
        acl.fs.wants(part),
        InitFlags::empty(),
        "ACLs without SETXATTR_EXT would keep set-group-id"
    );
}

#[test]
fn attributes_change_one_by_one() {
    for identity in IDENTITIES {
        let share = share(by(identity));
        fs::write(share.host("f"), "0123456789").unwrap();
        symlink("target", share.host("l")).unwrap();
        let (f, l) = (share.node(c"f"), share.node(c"l"));
        let set = |node, change: SetAttr| share.fs.setattr(&ROOT, node, &change).map(|(attr, _)| attr);
        let none = SetAttr::default();
        assert_eq!(
            set(
                f,
                SetAttr {
                    mode: Some(0o1604),
                    ..none
                }
            )
            .unwrap()
            .mode
                & 0o7777,
            0o1604
        );
        assert_eq!(set(f, SetAttr { size: Some(4), ..none }).unwrap().size, 4);
        assert_eq!(
            set(
                f,
                SetAttr {
                    size: Some(1 << 20),
                    ..none
                }
            )
            .unwrap()
            .size,
            1 << 20
        );
        assert_eq!(
            refused(set(
                f,
                SetAttr {
                    size: Some(u64::MAX),
                    ..none
                }
            )),
            Errno::EFBIG
        );
        assert_eq!(
            refused(set(NodeId::ROOT, SetAttr { size: Some(0), ..none })),
            Errno::EISDIR
        );
        assert_eq!(refused(set(l, SetAttr { size: Some(0), ..none })), Errno::EINVAL);
        assert_eq!(
            refused(set(
                l,
                SetAttr {
                    mode: Some(0o600),
                    ..none
                }
            )),
            Errno::EOPNOTSUPP
        );
        for node in [f, l] {
            let attr = set(
                node,
                SetAttr {
                    atime: Some(SetTime::At(-5, 7)),
                    ..none
                },
            )
            .unwrap();
            assert_eq!((attr.atime as i64, attr.atimensec), (-5, 7));
            let attr = set(
                node,
                SetAttr {
                    mtime: Some(SetTime::At(1 << 33, 999_999_999)),
                    ..none
                },
            )
            .unwrap();
            assert_eq!((attr.mtime, attr.mtimensec, attr.atimensec), (1 << 33, 999_999_999, 7));
            let attr = set(
                node,
                SetAttr {
                    atime: Some(SetTime::Now),
                    ..none
                },
            )
            .unwrap();
            assert!(attr.atime > 1_000_000_000);
        }
        assert_eq!(
            refused(set(
                f,
                SetAttr {
                    atime: Some(SetTime::At(0, 1_000_000_000)),
                    ..none
                }
            )),
            Errno::EINVAL
        );
        assert_eq!(
            refused(set(
                f,
                SetAttr {
                    uid: Some(u32::MAX),
                    ..none
                }
            )),
            Errno::EINVAL
        );
        if is_root() {
            for node in [f, l] {
                let attr = set(node, SetAttr { uid: Some(5), ..none }).unwrap();
                assert_eq!((attr.uid, attr.gid), (5, 0));
                let attr = set(node, SetAttr { gid: Some(6), ..none }).unwrap();
                assert_eq!((attr.uid, attr.gid), (5, 6));
            }
            let attr = set(
                f,
                SetAttr {
                    uid: Some(8),
                    mode: Some(0o4755),
                    ..none
                },
            )
            .unwrap();
            assert_eq!(attr.mode & 0o7777, 0o4755, "the new owner does not undo the new mode");
            // chown(2) with -1 and -1 comes as a change of nothing, which drops set-user-id like any other.
            assert_eq!(set(f, none).unwrap().mode & 0o7777, 0o755);
        }
    }
}

#[test]
fn statx_tells_the_birth_time_and_hides_the_hosts_mounts() {
    let share = share(Options::default());
    fs::write(share.host("f"), "x").unwrap();
    let node = share.node(c"f");
    let (stat, _) = share.fs.statx(&ROOT, node, None, 0, u32::MAX >> 1).unwrap();
    assert_eq!(stat.mask & !0xfff, 0);
    assert_eq!(stat.ino, fs::metadata(share.host("f")).unwrap().ino());
    if let Ok(born) = fs::metadata(share.host("f")).unwrap().created() {
        let born = born.duration_since(std::time::UNIX_EPOCH).unwrap();
        assert_ne!(stat.mask & 0x800, 0);
        assert_eq!(
            (stat.btime.tv_sec, stat.btime.tv_nsec),
            (born.as_secs() as i64, born.subsec_nanos())
        );
    }
}

#[test]
fn holes_and_data_are_found() {
    let share = share(Options::default());
    let file = File::create(share.host("f")).unwrap();
    file.write_at(b"x", 1 << 20).unwrap();
    let node = share.node(c"f");
    let handle = share.open(node, libc::O_RDONLY).unwrap();
    let seek = |offset, whence: i32| share.fs.lseek(node, handle, offset, whence as u32);
    assert_eq!(seek(0, libc::SEEK_HOLE).unwrap(), 0);
    assert_eq!(seek(0, libc::SEEK_DATA).unwrap(), 1 << 20);
    assert_eq!(seek(1 << 20, libc::SEEK_HOLE).unwrap(), (1 << 20) + 1);
    assert_eq!(refused(seek(1 << 21, libc::SEEK_DATA)), Errno::ENXIO);
    assert_eq!(refused(seek(0, libc::SEEK_CUR)), Errno::EINVAL);
}

#[test]
fn space_is_allocated_and_freed() {
    let share = share(Options::default());
    fs::write(share.host("f"), vec![1; 64 << 10]).unwrap();
    let node = share.node(c"f");
    let handle = share.open(node, libc::O_RDWR).unwrap();
    let allocate = |mode: i32, offset, len| share.fs.fallocate(&ROOT, node, handle, mode as u32, offset, len);
    let len = || fs::metadata(share.host("f")).unwrap().len();
    let (keep, punch, zero) = (
        libc::FALLOC_FL_KEEP_SIZE,
        libc::FALLOC_FL_PUNCH_HOLE,
        libc::FALLOC_FL_ZERO_RANGE,
    );
    allocate(keep, 0, 1 << 20).unwrap();
    assert_eq!(len(), 64 << 10);
    allocate(0, 0, 1 << 20).unwrap();
    assert_eq!(len(), 1 << 20);
    allocate(keep | punch, 4096, 4096).unwrap();
    allocate(zero, 12288, 4096).unwrap();
    let contents = fs::read(share.host("f")).unwrap();
    assert_eq!(
        [contents[0], contents[4096], contents[8192], contents[12288]],
        [1, 0, 1, 0]
    );
    allocate(libc::FALLOC_FL_COLLAPSE_RANGE, 4096, 4096).unwrap();
    assert_eq!(len(), (1 << 20) - 4096);
    allocate(libc::FALLOC_FL_INSERT_RANGE, 4096, 4096).unwrap();
    assert_eq!(len(), 1 << 20);
    assert_eq!(refused(allocate(0, u64::MAX, 1)), Errno::EINVAL);
    assert_eq!(refused(allocate(0, 0, 0)), Errno::EINVAL);
}

#[test]
fn ranges_are_copied_on_the_host() {
    let share = share(Options::default());
    fs::write(share.host("from"), "0123456789").unwrap();
    fs::write(share.host("to"), "").unwrap();
    let (from, to) = (share.node(c"from"), share.node(c"to"));
    let reading = share.open(from, libc::O_RDONLY).unwrap();
    let writing = share.open(to, libc::O_WRONLY).unwrap();
    let range = CopyRange {
        from: (from, reading, 4),
        to: (to, writing, 1),
        len: u64::MAX >> 1,
        flags: 0,
    };
    assert_eq!(share.fs.copy_file_range(&ROOT, &range).unwrap(), 6);
    assert_eq!(fs::read(share.host("to")).unwrap(), b"\x00456789");
    assert_eq!(
        refused(share.fs.copy_file_range(&ROOT, &CopyRange { flags: 1, ..range })),
        Errno::EINVAL
    );
    let wrong = CopyRange {
        from: (to, reading, 4),
        ..range
    };
    assert_eq!(refused(share.fs.copy_file_range(&ROOT, &wrong)), Errno::EBADF);
}

#[test]
fn ioctls_are_few() {
    let share = share(Options::default());
    let (entry, opened) = share
        .fs
        .create(&USER, NodeId::ROOT, name(c"f"), &create(0o666, libc::O_RDWR), false)
        .unwrap();
    let node = entry.node;
    let directory = share.fs.opendir(&ROOT, NodeId::ROOT, 0).unwrap().handle;
    const GETFLAGS: u32 = 0x8008_6601;
    const SETFLAGS: u32 = 0x4008_6602;
    const FSGETXATTR: u32 = 0x801c_581f;
    const FSSETXATTR: u32 = 0x401c_5820;
    let ioctl = |by: &Caller, command, input: &[u8], out| share.fs.ioctl(by, node, opened.handle, command, input, out);
    // TIOCSTI, FIGETBSZ, FICLONE, FS_IOC_SETFLAGS of another size.
    for command in [0x5412, 2, 0x4004_9409, 0x4004_6602] {
        assert_eq!(refused(ioctl(&ROOT, command, &[0; 64], 64)), Errno::ENOTTY);
    }
    match ioctl(&ROOT, GETFLAGS, &[], 8) {
        // tmpfs before Linux 6.6 and others have no flags.
        Err(error) => assert_eq!(error, Errno::ENOTTY),
        Ok(flags) => {
            assert_eq!(flags.len(), 4);
            assert_eq!(refused(ioctl(&ROOT, GETFLAGS, &[], 3)), Errno::EINVAL);
            assert_eq!(refused(ioctl(&ROOT, SETFLAGS, &[0; 3], 0)), Errno::EINVAL);
            const NODUMP: u32 = 0x40;
            let nodump = u32::from_ne_bytes(flags[..].try_into().unwrap()) | NODUMP;
            assert_eq!(ioctl(&USER, SETFLAGS, &nodump.to_ne_bytes(), 0).unwrap(), []);
            assert_eq!(ioctl(&USER, GETFLAGS, &[], 4).unwrap(), nodump.to_ne_bytes());
            if is_root() {
                let other = Caller { uid: 4000, ..USER };
                assert_eq!(
                    refused(ioctl(&other, SETFLAGS, &flags, 0)),
                    Errno::EPERM,
                    "not the owner"
                );
                const IMMUTABLE: u32 = 0x10;
                let immutable = nodump | IMMUTABLE;
                assert_eq!(
                    refused(ioctl(&USER, SETFLAGS, &immutable.to_ne_bytes(), 0)),
                    Errno::EPERM
                );
            }
            share
                .fs
                .ioctl(&ROOT, NodeId::ROOT, directory, GETFLAGS, &[], 4)
                .unwrap();
            let attributes = ioctl(&USER, FSGETXATTR, &[], 28).unwrap();
            assert_eq!(attributes.len(), 28);
            ioctl(&USER, FSSETXATTR, &attributes, 0).unwrap();
        }
    }
}

#[test]
fn figures_of_the_file_system_are_the_hosts() {
    let share = share(Options::default());
    let figures = share.fs.statfs(NodeId::ROOT).unwrap();
    let host = rustix::fs::statvfs(share.outside.path()).unwrap();
    assert_eq!(
        (figures.blocks, u64::from(figures.frsize)),
        (host.f_blocks, host.f_frsize)
    );
    assert_eq!(u64::from(figures.namelen), host.f_namemax);
}

#[test]
fn append_only_files_open_for_appending() {
    if !is_root() {
        return;
    }
    let share = share(Options::default());
    fs::write(share.host("f"), "0").unwrap();
    let file = File::open(share.host("f")).unwrap();
    let Ok(flags) = rustix::fs::ioctl_getflags(&file) else {
        return;
    };
    if rustix::fs::ioctl_setflags(&file, flags | rustix::fs::IFlags::APPEND).is_err() {
        eprintln!("skipped: no append-only files here");
        return;
    }
    let node = share.node(c"f");
    let outcome = share.open(node, libc::O_WRONLY | libc::O_APPEND).and_then(|handle| {
        let to = WriteTo {
            open_flags: libc::O_APPEND as u32,
            ..at(handle, 1, 1)
        };
        share.write(&ROOT, node, to, b"1")
    });
    let overwriting = share.open(node, libc::O_WRONLY);
    rustix::fs::ioctl_setflags(&file, flags).unwrap();
    assert_eq!(outcome, Ok(1));
    assert_eq!(refused(overwriting), Errno::EPERM);
    assert_eq!(fs::read(share.host("f")).unwrap(), b"01");
}

/// A file of 5,000 bytes, a share that honours O_DIRECT, and whether direct I/O works there.
fn share_with_direct_io() -> (Share, bool) {
    let share = share(Options {
        allow_direct_io: true,
        ..Options::default()
    });
    fs::write(share.host("f"), [0; 5_000]).unwrap();
    let direct = File::options()
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(share.host("f"));
    if direct.is_err() {
        eprintln!("skipped: no direct I/O here");
    }
    (share, direct.is_ok())
}

/// Pages of a shared mapping are written back up to the end of the file, by way of any file that the guest has open for writing.
#[test]
fn pages_of_a_file_that_is_open_for_direct_io_are_written_back_whole() {
    let contents: Vec<u8> = (0..5_000u32).map(|at| (at % 251) as u8).collect();
    for flags in [libc::O_WRONLY, libc::O_RDWR] {
        let (share, true) = share_with_direct_io() else { return };
        let node = share.node(c"f");
        let handle = share.open(node, flags | libc::O_DIRECT).unwrap();
        let to = WriteTo {
            flags: wire::WRITE_CACHE,
            open_flags: (flags | libc::O_DIRECT) as u32,
            ..at(handle, 0, contents.len())
        };
        assert_eq!(share.write(&ROOT, node, to, &contents), Ok(5_000));
        assert_eq!(fs::read(share.host("f")).unwrap(), contents);
        let last = WriteTo {
            offset: 4_096,
            len: 904,
            ..to
        };
        assert_eq!(share.write(&ROOT, node, last, &[7; 904]), Ok(904));
        share.fs.fsync(node, handle, true).unwrap();
        let page = direct_page(&share, node, flags, 4_096);
        assert!(page.is_none_or(|page| page == [7; 904]), "a direct read sees it");
        assert_eq!(fs::read(share.host("f")).unwrap()[..4_096], contents[..4_096]);

        // What the guest writes with O_DIRECT still is direct.
        let host = File::options()
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(share.host("f"))
            .unwrap();
        let on_host = host.write_at(&[1; 99], 1).is_ok();
        let direct = WriteTo { flags: 0, ..to };
        let written = share.write(
            &ROOT,
            node,
            WriteTo {
                offset: 1,
                len: 99,
                ..direct
            },
            &[1; 99],
        );
        assert_eq!(written.is_ok(), on_host, "{written:?}");
    }
}

/// A page as a guest reads it for its cache: aligned, also where the file ends. `None` where the file is open for writing alone.
fn direct_page(share: &Share, node: NodeId, flags: i32, offset: u64) -> Option<Vec<u8>> {
    if flags == libc::O_WRONLY {
        return None;
    }
    let handle = share.open(node, flags | libc::O_DIRECT).unwrap();
    let (memory, _) = Memory::memfd("test", 1 << 20, 0).unwrap();
    let mut pieces = Pieces::new(&memory);
    pieces.push(0x1000, 4_096).unwrap();
    let mut out = Writer::new(&pieces);
    share.fs.read(node, handle, offset, 4_096, &mut out).unwrap();
    let mut page = vec![0; out.written()];
    memory.read(0x1000, &mut page).unwrap();
    Some(page)
}

/// An append-only file does not open again for writing.
#[test]
fn pages_are_written_back_where_a_direct_file_does_not_open_again() {
    let (share, true) = share_with_direct_io() else { return };
    fs::write(share.host("f"), "").unwrap();
    let file = File::open(share.host("f")).unwrap();
    let Ok(flags) = rustix::fs::ioctl_getflags(&file) else {
        return;
    };
    if !is_root() || rustix::fs::ioctl_setflags(&file, flags | rustix::fs::IFlags::APPEND).is_err() {
        eprintln!("skipped: no append-only files here");
        return;
    }
    let node = share.node(c"f");
    let open_flags = libc::O_WRONLY | libc::O_APPEND | libc::O_DIRECT;
    let outcome = share.open(node, open_flags).and_then(|handle| {
        let to = WriteTo {
            flags: wire::WRITE_CACHE,
            open_flags: open_flags as u32,
            ..at(handle, 0, 5_000)
        };
        share.write(&ROOT, node, to, &[3; 5_000])
    });
    rustix::fs::ioctl_setflags(&file, flags).unwrap();
    assert_eq!(outcome, Ok(5_000));
    assert_eq!(fs::read(share.host("f")).unwrap(), [3; 5_000]);
}

#[test]
fn what_cannot_be_shared_is_refused_with_a_reason() {
    let place = tempfile::tempdir().unwrap();
    let missing = Passthrough::new(&place.path().join("missing"), Options::default()).unwrap_err();
    assert!(missing.to_string().contains("missing"), "{missing}");
    fs::write(place.path().join("file"), "x").unwrap();
    let file = Passthrough::new(&place.path().join("file"), Options::default()).unwrap_err();
    assert!(file.to_string().contains("Not a directory"), "{file}");
}

#[test]
fn an_offset_beyond_any_file_is_refused_and_not_taken_for_the_current_one() {
    let share = share(Options::default());
    fs::write(share.host("f"), "text").unwrap();
    let node = share.node(c"f");
    let handle = share.open(node, libc::O_RDWR).unwrap();
    for offset in [u64::MAX, 1 << 63] {
        assert_eq!(refused(share.read(node, handle, offset, 4)), Errno::EINVAL);
        assert_eq!(
            refused(share.write(&ROOT, node, at(handle, offset, 3), b"bad")),
            Errno::EINVAL
        );
    }
    assert_eq!(fs::read(share.host("f")).unwrap(), b"text");
}
