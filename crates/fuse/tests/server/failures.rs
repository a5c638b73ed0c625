//! Reports of errnos that the guest gets: each once, with the call of the host or the rule that caused it.

use std::ffi::CStr;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use fuse::cause::Cause;
use fuse::escape::Escaped;
use fuse::failure::{Failure, Failures};
use fuse::fs::Errno;
use fuse::passthrough::{CacheMode, InodeHandles, Options, Passthrough};
use fuse::server::Server;
use fuse::wire::{self, InitFlags, Opcode};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};
use tempfile::TempDir;
use zerocopy::{FromBytes, IntoBytes};

use crate::guest::{Chain, UNIQUE, failure, init, join, numbered, request, send, success, with_header, z};
use crate::operations::cases;
use crate::recorder::Recorder;

/// Keeps what is told, in words.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<String>>);

impl Failures for Told {
    fn failed(&self, failure: &Failure<'_>) {
        assert_eq!((failure.uid, failure.gid, failure.pid), (1000, 100, 5));
        assert_eq!(failure.unique, UNIQUE);
        let path = |path: Option<&[u8]>| path.map_or("-".into(), |path| Escaped::start(path, 1000).to_string());
        let mut line = format!("{} {}", failure.operation, path(failure.path));
        if failure.to.is_some() {
            line.push_str(&format!(" to {}", path(failure.to)));
        }
        let cause = match &failure.cause {
            Some(Cause::Call { call, errno }) => format!("{call} = {}", errno.0),
            Some(Cause::Rule(rule)) => (*rule).into(),
            None => "?".into(),
        };
        line.push_str(&format!(": {}: {cause}", failure.errno.0));
        self.0.lock().unwrap().push(line);
    }
}

impl Told {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A guest of a shared directory.
struct Guest {
    server: Server<Passthrough>,
    told: Arc<Told>,
    directory: Option<TempDir>,
}

impl Guest {
    fn of(options: Options) -> Guest {
        let directory = TempDir::new().unwrap();
        let guest = Guest::at(directory.path(), options);
        Guest {
            directory: Some(directory),
            ..guest
        }
    }

    fn at(path: &Path, options: Options) -> Guest {
        let told = Arc::new(Told::default());
        let server = Server::new(Passthrough::new(path, options).unwrap()).tell(told.clone());
        assert_eq!(send(&server, &init(45, InitFlags::all())).len(), 16 + 64);
        Guest {
            server,
            told,
            directory: None,
        }
    }

    fn host(&self, name: &str) -> std::path::PathBuf {
        self.directory.as_ref().unwrap().path().join(name)
    }

    /// A request that is granted, of which nothing may be told; gives the body of the reply.
    #[track_caller]
    fn granted(&self, opcode: Opcode, node: u64, arguments: &[&[u8]]) -> Vec<u8> {
        let reply = send(&self.server, &request(opcode, node, &join(arguments)));
        assert_eq!(reply[4..8], [0; 4], "{opcode:?} failed: {:?}", self.told.take());
        assert_eq!(self.told.take(), [""; 0]);
        reply[16..].to_vec()
    }

    #[track_caller]
    fn node(&self, parent: u64, name: &CStr) -> u64 {
        let entry = self.granted(Opcode::Lookup, parent, &[z(name)]);
        wire::EntryOut::read_from_prefix(&entry).unwrap().0.nodeid
    }

