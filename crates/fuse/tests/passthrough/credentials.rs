//! Threads return to their own identity, and changes by unprivileged users end the privileges of files.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use fuse::fs::{Caller, CopyRange, Errno, FileSystem, NodeId, Result, SetAttr, WriteTo};
use fuse::passthrough::Options;
use fuse::wire;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::image::Image;
use crate::share::{ROOT, Share, USER, at, create, is_root, name, refused, share, share_of};

fn thread_state() -> (u32, u32, usize, u64) {
    (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
        rustix::process::getgroups().unwrap().len(),
        rustix::thread::capabilities(None).unwrap().effective.bits(),
    )
}

#[test]
fn the_thread_is_itself_again_after_errors() {
    if !is_root() {
        return;
    }
    let share = share(Options {
        posix_acl: true,
        ..Options::default()
    });
    let member = Caller {
        supplementary_group: Some(7),
        ..USER
    };
    let dir = create(0o700, 0);
    share.fs.mkdir(&member, NodeId::ROOT, name(c"d"), &dir).unwrap();
    let before = thread_state();
    assert_eq!((before.0, before.2), (0, 0));
    let again = fuse::fs::Create { umask: 0o777, ..dir };
    assert_eq!(
        refused(share.fs.mkdir(&member, NodeId::ROOT, name(c"d"), &again)),
        Errno::EEXIST
    );
    assert_eq!(
        refused(share.fs.mkdir(&member, NodeId(99), name(c"e"), &again)),
        Errno::ESTALE
    );
    assert_eq!(thread_state(), before);
    share
        .fs
        .mkdir(&ROOT, NodeId::ROOT, name(c"e"), &create(0o777, 0))
        .unwrap();
    assert_eq!(
        fs::metadata(share.host("e")).unwrap().mode() & 0o777,
        0o777,
        "the umask is gone, too"
    );
}

#[test]
fn a_caller_without_ids_makes_nothing() {
    if !is_root() {
        return;
    }
    let share = share(Options::default());
    let nobody = Caller {
        uid: u32::MAX,
        gid: u32::MAX,
        ..ROOT
    };
    let made = share.fs.mkdir(&nobody, NodeId::ROOT, name(c"d"), &create(0o700, 0));
    assert_eq!(
        refused(made),
        Errno::EOVERFLOW,
        "setresuid(-1) would leave the daemon root"
    );
    assert!(!share.host("d").exists());
}

#[test]
fn two_threads_are_two_callers() {
    if !is_root() {
        return;
    }
    let share = share(Options::default());
    std::thread::scope(|scope| {
        for uid in 2000..2004u32 {
            let share = &share;
            scope.spawn(move || {
                let caller = Caller {
                    uid,
                    gid: uid + 10,
                    ..USER
                };
                for round in 0..50 {
                    let entry = std::ffi::CString::new(format!("{uid}-{round}")).unwrap();
                    let made = share
                        .fs
                        .mkdir(&caller, NodeId::ROOT, name(&entry), &create(0o700, 0))
                        .unwrap();
                    assert_eq!((made.attr.uid, made.attr.gid), (uid, uid + 10));
                }
            });
        }
    });
}

/// A file with set-user-id and set-group-id, opened for writing.
fn privileged(share: &Share) -> (NodeId, fuse::fs::Handle) {
    fs::write(share.host("s"), "contents").unwrap();
    fs::set_permissions(share.host("s"), fs::Permissions::from_mode(0o6755)).unwrap();
    let node = share.node(c"s");
    (node, share.open(node, libc::O_RDWR).unwrap())
}

fn bits(share: &Share) -> u32 {
    fs::metadata(share.host("s")).unwrap().mode() & 0o7000
}

