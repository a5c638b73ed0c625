use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use driver::fs::Requests;
use driver::{Guest, Options};
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tempfile::TempDir;

use crate::{assert_refused, complaint, innkeeper};

/// How long something may take that takes no time, before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon, and the mount of what it shares.
struct Mounted {
    daemon: Child,
    relay: Child,
    announced: String,
    directory: TempDir,
}

impl Mounted {
    /// Our own daemon.
    fn new(daemon_options: &[&str], mount_options: &[&str]) -> Option<Self> {
        Self::with(
            |directory| {
                let mut daemon = innkeeper(["share"]);
                daemon.arg(directory.join("data")).args(daemon_options);
                daemon
            },
            mount_options,
        )
    }

    /// Any daemon that takes `--socket-path`.
    fn with(daemon: impl FnOnce(&Path) -> Command, mount_options: &[&str]) -> Option<Self> {
        if !permitted() {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::create_dir(path.join("data")).unwrap();
        fs::create_dir(path.join("mnt")).unwrap();
        let mut daemon = daemon(path);
        let daemon = daemon
            .arg("--socket-path")
            .arg(path.join("socket"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for(|| listens(&path.join("socket")));
        let (relay, announced) = start(path, mount_options);
        Some(Self {
            daemon,
            relay,
            announced,
            directory,
        })
    }

    /// Where the share lies on the host.
    fn data(&self, name: &str) -> PathBuf {
        self.directory.path().join("data").join(name)
    }

    /// The same through the mount.
    fn mnt(&self, name: &str) -> PathBuf {
        self.directory.path().join("mnt").join(name)
    }

    fn mountpoint(&self) -> PathBuf {
        self.directory.path().join("mnt")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.relay), signal).unwrap();
    }

    /// Waits for the end of the relay, and gives its status and what it complained about.
    fn end(&mut self) -> (ExitStatus, String) {
        let status = end_of(&mut self.relay);
        let mut said = String::new();
        self.relay.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (status, said)
    }

    fn is_mounted(&self) -> bool {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        mounts.contains(self.mountpoint().to_str().unwrap())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // The relay first, so that nobody waits for a reply any more.
        for child in [&mut self.relay, &mut self.daemon] {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = rustix::mount::unmount(self.mountpoint(), UnmountFlags::DETACH);
    }
}

/// Whether somebody listens on the socket; its file is there a moment before. To connect would take the place of the front end.
fn listens(socket: &Path) -> bool {
    /// `__SO_ACCEPTCON` (linux/net.h).
    const LISTENING: &str = "00010000";
    let sockets = fs::read_to_string("/proc/net/unix").unwrap();
    let mut sockets = sockets.lines().map(|line| line.split_whitespace());
    sockets.any(|mut fields| fields.nth(3) == Some(LISTENING) && fields.next_back() == socket.to_str())
}

/// Starts a mount of what the daemon in `directory` serves, and waits for its line.
fn start(directory: &Path, options: &[&str]) -> (Child, String) {
    let mut relay = innkeeper(["mount"])
        .args([directory.join("socket"), directory.join("mnt")])
        .args(options)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut announced = String::new();
    let mut stdout = BufReader::new(relay.stdout.take().unwrap());
    stdout.read_line(&mut announced).unwrap();
    if announced.is_empty() {
        let output = relay.wait_with_output().unwrap();
        panic!("nothing was mounted: {}", String::from_utf8_lossy(&output.stderr));
    }
    (relay, announced)
}

/// Whether this process may mount. Where it may not, the test says so and does nothing.
pub(crate) fn permitted() -> bool {
    let permitted = rustix::process::geteuid().is_root()
        && OpenOptions::new().read(true).write(true).open("/dev/fuse").is_ok()
        && rustix::mount::fsopen("fuse", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC).is_ok();
    if !permitted {
        eprintln!("SKIPPED: mounting takes root (CAP_SYS_ADMIN) and /dev/fuse");
    }
    permitted
}

/// Idmapped mounts, which take calls that no library wraps.
mod idmapped;

#[track_caller]
pub(crate) fn wait_for(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "it never came");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
pub(crate) fn end_of(child: &mut Child) -> ExitStatus {
    let mut status = None;
    wait_for(|| {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

/// Stops a child, every thread of it: its threads run on after the signal until one of them takes it,
/// and the parent is told when the last has stopped (wait(2), `WUNTRACED`).
fn stop(child: Pid) {
    kill_process(child, Signal::STOP).unwrap();
    let (_, status) = waitpid(Some(child), WaitOptions::UNTRACED).unwrap().unwrap();
    assert!(status.stopped(), "{status:?}");
}

/// A shell in a process of its own: what hangs there can be waited for with patience.
fn shell(script: &str, directory: &Path) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-ec", script]).current_dir(directory);
    command
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// All that one user does, on any rings with any number of queues.
fn exercise(mounted: &Mounted) {
    files(mounted);
    names(mounted);
    let many = mounted.mnt("many");
    fs::create_dir(&many).unwrap();
    for number in 0..5000 {
        File::create(mounted.data("many").join(format!("file-{number}"))).unwrap();
    }
    let mut found: Vec<_> = fs::read_dir(&many)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    found.sort();
    let mut expected: Vec<_> = (0..5000)
        .map(|number| OsString::from(format!("file-{number}")))
        .collect();
    expected.sort();
    assert_eq!(found, expected);
    fs::remove_dir_all(&many).unwrap();
    assert!(!mounted.data("many").exists());
}

fn files(mounted: &Mounted) {
    let contents = noise(64 << 20);
    fs::write(mounted.mnt("large"), &contents).unwrap();
    assert!(fs::read(mounted.data("large")).unwrap() == contents, "written whole");
    let reversed: Vec<u8> = contents.iter().rev().copied().collect();
    fs::write(mounted.data("other"), &reversed).unwrap();
    assert!(fs::read(mounted.mnt("other")).unwrap() == reversed, "read whole");

    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(mounted.mnt("large"))
        .unwrap();
    file.write_all_at(b"in the middle", (32 << 20) + 4093).unwrap();
    file.seek(SeekFrom::Start((32 << 20) + 4093)).unwrap();
    let mut back = [0; 13];
    file.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"in the middle");
    file.set_len(100).unwrap();
    assert_eq!(fs::metadata(mounted.data("large")).unwrap().len(), 100);

    let mut truncated = OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(mounted.mnt("other"))
        .unwrap();
    assert_eq!(
        fs::metadata(mounted.data("other")).unwrap().len(),
        0,
        "O_TRUNC has worked"
    );
    truncated.write_all(b"new").unwrap();
    drop(truncated);
    assert_eq!(fs::read(mounted.data("other")).unwrap(), b"new");
}

fn names(mounted: &Mounted) {
    fs::write(mounted.mnt("one"), "1").unwrap();
    fs::write(mounted.mnt("two"), "2").unwrap();
    fs::rename(mounted.mnt("one"), mounted.mnt("two")).unwrap();
    assert!(!mounted.data("one").exists());
    assert_eq!(fs::read(mounted.data("two")).unwrap(), b"1");
    let target = "x".repeat(4095);
    for target in ["two", &target] {
        let _ = fs::remove_file(mounted.mnt("link"));
        symlink(target, mounted.mnt("link")).unwrap();
        assert_eq!(fs::read_link(mounted.mnt("link")).unwrap(), Path::new(target));
    }
    fs::hard_link(mounted.mnt("two"), mounted.mnt("three")).unwrap();
    assert_eq!(fs::metadata(mounted.data("three")).unwrap().nlink(), 2);
    let missing = fs::metadata(mounted.mnt("missing")).unwrap_err();
    assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn files_are_the_same_on_both_sides_of_a_mount() {
    for (queues, rings) in [("1", "split"), ("2", "split"), ("1", "packed"), ("2", "packed")] {
        let mut options = vec!["--queues", queues];
        options.extend((rings == "packed").then_some("--packed"));
        let Some(mounted) = Mounted::new(&["--num-queues", queues], &options) else {
            return;
        };
        assert!(mounted.announced.contains(rings), "{}", mounted.announced);
        exercise(&mounted);
    }
}

/// With four descriptors there are two places, so that requests wait in the kernel and FORGETs for the daemon.
#[test]
fn a_queue_of_two_requests_serves_many_processes() {
    let Some(mounted) = Mounted::new(&[], &["--queue-size", "4"]) else {
        return;
    };
    parallel(&mounted);
}

#[test]
fn eight_processes_work_side_by_side() {
    for queues in ["1", "2"] {
        let Some(mounted) = Mounted::new(&["--num-queues", queues], &["--queues", queues]) else {
            return;
        };
        parallel(&mounted);
    }
}

/// cp(1) asks for data and holes, and leaves out what is a hole.
#[test]
fn what_is_not_written_back_yet_is_no_hole() {
    for options in [&["--cache", "always", "--writeback"][..], &["--writeback"]] {
        let Some(mounted) = Mounted::new(options, &[]) else {
            return;
        };
        let mut file = File::create(mounted.mnt("file")).unwrap();
        let reader = File::open(mounted.mnt("file")).unwrap();
        file.write_all(&noise(300_000)).unwrap();
        for descriptor in [&file, &reader] {
            let data = rustix::fs::seek(descriptor, rustix::fs::SeekFrom::Data(1000));
            assert_eq!(data, Ok(1000), "{options:?}");
        }
    }
}

/// Eight processes write, list, read back and remove trees of their own; removing has the kernel send FORGETs.
fn parallel(mounted: &Mounted) {
    fs::write(mounted.data("source"), noise(300_000)).unwrap();
    let script = |number: usize| {
        format!(
            "mkdir {number}; for i in $(seq 100); do cp source {number}/$i; done; test $(ls {number} | wc -l) = 100; \
             for i in $(seq 100); do cmp source {number}/$i; done; rm -r {number}"
        )
    };
    let children: Vec<_> = (0..8)
        .map(|number| shell(&script(number), &mounted.mountpoint()).spawn().unwrap())
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(fs::read_dir(mounted.mountpoint()).unwrap().count(), 1);
}

/// The guest's kernel asks once, and again only for a name that others may make meanwhile.
#[test]
fn a_name_that_is_not_there_is_asked_for_once_where_the_guest_is_alone() {
    for (cache, asked) in [("auto", 3), ("always", 1)] {
        let daemon = |directory: &Path| {
            let mut daemon = innkeeper(["share", "--cache", cache, "--log-errors", "--log-errors-to"]);
            daemon.arg(directory.join("log")).arg(directory.join("data"));
            daemon
        };
        let Some(mounted) = Mounted::with(daemon, &[]) else {
            return;
        };
        for _ in 0..3 {
            let missing = File::open(mounted.mnt("file")).unwrap_err();
            assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
        }
        let log = fs::read_to_string(mounted.directory.path().join("log")).unwrap();
        assert_eq!(
            log.lines()
                .filter(|line| line.contains("LOOKUP") && line.contains("\"/file\""))
                .count(),
            asked,
            "{cache}: {log}"
        );
        fs::write(mounted.mnt("file"), "made").unwrap();
        fs::rename(mounted.mnt("file"), mounted.mnt("another")).unwrap();
        assert!(File::open(mounted.mnt("file")).is_err());
        assert_eq!(fs::read(mounted.mnt("another")).unwrap(), b"made");
    }
}

#[test]
fn umount_ends_it_and_the_daemon_serves_the_next() {
    let Some(mut mounted) = Mounted::new(&[], &[]) else {
        return;
    };
    fs::write(mounted.mnt("file"), "kept").unwrap();
    rustix::mount::unmount(mounted.mountpoint(), UnmountFlags::empty()).unwrap();
    let (status, said) = mounted.end();
    assert_eq!((status.code(), said.as_str()), (Some(0), ""));
    assert_eq!(fs::read_dir(mounted.mountpoint()).unwrap().count(), 0);
    (mounted.relay, _) = start(mounted.directory.path(), &["--packed"]);
    assert_eq!(fs::read(mounted.mnt("file")).unwrap(), b"kept");
}

#[test]
fn a_signal_unmounts() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let Some(mut mounted) = Mounted::new(&["--num-queues", "2"], &["--queues", "2"]) else {
            return;
        };
        fs::write(mounted.mnt("file"), "kept").unwrap();
        mounted.signal(signal);
        let (status, said) = mounted.end();
        assert_eq!((status.code(), said.as_str()), (Some(0), ""));
        assert!(!mounted.is_mounted());
    }
}

#[test]
fn a_signal_while_it_is_in_use_unmounts_lazily() {
    let Some(mut mounted) = Mounted::new(&[], &[]) else {
        return;
    };
    let mut file = File::create(mounted.mnt("file")).unwrap();
    mounted.signal(Signal::TERM);
    wait_for(|| !mounted.is_mounted());
    file.write_all(b"still served").unwrap();
    assert_eq!(mounted.relay.try_wait().unwrap(), None);
    drop(file);
    let (status, said) = mounted.end();
    assert_eq!(status.code(), Some(0));
    assert!(said.contains("in use") && said.contains("lazily"), "{said}");
    assert_eq!(fs::read(mounted.data("file")).unwrap(), b"still served");
}

#[test]
fn a_second_signal_ends_it_although_it_is_in_use() {
    let Some(mut mounted) = Mounted::new(&[], &[]) else {
        return;
    };
    let mut file = File::create(mounted.mnt("file")).unwrap();
    mounted.signal(Signal::INT);
    wait_for(|| !mounted.is_mounted());
    mounted.signal(Signal::INT);
    assert_eq!(mounted.end().0.code(), Some(0));
    assert!(file.write_all(b"too late").is_err());
}

/// What stands in the mount is another file system by then, which is not ours to unmount.
#[test]
fn a_mount_on_top_of_it_is_left_alone() {
    let Some(mut mounted) = Mounted::new(&[], &[]) else {
        return;
    };
    let mountpoint = mounted.mountpoint();
    let mut file = File::create(mounted.mnt("file")).unwrap();
    rustix::mount::mount("none", &mountpoint, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    file.write_all(b"before, ").unwrap();
    mounted.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(mounted.relay.try_wait().unwrap(), None);
    file.write_all(b"behind").unwrap();
    drop(file);
    assert_eq!(fs::read(mounted.data("file")).unwrap(), b"before, behind");
    assert!(fs::read_to_string("/proc/self/mounts").unwrap().contains("tmpfs"));
    for _ in 0..2 {
        rustix::mount::unmount(&mountpoint, UnmountFlags::empty()).unwrap();
    }
    let (status, said) = mounted.end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("cannot unmount") && said.contains("on top"), "{said}");
}

#[test]
fn a_signal_after_somebody_else_unmounted_it_lazily_leaves_its_users_alone() {
    let Some(mut mounted) = Mounted::new(&[], &[]) else {
        return;
    };
    let mut file = File::create(mounted.mnt("file")).unwrap();
    rustix::mount::unmount(mounted.mountpoint(), UnmountFlags::DETACH).unwrap();
    mounted.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(200));
    file.write_all(b"still served").unwrap();
    drop(file);
    let (status, said) = mounted.end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("lazily"), "{said}");
    assert_eq!(fs::read(mounted.data("file")).unwrap(), b"still served");
}

#[test]
fn a_daemon_that_dies_costs_an_error_and_no_hang() {
    for queues in ["1", "2"] {
        let Some(mut mounted) = Mounted::new(&["--num-queues", queues], &["--queues", queues]) else {
            return;
        };
        fs::write(mounted.data("file"), "x").unwrap();
        let daemon = Pid::from_child(&mounted.daemon);
        stop(daemon);
        let mut child = Command::new("cat")
            .arg(mounted.mnt("file"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(child.try_wait().unwrap(), None, "nobody answers");
        kill_process(daemon, Signal::KILL).unwrap();
        assert!(!end_of(&mut child).success());
        let (status, said) = mounted.end();
        assert_eq!(status.code(), Some(1));
        assert!(said.contains("has ended") && said.contains("umount"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        let error = fs::metadata(mounted.mnt("file")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN));
    }
}

/// A share of a mount whose relay has stopped: a file system of the host that hangs.
#[test]
fn a_share_whose_file_system_hangs_ends_at_the_second_signal() {
    let Some(mounted) = Mounted::new(&[], &[]) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let mut share = innkeeper(["share"])
        .arg(mounted.mountpoint())
        .arg("--socket-path")
        .arg(&socket)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for(|| listens(&socket));
    let mut guest = Guest::connect(&socket, &Options::default()).unwrap();
    let mut requests = Requests::new(0, 0);
    let init = requests.init(31, 0);
    guest.queues[1].call(&init.readable, init.reply_space).unwrap();
    stop(Pid::from_child(&mounted.relay));
    let lookup = requests.lookup(driver::fs::ROOT, b"missing");
    // Nobody ever answers.
    std::thread::spawn(move || guest.queues[1].call(&lookup.readable, lookup.reply_space));
    wait_for(|| is_in_statx(share.id()));
    let process = Pid::from_child(&share);
    kill_process(process, Signal::TERM).unwrap();
    let mut said = String::new();
    let mut stderr = BufReader::new(share.stderr.take().unwrap());
    stderr.read_line(&mut said).unwrap();
    assert!(
        said.contains("still waiting for the host") && said.contains("another signal"),
        "{said}"
    );
    assert_eq!(share.try_wait().unwrap(), None, "{said}");
    assert!(socket.exists());
    kill_process(process, Signal::TERM).unwrap();
    assert_eq!(end_of(&mut share).code(), Some(0));
    assert!(!socket.exists());
}

/// Whether a thread of the process is in statx(2), which takes no time unless the file system hangs.
fn is_in_statx(process: u32) -> bool {
    let statx = format!("{} ", libc::SYS_statx);
    let mut tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    tasks
        .any(|task| fs::read_to_string(task.unwrap().path().join("syscall")).is_ok_and(|call| call.starts_with(&statx)))
}

#[test]
fn what_cannot_be_mounted_is_refused_in_a_sentence() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("mnt")).unwrap();
    fs::write(path("file"), "").unwrap();
    let mount = |socket: &str, mountpoint: &str| {
        let mut command = innkeeper(["mount"]);
        command.args([path(socket), path(mountpoint)]).output().unwrap()
    };
    assert_refused(
        &mount("socket", "missing"),
        1,
        &["missing", "no such directory", "create it"],
    );
    assert_refused(&mount("socket", "file"), 1, &["not a directory", "name one"]);
    if !permitted() {
        return;
    }
    assert_refused(&mount("socket", "mnt"), 1, &["no daemon listens", "innkeeper share"]);
    drop(UnixListener::bind(path("stale")).unwrap());
    assert_refused(&mount("stale", "mnt"), 1, &["no daemon listens", "innkeeper share"]);
}

#[test]
fn what_the_daemon_does_not_have_is_refused_in_a_sentence() {
    let Some(mut mounted) = Mounted::new(&["--ring", "split"], &[]) else {
        return;
    };
    rustix::mount::unmount(mounted.mountpoint(), UnmountFlags::empty()).unwrap();
    mounted.end();
    let directory = mounted.directory.path();
    let mount = |option: &[&str]| {
        let mut command = innkeeper(["mount"]);
        command.args([directory.join("socket"), directory.join("mnt")]);
        command.args(option).output().unwrap()
    };
    assert_refused(&mount(&["--packed"]), 1, &["no packed rings", "omit --packed"]);
    assert_refused(
        &mount(&["--queues", "2"]),
        1,
        &["has 1 request queues, not 2", "--queues"],
    );
    for size in ["0", "2", "100", "2048"] {
        let output = mount(&["--queue-size", size]);
        assert_eq!(output.status.code(), Some(2));
        assert!(complaint(&output).contains("power of two from 4 to 1024"));
    }
}

#[test]
fn a_dead_mount_on_the_mountpoint_is_refused_in_a_sentence() {
    let Some(mut mounted) = Mounted::new(&[], &[]) else {
        return;
    };
    mounted.relay.kill().unwrap();
    mounted.end();
    let output = innkeeper(["mount"])
        .args([mounted.directory.path().join("socket"), mounted.mountpoint()])
        .output()
        .unwrap();
    assert_refused(&output, 1, &["a mount whose daemon has ended", "umount"]);
}

#[test]
fn who_may_not_mount_is_told_so_in_a_sentence() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: another user's rights are taken by root alone");
        return;
    }
    // From a binary and a directory that the other user can reach.
    let program = directory.path().join("innkeeper");
    fs::copy(env!("CARGO_BIN_EXE_innkeeper"), &program).unwrap();
    let output = Command::new(program)
        .arg("mount")
        .args([directory.path().join("socket"), directory.path().to_path_buf()])
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    // By /dev/fuse where that is root's own, else by the mount.
    assert_refused(&output, 1, &["cannot", "as root"]);
}

