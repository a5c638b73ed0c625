use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use driver::{Guest, Options, fs::Requests};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::CapabilitySet;

use crate::session::{Daemon, Session};
use crate::{assert_refused, complaint, innkeeper};

impl Daemon {
    fn start(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("data")).unwrap();
        let mut command = innkeeper(["share"]);
        command
            .arg(directory.path().join("data"))
            .arg("--socket-path")
            .arg(directory.path().join("socket"));
        Self::run(command.args(options), directory)
    }

    /// Started by a shell that has set a limit, as a service manager would.
    fn limited(limit: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("data")).unwrap();
        let mut command = Command::new("/bin/sh");
        command
            .args([
                "-c",
                &format!("{limit}; exec \"$@\""),
                "sh",
                env!("CARGO_BIN_EXE_innkeeper"),
                "share",
            ])
            .arg(directory.path().join("data"))
            .arg("--socket-path")
            .arg(directory.path().join("socket"));
        Self::run(&mut command, directory)
    }

    pub(crate) fn signal(&mut self, signal: Signal) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap()
    }
}

fn share(directory: &Path, socket: &Path, options: &[&str]) -> std::process::Output {
    innkeeper(["share"])
        .arg(directory)
        .arg("--socket-path")
        .arg(socket)
        .args(options)
        .output()
        .unwrap()
}

#[test]
fn what_it_announces_is_right_for_its_options() {
    let daemon = Daemon::start(&["--tag", "data", "--num-queues", "3", "--ring", "packed", "--readonly"]);
    let socket = daemon.socket();
    let said = &daemon.announced;
    assert!(
        said.contains(&format!("-chardev socket,id=share,path={}", socket.display())),
        "{said}"
    );
    assert!(said.contains("memory-backend-memfd,id=mem,size=1G,share=on"), "{said}");
    let device = "-device vhost-user-fs-pci,chardev=share,tag=data,num-request-queues=3,packed=on";
    assert!(said.contains(device), "{said}");
    assert!(said.contains("mount -t virtiofs -o ro data /mnt"), "{said}");
}

#[test]
fn a_guest_after_another_is_served_on_the_rings_that_were_offered() {
    for (ring, packed) in [("split", false), ("auto", true), ("packed", true)] {
        let daemon = Daemon::start(&["--ring", ring, "--num-queues", "2", "--tag", "data"]);
        for _ in 0..2 {
            let options = Options {
                queues: 3,
                packed,
                ..Options::default()
            };
            let mut guest = Guest::connect(&daemon.socket(), &options).unwrap();
            assert_eq!(guest.features() >> 34 & 1 == 1, packed);
            let config = guest.device_config(40).unwrap();
            assert_eq!(
                (&config[..5], config[36]),
                (&b"data\0"[..], 2),
                "tag and number of request queues"
            );
            let request = Requests::new(0, 0).init(31, 0);
            let (written, reply) = guest.queues[1].call(&request.readable, request.reply_space).unwrap();
            assert!(driver::fs::reply(&request, written, &reply).unwrap().is_ok());
        }
        if ring == "split" {
            let options = Options {
                packed: true,
                ..Options::default()
            };
            assert!(
                Guest::connect(&daemon.socket(), &options).is_err(),
                "packed rings are not offered"
            );
        }
    }
}

/// setrlimit(2): a write beyond RLIMIT_FSIZE raises SIGXFSZ, which ends a process that does not ask otherwise.
#[test]
fn a_write_beyond_the_daemons_limit_of_file_size_costs_that_write_alone() {
    let daemon = Daemon::limited("ulimit -f 1");
    let mut session = Session::of(daemon, Requests::new(0, 0));
    let created = session
        .ask(|requests| requests.create(driver::fs::ROOT, b"file", libc::O_RDWR as u32, 0o644))
        .unwrap();
    let (node, handle) = (driver::fs::field_u64(&created, 0), driver::fs::field_u64(&created, 128));
    let mut write = |offset, data: &[u8]| session.ask(|requests| requests.write(node, handle, offset, data));
    assert_eq!(write(1 << 20, b"beyond"), Err(libc::EFBIG));
    assert!(write(0, b"within").is_ok());
}