#[test]
fn changes_of_contents_drop_privileges_when_asked_to() {
    if !is_root() {
        return;
    }
    let share = share(Options::default());
    let kept = |act: &dyn Fn(NodeId, fuse::fs::Handle)| {
        let (node, handle) = privileged(&share);
        act(node, handle);
        bits(&share)
    };
    let write = |flags| {
        let share = &share;
        move |node, handle| {
            let to = WriteTo {
                flags,
                ..at(handle, 0, 1)
            };
            share.write(&USER, node, to, b"x").unwrap();
        }
    };
    assert_eq!(kept(&write(wire::WRITE_KILL_SUIDGID)), 0);
    assert_eq!(kept(&write(0)), 0o6000, "FUSE_HANDLE_KILLPRIV_V2: the guest says when");

    let truncate = |kill_suid_gid, by_handle| {
        let share = &share;
        move |node, handle| {
            let handle = Some(handle).filter(|_| by_handle);
            let change = SetAttr {
                size: Some(1),
                kill_suid_gid,
                handle,
                ..SetAttr::default()
            };
            share.fs.setattr(&USER, node, &change).unwrap();
        }
    };
    for by_handle in [false, true] {
        assert_eq!(kept(&truncate(true, by_handle)), 0);
        assert_eq!(kept(&truncate(false, by_handle)), 0o6000);
    }

    let open = |kill| {
        let share = &share;
        move |node, _| {
            share
                .fs
                .open(&USER, node, (libc::O_WRONLY | libc::O_TRUNC) as u32, kill)
                .unwrap();
        }
    };
    assert_eq!(kept(&open(true)), 0);
    assert_eq!(kept(&open(false)), 0o6000);

    let allocate = |by: Caller| {
        let share = &share;
        move |node, handle| share.fs.fallocate(&by, node, handle, 0, 0, 4096).unwrap()
    };
    assert_eq!(kept(&allocate(USER)), 0);
    assert_eq!(kept(&allocate(ROOT)), 0o6000);

    let chown = |node, _| {
        let change = SetAttr {
            uid: Some(1234),
            ..SetAttr::default()
        };
        share.fs.setattr(&ROOT, node, &change).unwrap();
    };
    assert_eq!(kept(&chown), 0, "whoever changes the owner");
}

/// Set-group-id without group execute does nothing when a file is run, and Linux leaves it to the members of the file's group.
#[test]
fn set_group_id_without_group_execute_survives_changes_of_contents() {
    if !is_root() {
        return;
    }
    let share = share(Options::default());
    fs::write(share.host("source"), [1; 4096]).unwrap();
    for (mode, left) in [
        (0o2644, 0o2000),
        (0o6644, 0o2000),
        (0o6744, 0o2000),
        (0o2664, 0o2000),
        (0o2674, 0),
        (0o6755, 0),
        (0o4755, 0),
    ] {
        for (way, change) in CHANGES {
            let bits = |change: &dyn Fn()| {
                member_file(&share, mode);
                change();
                fs::metadata(share.host("s")).unwrap().mode() & 0o7000
            };
            let before = thread_state();
            let guest = bits(&|| change(&share));
            assert_eq!(guest, left, "{way}, mode {mode:o}");
            assert_eq!(thread_state(), before, "{way}, mode {mode:o}");
            if let Some((_, on_host)) = HOST_CHANGES.iter().find(|(name, _)| *name == way) {
                let directory = fs::File::open(share.host("")).unwrap();
                assert_eq!(guest, bits(&|| as_user(|| on_host(&directory))), "{way} on the host");
            }
        }
    }
}

#[test]
fn the_thread_is_itself_again_after_a_change_that_fails() {
    if !is_root() {
        return;
    }
    let share = share(Options::default());
    for mode in [0o2644, 0o6644] {
        member_file(&share, mode);
        let node = share.node(c"s");
        let handle = share.open(node, libc::O_RDONLY).unwrap();
        let before = thread_state();
        let to = WriteTo {
            flags: wire::WRITE_KILL_SUIDGID,
            ..at(handle, 0, 1)
        };
        assert_eq!(refused(share.write(&USER, node, to, b"x")), Errno::EBADF);
        assert_eq!(refused(share.fs.fallocate(&USER, node, handle, 0, 0, 1)), Errno::EBADF);
        let change = SetAttr {
            size: Some(1),
            kill_suid_gid: true,
            handle: Some(handle),
            ..SetAttr::default()
        };
        assert_eq!(refused(share.fs.setattr(&USER, node, &change)), Errno::EINVAL);
        assert_eq!(thread_state(), before);
        assert_eq!(bits(&share), mode & 0o7000);
    }
}

