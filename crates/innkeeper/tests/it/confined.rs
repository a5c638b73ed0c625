use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::process::Command;

use driver::fs::{ROOT, Requests, field_u64, reply};
use rstest::rstest;
use rustix::process::{Gid, Uid};
use rustix::thread::CapabilitySet;
use tempfile::TempDir;
use virtqueue::Buffer;

use crate::session::{Daemon, Session};
use crate::{assert_refused, innkeeper};

const NOBODY: u32 = 65534;

/// A share of `data` with these options, by root or by an ordinary user.
fn start(user: bool, options: &[&str]) -> Option<Daemon> {
    let directory = TempDir::new().unwrap();
    let data = directory.path().join("data");
    fs::create_dir(&data).unwrap();
    // Whoever builds may keep others out of the directory of the program.
    let program = directory.path().join("innkeeper");
    fs::copy(env!("CARGO_BIN_EXE_innkeeper"), &program).unwrap();
    let mut command = Command::new(program);
    command.arg("share").arg(&data).args(options);
    command.arg("--socket-path").arg(directory.path().join("socket"));
    if user {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root can become another user");
            return None;
        }
        for path in [directory.path(), &data] {
            rustix::fs::chown(path, Some(Uid::from_raw(NOBODY)), Some(Gid::from_raw(NOBODY))).unwrap();
        }
        command.uid(NOBODY).gid(NOBODY);
    }
    Some(Daemon::run(&mut command, directory))
}

/// A line of /proc/PID/status.
fn field<'s>(status: &'s str, name: &str) -> &'s str {
    status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim()
}

/// What each thread of root's share has that serves.
pub(crate) const SERVING: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP);

/// A thread of the daemon, by its name, as /proc shows it.
struct Thread {
    name: String,
    status: String,
}

impl Thread {
    fn all_of(process: u32) -> Vec<Thread> {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
        let read = |task: std::io::Result<fs::DirEntry>| {
            let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let name = field(&status, "Name:").to_owned();
            Thread { name, status }
        };
        tasks.map(read).collect()
    }

    fn set(&self, name: &str) -> CapabilitySet {
        CapabilitySet::from_bits_retain(u64::from_str_radix(field(&self.status, name), 16).unwrap())
    }

    /// It has these capabilities and no way to others, the list of system calls of its role, and no privileges to gain.
    fn assert_confined(&self, capabilities: CapabilitySet, bounding: bool) {
        let Thread { name, status } = self;
        assert_eq!(field(status, "Seccomp:"), "2", "{name}");
        // Its own, and the one that it inherits from the main thread.
        let lists = if matches!(&**name, "innkeeper" | "signals" | "views") {
            "1"
        } else {
            "2"
        };
        assert_eq!(field(status, "Seccomp_filters:"), lists, "{name}");
        assert_eq!(field(status, "NoNewPrivs:"), "1", "{name}");
        for set in ["CapInh:", "CapAmb:"] {
            assert_eq!(self.set(set), CapabilitySet::empty(), "{name}: {set}");
        }
        for set in ["CapPrm:", "CapEff:"] {
            assert_eq!(self.set(set), capabilities, "{name}: {set}");
        }
        if bounding {
            assert_eq!(self.set("CapBnd:"), capabilities, "{name}");
        }
    }
}

/// Checks that each thread of a share has the list of system calls of its role, and `serving` if it serves. `bounded`: the bounding set
/// could be reduced as well. Answers the names of the threads.
#[track_caller]
pub(crate) fn assert_confined(process: u32, serving: CapabilitySet, bounded: bool) -> Vec<String> {
    let threads = Thread::all_of(process);
    for thread in &threads {
        let capabilities = match &*thread.name {
            "signals" => CapabilitySet::empty(),
            // It alone mounts, and maps files by way of that.
            "views" => CapabilitySet::SYS_ADMIN,
            _ => serving,
        };
        thread.assert_confined(capabilities, bounded);
    }
    let mut names: Vec<_> = threads.into_iter().map(|thread| thread.name).collect();
    names.sort_unstable();
    names
}