/// With CAP_SYS_RESOURCE a guest would be above quotas. What one thread keeps, a guest may reach.
#[test]
fn no_thread_of_it_keeps_what_no_share_needs() {
    let daemon = Daemon::start(&["--num-queues", "2"]);
    let _guest = Guest::connect(&daemon.socket(), &Options::default()).unwrap();
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.child.id())).unwrap();
    let mut threads = 0;
    for task in tasks {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        for set in ["CapInh:", "CapPrm:", "CapEff:"] {
            let line = status.lines().find_map(|line| line.strip_prefix(set)).unwrap();
            let held = CapabilitySet::from_bits_retain(u64::from_str_radix(line.trim(), 16).unwrap());
            assert!(!held.contains(CapabilitySet::SYS_RESOURCE), "{set} {held:?}");
            assert!(!held.contains(CapabilitySet::SYS_MODULE), "{set} {held:?}");
        }
        threads += 1;
    }
    assert!(threads > 1, "queues have threads of their own");
}

#[test]
fn a_guest_opens_20000_files_where_the_hard_limit_can_be_raised() {
    let daemon = Daemon::limited("ulimit -n 4096");
    fs::write(daemon.directory.path().join("data/file"), "").unwrap();
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.child.id())).unwrap();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .unwrap();
    let limit: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
    let sentence = format!("At most {limit} files are open at a time");
    assert!(daemon.announced.contains(&sentence), "{}", daemon.announced);
    if limit == 4096 {
        eprintln!("skipped: needs CAP_SYS_RESOURCE");
        return;
    }
    let mut session = Session::of(daemon, Requests::new(0, 0));
    let found = session
        .ask(|requests| requests.lookup(driver::fs::ROOT, b"file"))
        .unwrap();
    let node = driver::fs::field_u64(&found, 0);
    for opened in 0..20_000 {
        let answer = session.ask(|requests| requests.open(node, 0));
        assert!(answer.is_ok(), "after {opened} files");
    }
}

#[test]
fn the_fewest_open_files_that_may_be_asked_for_are_enough() {
    let daemon = Daemon::start(&["--rlimit-nofile", "64"]);
    let mut guest = Guest::connect(&daemon.socket(), &Options::default()).unwrap();
    let mut requests = Requests::new(0, 0);
    for request in [requests.init(31, 0), requests.opendir(driver::fs::ROOT)] {
        let (written, reply) = guest.queues[1].call(&request.readable, request.reply_space).unwrap();
        assert!(driver::fs::reply(&request, written, &reply).unwrap().is_ok());
    }
}

#[test]
fn a_signal_ends_it_cleanly_and_the_socket_is_gone() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut daemon = Daemon::start(&[]);
        assert_eq!(
            fs::metadata(daemon.socket()).unwrap().mode() & 0o077,
            0,
            "only the owner may connect"
        );
        assert_eq!(daemon.signal(signal).code(), Some(0));
        assert!(!daemon.socket().exists());
    }
}

#[test]
fn a_signal_ends_it_in_the_middle_of_a_session() {
    let mut daemon = Daemon::start(&[]);
    let _guest = Guest::connect(&daemon.socket(), &Options::default()).unwrap();
    assert_eq!(daemon.signal(Signal::TERM).code(), Some(0));
    assert!(!daemon.socket().exists());
}

#[test]
fn a_socket_that_nobody_listens_on_any_more_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let mut command = innkeeper(["share"]);
    command.arg(directory.path()).arg("--socket-path").arg(&socket);
    let successor = Daemon::run(&mut command, directory);
    assert!(Guest::connect(&socket, &Options::default()).is_ok());
    drop(successor);
}

#[test]
fn an_inherited_listening_descriptor_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("given");
    let listener = UnixListener::bind(&path).unwrap();
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let mut command = innkeeper(["share"]);
    command
        .arg(directory.path())
        .args(["--fd", &listener.as_raw_fd().to_string()]);
    let daemon = Daemon::run(&mut command, tempfile::tempdir().unwrap());
    drop(listener);
    assert!(
        daemon.announced.contains(path.to_str().unwrap()),
        "{}",
        daemon.announced
    );
    assert!(Guest::connect(&path, &Options::default()).is_ok());
}

#[test]
fn what_cannot_be_shared_is_refused_in_a_sentence() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let missing = share(&directory.path().join("missing"), &socket, &[]);
    assert_refused(&missing, 1, &["missing", "no such directory", "create it"]);
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    assert_refused(
        &share(&file, &socket, &[]),
        1,
        &["not a directory", "share the directory that holds it"],
    );
    assert!(!socket.exists(), "nothing is left of a refused share");
}