/// What a file may do beyond its user's rights ends with set-user-id.
#[test]
fn file_capabilities_end_where_set_group_id_stays() {
    if !is_root() {
        return;
    }
    let share = share(Options::default());
    fs::write(share.host("source"), [1; 4096]).unwrap();
    const NAME: &str = "security.capability";
    // `struct vfs_cap_data` of version 2: CAP_NET_RAW is permitted.
    let mut value = [0; 20];
    value[..8].copy_from_slice(&[0, 0, 0, 2, 0, 0x20, 0, 0]);
    for (way, change) in CHANGES {
        member_file(&share, 0o2644);
        if rustix::fs::setxattr(share.host("s"), NAME, &value, rustix::fs::XattrFlags::empty()).is_err() {
            eprintln!("skipped: no file capabilities here");
            return;
        }
        change(&share);
        let left = rustix::fs::getxattr(share.host("s"), NAME, &mut [0; 20]);
        assert_eq!(left, Err(rustix::io::Errno::NODATA), "{way}");
        assert_eq!(bits(&share), 0o2000, "{way}");
    }
}

/// A file "s" of the user and its group, longer than each change wants it.
fn member_file(share: &Share, mode: u32) {
    let path = share.host("s");
    // Another inode each time, so that nothing is left of the one before.
    let _ = fs::remove_file(&path);
    fs::write(&path, [0; 8192]).unwrap();
    std::os::unix::fs::chown(&path, Some(USER.uid), Some(USER.gid)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A way to change "s" in a share, or in a directory of the host.
type Change<In> = (&'static str, fn(&In));

/// Changes of "s" by the user, each as Linux asks for it.
const CHANGES: [Change<Share>; 9] = [
    ("write", |share| write_to(share, &USER, wire::WRITE_KILL_SUIDGID)),
    ("write in another group's name", |share| {
        // A request does not say which groups its caller is in besides.
        write_to(share, &Caller { gid: 4321, ..USER }, wire::WRITE_KILL_SUIDGID);
    }),
    ("write back", |share| {
        write_to(share, &ROOT, wire::WRITE_CACHE | wire::WRITE_KILL_SUIDGID);
    }),
    ("ftruncate", |share| set_size(share, true)),
    ("truncate", |share| set_size(share, false)),
    ("open with O_TRUNC", |share| {
        let node = share.node(c"s");
        let flags = (libc::O_WRONLY | libc::O_TRUNC) as u32;
        let opened = share.fs.open(&USER, node, flags, true).unwrap();
        share.fs.release(node, opened.handle).unwrap();
    }),
    ("create of what is there", |share| {
        let how = create(0o600, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC);
        let (entry, opened) = share.fs.create(&USER, NodeId::ROOT, name(c"s"), &how, true).unwrap();
        share.fs.release(entry.node, opened.handle).unwrap();
    }),
    ("fallocate", |share| {
        let node = share.node(c"s");
        let handle = share.open(node, libc::O_WRONLY).unwrap();
        share.fs.fallocate(&USER, node, handle, 0, 0, 4096).unwrap();
    }),
    ("copy_file_range", |share| {
        let (node, source) = (share.node(c"s"), share.node(c"source"));
        let handle = share.open(node, libc::O_WRONLY).unwrap();
        let range = CopyRange {
            from: (source, share.open(source, libc::O_RDONLY).unwrap(), 0),
            to: (node, handle, 0),
            len: 4096,
            flags: 0,
        };
        share.fs.copy_file_range(&USER, &range).unwrap();
    }),
];

fn write_to(share: &Share, by: &Caller, flags: u32) {
    let node = share.node(c"s");
    let handle = share.open(node, libc::O_WRONLY).unwrap();
    let to = WriteTo {
        flags,
        ..at(handle, 0, 1)
    };
    share.write(by, node, to, b"x").unwrap();
}

fn set_size(share: &Share, by_handle: bool) {
    let node = share.node(c"s");
    let handle = by_handle.then(|| share.open(node, libc::O_WRONLY).unwrap());
    let change = SetAttr {
        size: Some(1),
        kill_suid_gid: true,
        handle,
        ..SetAttr::default()
    };
    share.fs.setattr(&USER, node, &change).unwrap();
}

/// The same on the host itself, in the directory that is shared.
const HOST_CHANGES: [Change<fs::File>; 5] = [
    ("write", |directory| {
        std::os::unix::fs::FileExt::write_at(&on_host(directory, OFlags::WRONLY), b"x", 0).unwrap();
    }),
    ("ftruncate", |directory| {
        on_host(directory, OFlags::WRONLY).set_len(1).unwrap();
    }),
    ("open with O_TRUNC", |directory| {
        on_host(directory, OFlags::WRONLY | OFlags::TRUNC);
    }),
    ("fallocate", |directory| {
        let file = on_host(directory, OFlags::WRONLY);
        rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, 4096).unwrap();
    }),
    ("copy_file_range", |directory| {
        let source = rustix::fs::openat(directory, "source", OFlags::RDONLY, Mode::empty()).unwrap();
        let to = on_host(directory, OFlags::WRONLY);
        rustix::fs::copy_file_range(source, Some(&mut 0), to, Some(&mut 0), 4096).unwrap();
    }),
];

fn on_host(directory: &fs::File, flags: OFlags) -> fs::File {
    rustix::fs::openat(directory, "s", flags, Mode::empty()).unwrap().into()
}

/// Runs `act` on a thread that is the user, in its primary group alone and without capabilities.
fn as_user(act: impl FnOnce() + Send) {
    let run = || {
        let (uid, gid) = (Uid::from_raw(USER.uid), Gid::from_raw(USER.gid));
        set_thread_groups(&[]).unwrap();
        set_thread_res_gid(gid, gid, gid).unwrap();
        set_thread_res_uid(uid, uid, uid).unwrap();
        act();
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap());
}

#[test]
fn access_is_judged_as_the_caller() {
    if !is_root() {
        return;
    }
    let share = share(Options::default());
    fs::write(share.host("f"), "x").unwrap();
    fs::set_permissions(share.host("f"), fs::Permissions::from_mode(0o604)).unwrap();
    let node = share.node(c"f");
    let access = |by, mask: i32| share.fs.access(by, node, mask as u32);
    access(&ROOT, libc::R_OK | libc::W_OK).unwrap();
    access(&USER, libc::R_OK).unwrap();
    assert_eq!(refused(access(&USER, libc::W_OK)), Errno::EACCES);
    assert_eq!(refused(access(&ROOT, libc::X_OK)), Errno::EACCES);
    let of_the_group = Caller { gid: 0, ..USER };
    assert_eq!(refused(access(&of_the_group, libc::R_OK)), Errno::EACCES);
    assert_eq!(refused(access(&ROOT, 64)), Errno::EINVAL);
}

#[test]
fn what_the_host_keeps_for_root_no_user_of_the_guest_fills() {
    // A fifth of it is for root.
    let Some(reserve) = Image::mount(64 << 20, &["mkfs.ext4", "-q", "-m", "20"], "loop") else {
        return;
    };
    let figures = || rustix::fs::statvfs(reserve.mountpoint()).unwrap();
    let kept = figures().f_bfree - figures().f_bavail;
    assert!(kept > 0);
    let share = share_of(&reserve.mountpoint(), Options::default());
    let chunk = [7; 64 << 10];
    type Fill = fn(&Share, NodeId, WriteTo, &[u8]) -> Result<u32>;
    let ways: [(&str, Fill); 3] = [
        ("written", |share, node, to, data| share.write(&USER, node, to, data)),
        ("written back, by nobody that has a name", |share, node, to, data| {
            let flags = wire::WRITE_CACHE;
            share.write(&ROOT, node, WriteTo { flags, ..to }, data)
        }),
        ("allocated", |share, node, to, _| {
            let len = u64::from(to.len);
            share.fs.fallocate(&USER, node, to.handle, 0, to.offset, len)?;
            Ok(to.len)
        }),
    ];
    for (way, fill) in ways {
        fs::write(reserve.mountpoint().join("file"), "").unwrap();
        let node = share.node(c"file");
        let handle = share.open(node, libc::O_RDWR).unwrap();
        let mut offset = 0;
        let full = loop {
            match fill(&share, node, at(handle, offset, chunk.len()), &chunk) {
                Ok(written) => offset += u64::from(written),
                Err(error) => break error,
            }
        };
        assert_eq!(full, Errno(libc::ENOSPC), "{way}");
        share.fs.fsync(node, handle, false).unwrap();
        // Less the blocks that hold where the file's are.
        let left = figures().f_bfree;
        assert!(left * 10 > kept * 9, "{way}: {left} of {kept} kept blocks are left");
        // The guest's root is root.
        share
            .write(&ROOT, node, at(handle, offset, chunk.len()), &chunk)
            .unwrap();
        share.fs.release(node, handle).unwrap();
        fs::remove_file(reserve.mountpoint().join("file")).unwrap();
    }
}

/// Attributes and directories take blocks too.
#[test]
fn names_and_attributes_do_not_fill_what_the_host_keeps_for_root() {
    const FILES: usize = 1500;
    type Take = fn(&Share, NodeId, usize) -> Result<()>;
    let ways: [(&str, Take); 3] = [
        ("attributes", |share, node, number| {
            // Different values, so that none are shared.
            let mut value = vec![0; 3000];
            value[..8].copy_from_slice(&number.to_ne_bytes());
            share.fs.setxattr(&USER, node, c"user.a", &value, 0, false)
        }),
        ("links", |share, node, number| {
            (0..40).try_for_each(|link| {
                let long = CString::new(format!("{number:010}-{link:0240}")).unwrap();
                share.fs.link(&USER, node, NodeId::ROOT, name(&long)).map(drop)
            })
        }),
        ("names", |share, _, number| {
            let short = CString::new(format!("f{number}")).unwrap();
            let long = CString::new(format!("{number:0240}")).unwrap();
            let (from, to) = ((NodeId::ROOT, name(&short)), (NodeId::ROOT, name(&long)));
            share.fs.rename(&USER, from, to, 0)
        }),
    ];
    for (way, take) in ways {
        let make = [
            "mkfs.ext4",
            "-q",
            "-m",
            "20",
            "-b",
            "4096",
            "-i",
            "4096",
            "-O",
            "^has_journal",
        ];
        let Some(image) = Image::mount(64 << 20, &make, "loop") else {
            return;
        };
        let figures = || rustix::fs::statvfs(image.mountpoint()).unwrap();
        let share = share_of(&image.mountpoint(), Options::default());
        let made: Vec<NodeId> = (0..FILES)
            .map(|number| {
                let file = CString::new(format!("f{number}")).unwrap();
                let made = share
                    .fs
                    .mknod(&USER, NodeId::ROOT, name(&file), &create(libc::S_IFREG | 0o644, 0));
                made.unwrap().node
            })
            .collect();
        // All that is there for users, but for a few blocks.
        let filler = (figures().f_bavail - 8) * figures().f_bsize;
        fs::write(image.mountpoint().join("filler"), vec![7; filler as usize]).unwrap();
        let sync = || rustix::fs::syncfs(fs::File::open(image.mountpoint()).unwrap()).unwrap();
        sync();
        let kept = figures().f_bfree - figures().f_bavail;
        let full = made
            .iter()
            .enumerate()
            .find_map(|(number, &node)| take(&share, node, number).err());
        assert_eq!(full, Some(Errno(libc::ENOSPC)), "{way}");
        sync();
        let left = figures().f_bfree;
        assert!(left * 10 > kept * 9, "{way}: {left} of {kept} kept blocks are left");
    }
}