/// A VMM makes the files of a DAX window memory of the guest, whose requests may lie there: O_DIRECT from one mapped file to another.
#[rstest]
fn requests_in_mapped_files_are_served_confined(#[values(false, true)] user: bool) {
    const SIZE: u64 = 2 << 20;
    const WINDOW: u64 = 1 << 40;
    const REPLY: u64 = WINDOW + 4096;
    const TABLE: u64 = WINDOW + 8192;
    let uid = if user { NOBODY } else { 0 };
    let Some(daemon) = start(user, &["--seccomp", "kill", "--dax", "64M", "--dax-files", "always"]) else {
        return;
    };
    let path = daemon.directory.path().join("data/file");
    let mut session = Session::of(daemon, Requests::new(uid, uid));
    let created = session
        .ask(|requests| requests.create(ROOT, b"file", 2, 0o644))
        .unwrap();
    let (node, handle) = (field_u64(&created, 0), field_u64(&created, 128));
    let file = File::options().read(true).write(true).open(&path).unwrap();
    file.set_len(SIZE).unwrap();
    session.guest.map_file(WINDOW, SIZE, file).unwrap();

    let requests = &mut session.requests;
    for request in [
        requests.write(node, handle, SIZE, b"behind"),
        requests.read(node, handle, SIZE, 6),
    ] {
        let memory = session.guest.memory().clone();
        memory.write(WINDOW, &request.readable).unwrap();
        let buffer = |address, length| Buffer { address, length };
        let readable = buffer(WINDOW, u32::try_from(request.readable.len()).unwrap());
        let queue = &mut session.guest.queues[1];
        queue
            .ring()
            .post_indirect(TABLE, &[readable], &[buffer(REPLY, request.reply_space)])
            .unwrap();
        queue.kick().unwrap();
        let (_, written, _) = queue.wait().unwrap();
        let mut bytes = vec![0; written as usize];
        memory.read(REPLY, &mut bytes).unwrap();
        assert!(reply(&request, written, &bytes).unwrap().is_ok(), "{bytes:?}");
    }
    assert_eq!(fs::read(&path).unwrap()[SIZE as usize..], *b"behind");
    session.ask(|requests| requests.getattr(ROOT)).unwrap();
    assert_eq!(session.daemon.child.try_wait().unwrap(), None);
}

#[rstest]
fn every_thread_is_confined(
    #[values("auto", "namespace", "chroot", "landlock")] mode: &str,
    #[values(false, true)] user: bool,
) {
    if user && mode == "chroot" {
        return; // which takes root
    }
    let uid = if user { NOBODY } else { 0 };
    let Some(daemon) = start(user, &["--sandbox", mode, "--num-queues", "2"]) else {
        return;
    };
    let process = daemon.child.id();
    let mut session = Session::of(daemon, Requests::new(uid, uid));
    // It still serves: files are made, written and read.
    let created = session
        .ask(|requests| requests.create(ROOT, b"file", 2, 0o644))
        .unwrap();
    let (node, handle) = (field_u64(&created, 0), field_u64(&created, 128));
    session
        .ask(|requests| requests.write(node, handle, 0, b"written"))
        .unwrap();
    assert_eq!(
        session.ask(|requests| requests.read(node, handle, 0, 100)).unwrap(),
        b"written"
    );
    session
        .ask(|requests| requests.mkdir(ROOT, b"directory", 0o755))
        .unwrap();
    session.ask(|requests| requests.lookup(ROOT, b"directory")).unwrap();

    let serving = if user { CapabilitySet::empty() } else { SERVING };
    let threads = assert_confined(process, serving, !user);
    assert_eq!(threads, ["innkeeper", "lane-0", "lane-1", "signals"]);

    let proc = format!("/proc/{process}");
    let namespace = |name: &str, whose: &str| fs::read_link(format!("/proc/{whose}/ns/{name}")).unwrap();
    if matches!(mode, "auto" | "namespace") {
        for name in ["mnt", "net", "ipc", "uts", "cgroup"] {
            assert_ne!(namespace(name, &process.to_string()), namespace(name, "self"), "{name}");
        }
    }
    if mode != "landlock" {
        let root = fs::read_dir(format!("{proc}/root")).unwrap();
        let mut names: Vec<_> = root.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["directory", "file"], "the root is the shared directory");
    }
}