/// Skipped where `cargo xtask setup` has not built it.
#[test]
fn virtiofsd_is_mounted_like_our_own_daemon() {
    let home = std::env::var_os("INNKEEPER_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/innkeeper"),
        PathBuf::from,
    );
    let virtiofsd = home.join("tool-virtiofsd/bin/virtiofsd");
    if !virtiofsd.exists() {
        eprintln!("SKIPPED: no virtiofsd; `cargo xtask setup` builds it");
        return;
    }
    let daemon = |directory: &Path| {
        let mut daemon = Command::new(virtiofsd);
        daemon
            .args(["--sandbox", "none", "--shared-dir"])
            .arg(directory.join("data"));
        daemon
    };
    let Some(mut mounted) = Mounted::with(daemon, &[]) else {
        return;
    };
    exercise(&mounted);
    for entry in fs::read_dir(mounted.mountpoint()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    parallel(&mounted);
    mounted.signal(Signal::TERM);
    let (status, said) = mounted.end();
    assert_eq!((status.code(), said.as_str()), (Some(0), ""));
    assert!(end_of(&mut mounted.daemon).success(), "it ends with its only client");
}

/// Nanoseconds that the threads of a process have run.
fn run_time(process: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let of_task = |task: std::io::Result<fs::DirEntry>| {
        let text = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
        text.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    tasks.map(of_task).sum()
}

/// However soon requests came before: what looks for the next one gives up.
#[test]
fn an_idle_mount_uses_no_processor() {
    let Some(mounted) = Mounted::new(&["--num-queues", "2"], &["--queues", "2", "--poll-us", "1000"]) else {
        return;
    };
    for number in 0..1000 {
        fs::write(mounted.mnt(&format!("file-{number}")), "text").unwrap();
    }
    // The last requests of a busy machine may be on their way.
    wait_for(|| {
        let before = run_time(mounted.relay.id());
        std::thread::sleep(Duration::from_millis(200));
        run_time(mounted.relay.id()) == before
    });
    let before = run_time(mounted.relay.id());
    std::thread::sleep(Duration::from_secs(1));
    let used = run_time(mounted.relay.id()) - before;
    assert!(used < 5_000_000, "{used} ns in a second of idleness");
}

#[test]
fn a_mount_that_never_sleeps_ends_at_the_second_signal_all_the_same() {
    let Some(mut mounted) = Mounted::new(&[], &["--poll-us", "1000"]) else {
        return;
    };
    File::create(mounted.data("file")).unwrap();
    let mut busy = shell("while stat file; do :; done", &mounted.mountpoint())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stats = shell(
        "cd mnt; exec 3<file; cd ..; while stat -f /dev/fd/3; do :; done",
        mounted.directory.path(),
    )
    .stdout(Stdio::null())
    .stderr(Stdio::null())
    .spawn()
    .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    mounted.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(300));
    mounted.signal(Signal::TERM);
    assert_eq!(mounted.end().0.code(), Some(0));
    // They get errors now, and end of themselves.
    end_of(&mut busy);
    end_of(&mut stats);
}