#[test]
fn a_directory_without_permission_is_refused_in_a_sentence() {
    let directory = tempfile::tempdir().unwrap();
    let closed = directory.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = innkeeper(["share"]);
    if rustix::process::geteuid().is_root() {
        // Nothing is closed to root, so another user is asked, from a binary and a directory that it can reach.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let program = directory.path().join("innkeeper");
        fs::copy(env!("CARGO_BIN_EXE_innkeeper"), &program).unwrap();
        command = Command::new(program);
        command.arg("share").uid(65534).gid(65534);
    }
    let output = command
        .arg(&closed)
        .arg("--socket-path")
        .arg(directory.path().join("socket"))
        .output()
        .unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    assert_refused(&output, 1, &["may not read and enter it", "change its mode"]);
}

#[test]
fn a_socket_that_cannot_be_had_is_refused_in_a_sentence() {
    let daemon = Daemon::start(&[]);
    let directory = daemon.directory.path();
    assert_refused(
        &share(directory, &daemon.socket(), &[]),
        1,
        &["in use by another process", "--socket-path"],
    );
    assert!(
        Guest::connect(&daemon.socket(), &Options::default()).is_ok(),
        "the first daemon goes on"
    );

    let long = directory.join("s".repeat(108));
    assert_refused(
        &share(directory, &long, &[]),
        1,
        &["bytes and Linux allows 107", "choose a shorter one"],
    );
    let file = directory.join("file");
    fs::write(&file, "precious").unwrap();
    assert_refused(&share(directory, &file, &[]), 1, &["exists and is not a socket"]);
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    let nowhere = directory.join("nowhere/socket");
    assert_refused(
        &share(directory, &nowhere, &[]),
        1,
        &["cannot listen on", "a directory that exists"],
    );
    let group = share(directory, &directory.join("s"), &["--socket-group", "no-such-group"]);
    assert_refused(&group, 1, &["no group no-such-group"]);
}

/// To ask must cost no connection: the listener may take one alone, as virtiofsd does.
#[test]
fn who_listens_on_a_socket_already_is_not_disturbed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(directory.path(), &link).unwrap();
    for path in [path, link.join("socket")] {
        let refused = share(directory.path(), &path, &[]);
        assert_refused(&refused, 1, &["in use by another process"]);
        assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }
}

#[test]
fn a_descriptor_that_does_not_listen_is_refused_in_a_sentence() {
    let output = innkeeper(["share", "/", "--fd", "99"]).output().unwrap();
    assert_refused(
        &output,
        1,
        &["descriptor 99 is not a listening UNIX socket", "--socket-path"],
    );
}

#[test]
fn it_ends_as_it_would_where_nobody_reads_why() {
    let closed = || {
        let (_, writer) = std::io::pipe().unwrap();
        writer
    };
    let mut share = innkeeper(["share", "/no/such/directory", "--socket-path", "/no/such/socket"]);
    assert_eq!(share.stderr(closed()).status().unwrap().code(), Some(1));
    let examined = innkeeper(["why", "--doctor"]).output().unwrap().status;
    let unread = innkeeper(["why", "--doctor"]).stdout(closed()).status().unwrap();
    assert_eq!(unread.code(), examined.code());
}

#[test]
fn a_wrong_command_line_has_status_2_and_says_what_is_allowed() {
    let long = "t".repeat(37);
    for (options, part) in [
        (&["--socket-path", "/s", "--tag", ""][..], "1 to 36 bytes"),
        (&["--socket-path", "/s", "--tag", &long], "it has 37 bytes"),
        (&["--socket-path", "/s", "--num-queues", "0"], "1..=64"),
        (&["--socket-path", "/s", "--num-queues", "65"], "1..=64"),
        (
            &["--socket-path", "/s", "--cache", "some"],
            "never, metadata, auto, always",
        ),
        (&["--socket-path", "/s", "--fd", "3"], "cannot be used with"),
        (
            &["--socket-path", "/s", "--rlimit-nofile", "3"],
            "'--rlimit-nofile <N>': give at least 64",
        ),
        (
            &["--socket-path", "/s", "--rlimit-nofile", "many"],
            "or 0 to leave it unchanged",
        ),
        (&[], "--socket-path"),
    ] {
        let output = innkeeper(["share", "/"]).args(options).output().unwrap();
        let said = complaint(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(part), "{part:?} is missing in: {said}");
    }
}