/// What an option adds, and to which threads.
#[rstest]
#[case(&["--allow-chattr"], CapabilitySet::LINUX_IMMUTABLE)]
#[case(&["--allow-trusted-xattr"], CapabilitySet::SYS_ADMIN)]
#[case(
    &["--allow-security-labels"],
    CapabilitySet::SYS_ADMIN.union(CapabilitySet::MAC_ADMIN).union(CapabilitySet::MAC_OVERRIDE),
)]
#[case(&["--dax", "2M"], CapabilitySet::empty())]
fn a_capability_that_reaches_far_is_there_for_who_asks(#[case] options: &[&str], #[case] added: CapabilitySet) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root has capabilities");
        return;
    }
    let Some(daemon) = start(false, options) else { return };
    let process = daemon.child.id();
    let mut session = Session::of(daemon, Requests::new(0, 0));
    session
        .ask(|requests| requests.mkdir(ROOT, b"directory", 0o755))
        .unwrap();
    assert_confined(process, SERVING | added, true);
}

#[test]
fn what_the_sandbox_cannot_do_is_told_with_what_to_switch_off() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("socket");
    let path = directory.path().to_str().unwrap();
    let options = ["share", path, "--socket-path", socket.to_str().unwrap()];
    let output = innkeeper(options)
        .args(["--sandbox", "landlock", "--inode-file-handles", "mandatory"])
        .output()
        .unwrap();
    assert_refused(&output, 1, &["file", "handles", "--sandbox namespace"]);
    assert!(!socket.exists(), "the socket is gone");
}

/// As root nodes are kept by handle; without handles they are closed and found again by name.
#[rstest]
#[case::handles("namespace", false)]
#[case::landlock("landlock", false)]
#[case::user("auto", true)]
fn a_daemon_that_may_open_64_files_serves_ten_thousand(#[case] mode: &str, #[case] user: bool) {
    let uid = if user { NOBODY } else { 0 };
    let Some(daemon) = start(user, &["--sandbox", mode, "--num-queues", "2", "--rlimit-nofile", "64"]) else {
        return;
    };
    let data = daemon.directory.path().join("data");
    for directory in 0..100 {
        let directory = data.join(format!("directory{directory}"));
        fs::create_dir(&directory).unwrap();
        for file in 0..100 {
            fs::write(directory.join(format!("file{file}")), file.to_string()).unwrap();
        }
    }
    let descriptors = format!("/proc/{}/fd", daemon.child.id());
    let mut session = Session::of(daemon, Requests::new(uid, uid));
    // The second guest finds a daemon that has room for it.
    for _ in 0..2 {
        let mut files = Vec::new();
        for directory in 0..100 {
            let name = format!("directory{directory}");
            let entry = session.ask(|requests| requests.lookup(ROOT, name.as_bytes())).unwrap();
            let directory = field_u64(&entry, 0);
            for file in 0..100 {
                let name = format!("file{file}");
                let entry = session
                    .ask(|requests| requests.lookup(directory, name.as_bytes()))
                    .unwrap();
                let node = field_u64(&entry, 0);
                let opened = session.ask(|requests| requests.open(node, 0)).unwrap();
                let handle = field_u64(&opened, 0);
                let text = session.ask(|requests| requests.read(node, handle, 0, 100)).unwrap();
                assert_eq!(text, file.to_string().as_bytes());
                session.ask(|requests| requests.release(node, handle)).unwrap();
                files.push(node);
            }
        }
        for node in files {
            session.ask(|requests| requests.getattr(node)).unwrap();
        }
        let open = fs::read_dir(&descriptors).unwrap().count();
        assert!(
            open <= 56,
            "{open} descriptors leave no room for requests and the next front end"
        );
        session = session.next();
    }
}