    /// A request that fails so, of which `line` is told.
    #[track_caller]
    fn refused(&self, opcode: Opcode, node: u64, arguments: &[&[u8]], errno: Errno, line: &str) {
        let reply = send(&self.server, &request(opcode, node, &join(arguments)));
        assert_eq!(self.told.take(), [line]);
        assert_eq!(reply, failure(errno.0), "{opcode:?}");
    }
}

fn both() -> [Options; 2] {
    [InodeHandles::Never, InodeHandles::Prefer].map(|inode_file_handles| Options {
        inode_file_handles,
        ..Options::default()
    })
}

fn create(flags: i32) -> wire::CreateIn {
    wire::CreateIn {
        flags: flags as u32,
        mode: 0o100_644,
        ..Default::default()
    }
}

const ROOT: u64 = 1;

#[test]
fn a_failed_call_is_told_with_its_arguments() {
    for options in both() {
        let guest = Guest::of(options);
        fs::create_dir_all(guest.host("a/b")).unwrap();
        fs::write(guest.host("a/f"), "").unwrap();
        let a = guest.node(ROOT, c"a");
        guest.refused(
            Opcode::Lookup,
            ROOT,
            &[z(c"missing")],
            Errno::ENOENT,
            "LOOKUP /missing: 2: statx(parent, \"missing\", AT_SYMLINK_NOFOLLOW|AT_NO_AUTOMOUNT) = 2",
        );
        guest.refused(
            Opcode::Create,
            a,
            &[create(libc::O_RDWR | libc::O_EXCL).as_bytes(), z(c"f")],
            Errno::EEXIST,
            "CREATE /a/f: 17: openat2(parent, \"f\", O_RDWR|O_CREAT|O_EXCL|O_NOFOLLOW|O_CLOEXEC, 0644) = 17",
        );
        guest.refused(
            Opcode::Rmdir,
            ROOT,
            &[z(c"a")],
            Errno(libc::ENOTEMPTY),
            "RMDIR /a: 39: unlinkat(parent, \"a\", AT_REMOVEDIR) = 39",
        );
        let rename = wire::Rename2In {
            newdir: a,
            flags: libc::RENAME_NOREPLACE,
            ..Default::default()
        };
        guest.refused(
            Opcode::Rename2,
            ROOT,
            &[rename.as_bytes(), z(c"a"), z(c"f")],
            Errno::EEXIST,
            "RENAME2 /a to /a/f: 17: renameat2(parent, \"a\", new parent, \"f\", RENAME_NOREPLACE) = 17",
        );
        let f = guest.node(a, c"f");
        guest.refused(
            Opcode::Link,
            a,
            &[wire::LinkIn { oldnodeid: f }.as_bytes(), z(c"b")],
            Errno::EEXIST,
            "LINK /a/f to /a/b: 17: linkat(node, parent, \"b\") = 17",
        );
        fs::remove_file(guest.host("a/f")).unwrap();
        fs::remove_dir_all(guest.host("a")).unwrap();
        guest.refused(
            Opcode::Mkdir,
            a,
            &[wire::MkdirIn { mode: 0o755, umask: 0 }.as_bytes(), z(c"c")],
            Errno::ENOENT,
            "MKDIR /a (deleted)/c: 2: mkdirat(parent, \"c\", 0755) = 2",
        );
    }
}

#[test]
fn a_name_that_is_not_there_is_told_also_where_the_guest_remembers_it() {
    let ask = |cache| {
        let guest = Guest::of(Options {
            cache,
            ..Options::default()
        });
        let reply = send(&guest.server, &request(Opcode::Lookup, ROOT, z(c"absent")));
        let [told] = <[String; 1]>::try_from(guest.told.take()).unwrap();
        assert!(told.starts_with("LOOKUP /absent: 2: statx("), "{told}");
        reply
    };
    for others_may_make_it in [CacheMode::Never, CacheMode::Auto, CacheMode::Metadata] {
        assert_eq!(ask(others_may_make_it), failure(Errno::ENOENT.0));
    }
    let absent = wire::EntryOut {
        entry_valid: 86_400,
        ..Default::default()
    };
    assert_eq!(ask(CacheMode::Always), success(absent.as_bytes()));
}

#[test]
fn what_the_host_forbids_the_caller_is_told() {
    let guest = Guest::of(Options::default());
    fs::write(guest.host("f"), "").unwrap();
    fs::set_permissions(guest.host("f"), fs::Permissions::from_mode(0o000)).unwrap();
    let f = guest.node(ROOT, c"f");
    let access = wire::AccessIn { mask: 4, padding: 0 };
    guest.refused(
        Opcode::Access,
        f,
        &[access.as_bytes()],
        Errno::EACCES,
        "ACCESS /f: 13: faccessat2(node, 04, AT_EACCESS) as 1000:100 = 13",
    );
}

#[test]
fn what_a_rule_refuses_is_told_with_the_rule() {
    let guest = Guest::of(Options {
        readonly: true,
        ..Options::default()
    });
    fs::write(guest.host("f"), "").unwrap();
    symlink("f", guest.host("l")).unwrap();
    let mkdir = wire::MkdirIn::default();
    let read_only = "the share is read-only (--readonly)";
    guest.refused(
        Opcode::Mkdir,
        ROOT,
        &[mkdir.as_bytes(), z(c"d")],
        Errno::EROFS,
        &format!("MKDIR /d: 30: {read_only}"),
    );
    // What is there is looked for all the same.
    let made = [create(libc::O_RDWR).as_bytes().to_vec(), z(c"new").to_vec()];
    guest.refused(
        Opcode::Create,
        ROOT,
        &[&made[0], &made[1]],
        Errno::EROFS,
        &format!("CREATE /new: 30: {read_only}"),
    );
    let l = guest.node(ROOT, c"l");
    guest.refused(
        Opcode::Open,
        l,
        &[wire::OpenIn::default().as_bytes()],
        Errno::ELOOP,
        "OPEN /l: 40: a symbolic link is never opened",
    );
    guest.refused(
        Opcode::Lookup,
        4711,
        &[z(c"name")],
        Errno::ESTALE,
        "LOOKUP ?/name: 116: unknown nodeid",
    );
    let read = wire::ReadIn {
        fh: 4711,
        size: 1,
        ..Default::default()
    };
    guest.refused(
        Opcode::Read,
        l,
        &[read.as_bytes()],
        Errno::EBADF,
        "READ /l: 9: the node has no such handle",
    );
    guest.refused(
        Opcode::Lookup,
        ROOT,
        &[z(c"..")],
        Errno::EINVAL,
        "LOOKUP /: 22: the name is not one component of a path",
    );
}

/// An error that was overcome is not the cause of the one that follows.
#[test]
fn a_fifo_in_the_way_of_create_is_refused_by_the_rule_and_not_by_eexist() {
    let guest = Guest::of(Options::default());
    let (directory, fifo) = (guest.host(""), rustix::fs::FileType::Fifo);
    let directory = fs::File::open(directory).unwrap();
    rustix::fs::mknodat(&directory, "p", fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    guest.refused(
        Opcode::Create,
        ROOT,
        &[create(libc::O_RDWR).as_bytes(), z(c"p")],
        Errno::ENXIO,
        "CREATE /p: 6: devices, fifos and sockets are never opened on the host",
    );
}

#[test]
fn a_hostile_name_stays_within_its_quotation() {
    let guest = Guest::of(Options::default());
    guest.refused(
        Opcode::Unlink,
        ROOT,
        &[z(c"\n\", 0) = 0\x1b[2J\xff")],
        Errno::ENOENT,
        r#"UNLINK /\x0a\", 0) = 0\x1b[2J\xff: 2: unlinkat(parent, "\x0a\", 0) = 0\x1b[2J\xff", 0) = 2"#,
    );
    let long = [&[b'x'; 5000][..], b"\0"].concat();
    let reply = send(&guest.server, &request(Opcode::Unlink, ROOT, &long));
    assert_eq!(reply, failure(libc::ENAMETOOLONG));
    let [line] = &guest.told.take()[..] else {
        panic!("one line")
    };
    assert!(line.ends_with("...\", 0) = 36") && line.len() < 1600, "{line}");
}

/// A file system of 64 KiB, attached nowhere.
fn tiny(attributes: MountAttrFlags) -> Option<OwnedFd> {
    let mount = || {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "size", "64k")?;
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    mount()
        .inspect_err(|error| eprintln!("skipped: cannot mount: {error}"))
        .ok()
}

#[test]
fn a_full_disk_is_told_with_the_write() {
    let Some(mount) = tiny(MountAttrFlags::empty()) else {
        return;
    };
    let guest = Guest::at(
        Path::new(&format!("/proc/self/fd/{}", mount.as_raw_fd())),
        Options::default(),
    );
    let made = guest.granted(Opcode::Create, ROOT, &[create(libc::O_RDWR).as_bytes(), z(c"f")]);
    let (entry, opened) = wire::EntryOut::read_from_prefix(&made).unwrap();
    let (opened, _) = wire::OpenOut::read_from_prefix(opened).unwrap();
    let data = vec![b'x'; 128 << 10];
    let write = wire::WriteIn {
        fh: opened.fh,
        size: data.len() as u32,
        ..Default::default()
    };
    // The first fills the disk, and is answered with what it could write.
    let written = guest.granted(Opcode::Write, entry.nodeid, &[write.as_bytes(), &data]);
    assert_eq!(written[..4], (64u32 << 10).to_ne_bytes());
    let beyond = wire::WriteIn {
        offset: 64 << 10,
        ..write
    };
    guest.refused(
        Opcode::Write,
        entry.nodeid,
        &[beyond.as_bytes(), &data],
        Errno(libc::ENOSPC),
        "WRITE /f: 28: pwritev2(file, 131072 bytes, at 65536) = 28",
    );
}

#[test]
fn a_read_only_file_system_of_the_host_is_told_with_the_call() {
    let Some(mount) = tiny(MountAttrFlags::MOUNT_ATTR_RDONLY) else {
        return;
    };
    let guest = Guest::at(
        Path::new(&format!("/proc/self/fd/{}", mount.as_raw_fd())),
        Options::default(),
    );
    guest.refused(
        Opcode::Symlink,
        ROOT,
        &[z(c"l"), z(c"to \"there\"")],
        Errno::EROFS,
        r#"SYMLINK /l: 30: symlinkat("to \"there\"", parent, "l") = 30"#,
    );
    // CREATE looks for what may be there nevertheless, and finds nothing.
    guest.refused(
        Opcode::Create,
        ROOT,
        &[create(libc::O_WRONLY).as_bytes(), z(c"f")],
        Errno::EROFS,
        "CREATE /f: 30: openat2(parent, \"f\", O_WRONLY|O_CREAT|O_EXCL|O_NOFOLLOW|O_CLOEXEC, 0644) = 30",
    );
}

/// Files of procfs are read elsewhere, since they do not tell whether a read waits; and at 0 of a process' memory is nothing.
#[test]
fn a_read_that_another_thread_finishes_is_told_once() {
    let guest = Guest::at(Path::new("/proc/self"), Options::default());
    let mem = guest.node(ROOT, c"mem");
    let opened = guest.granted(Opcode::Open, mem, &[wire::OpenIn::default().as_bytes()]);
    let (opened, _) = wire::OpenOut::read_from_prefix(&opened).unwrap();
    let read = wire::ReadIn {
        fh: opened.fh,
        size: 64,
        ..Default::default()
    };
    let chain = Chain::new(&request(Opcode::Read, mem, read.as_bytes()), 4096, &[usize::MAX]);
    let read = chain.defer(&guest.server);
    assert_eq!(guest.told.take(), [""; 0], "nobody has been given anything yet");
    let reply = thread::scope(|scope| {
        let finish = || chain.finish(&guest.server, read);
        scope.spawn(finish).join().unwrap()
    });
    assert_eq!(reply, failure(libc::EIO));
    assert_eq!(guest.told.take(), ["READ /mem: 5: preadv2(file, 64 bytes, at 0) = 5"]);
}

#[test]
fn each_operation_that_fails_is_told_once_by_its_name_in_fuse() {
    let fs = Recorder::default();
    let told = Arc::new(Told::default());
    let server = Server::new(&fs).tell(told.clone());
    send(&server, &init(45, InitFlags::all()));
    fs.fail(Errno::ESTALE);
    // What a directory gave before it failed is the answer.
    let listing = [Opcode::Readdir, Opcode::Readdirplus];
    for case in cases().iter().filter(|case| !listing.contains(&case.opcode)) {
        assert_eq!(send(&server, &case.request), failure(libc::ESTALE));
        let [line] = &told.take()[..] else {
            panic!("{:?} is to be told once", case.opcode)
        };
        let name = format!("{:?}", case.opcode).to_uppercase();
        assert_eq!(line.split(' ').next().unwrap().replace('_', ""), name);
    }
    assert_eq!(Opcode::CopyFileRange64.name(), "COPY_FILE_RANGE_64");
    assert_eq!(Opcode::Rename2.name(), "RENAME2");
}

/// Whatever is wrong with a request, the errno that its reply bears is told, with a reason.
#[test]
fn each_errno_of_a_malformed_request_is_told_once_with_its_rule() {
    let guest = Guest::of(Options::default());
    for node in [0, ROOT, 4711] {
        for opcode in Opcode::ALL.iter().filter(|opcode| **opcode != Opcode::Init) {
            for length in [0, 1, 2, 8, 16, 24, 40, 48, 56, 64, 104] {
                for byte in [0, b'a'] {
                    let mut arguments = vec![byte; length];
                    arguments.extend_from_slice(&b"\0"[..usize::from(byte > 0)]);
                    let reply = send(&guest.server, &request(*opcode, node, &arguments));
                    let errno = match reply.get(4..8) {
                        Some(error) => -i32::from_ne_bytes(error.try_into().unwrap()),
                        None => 0,
                    };
                    let told = guest.told.take();
                    assert_eq!(told.len(), usize::from(errno != 0), "{opcode:?} {told:?}");
                    for line in told {
                        assert!(line.contains(&format!(": {errno}: ")) && !line.ends_with('?'), "{line}");
                    }
                    send(&guest.server, &init(45, InitFlags::all()));
                }
            }
        }
    }
}

#[test]
fn what_is_refused_before_it_is_parsed_is_told_too() {
    let guest = Guest::of(Options::default());
    let told = |request: &[u8]| {
        let reply = send(&guest.server, request);
        assert_ne!(reply[4..8], [0; 4], "it is refused");
        guest.told.take().join("\n")
    };
    assert_eq!(
        told(&numbered(4711, ROOT, &[])),
        "OPCODE_4711 -: 38: FUSE has no operation of that number"
    );
    let short = with_header(request(Opcode::Statfs, ROOT, &[]), |header| header.len += 1);
    assert_eq!(told(&short), "STATFS -: 22: it is not as long as it says");
    let old = init(30, InitFlags::empty());
    assert_eq!(told(&old), "INIT -: 71: the guest's version of FUSE is too old");
    let outside = request(Opcode::Statfs, ROOT, &[]);
    assert_eq!(
        told(&outside),
        "STATFS -: 107: there is no session: the guest has not sent INIT, or has sent DESTROY"
    );
    let other = with_header(init(45, InitFlags::empty()), |header| {
        *header = wire::InHeader {
            opcode: header.opcode.swap_bytes(),
            unique: header.unique.swap_bytes(),
            uid: header.uid.swap_bytes(),
            gid: header.gid.swap_bytes(),
            pid: header.pid.swap_bytes(),
            ..*header
        };
    });
    assert_eq!(told(&other), "INIT -: 71: the guest has the other byte order");
    let chain = Chain::new(&request(Opcode::Statfs, ROOT, &[]), 4096, &[usize::MAX]);
    assert_eq!(chain.send_high_priority(&guest.server), failure(libc::EINVAL));
    assert_eq!(
        guest.told.take(),
        ["STATFS -: 22: the high-priority queue is not for it"]
    );
}
