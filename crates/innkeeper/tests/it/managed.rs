use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use driver::fs::{ROOT, Requests, field_u64};
use rstest::rstest;
use rustix::thread::CapabilitySet;
use tempfile::TempDir;

use crate::confined::{SERVING, assert_confined};
use crate::ordinary::{USER, home};
use crate::session::{Daemon, Session};

/// What containers have of root's capabilities (Docker, containerd, CRI-O).
const CONTAINER: [&str; 14] = [
    "chown",
    "dac_override",
    "fsetid",
    "fowner",
    "mknod",
    "net_raw",
    "setgid",
    "setuid",
    "setfcap",
    "setpcap",
    "net_bind_service",
    "sys_chroot",
    "kill",
    "audit_write",
];

/// A control group of the test's own, where there is cgroup v2 to make one in.
struct ControlGroup(Option<PathBuf>);

impl ControlGroup {
    fn new() -> Self {
        let mounts = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
        let mount = mounts.into_iter().find(|mount| mount.join("cgroup.procs").exists());
        let group = mount.map(|mount| mount.join(format!("innkeeper-test-{}", std::process::id())));
        let group = group.filter(|group| fs::create_dir(group).is_ok());
        if group.is_none() {
            eprintln!("no control group of its own: cgroup v2 is not there, or read-only");
        }
        Self(group)
    }

    /// A shell's command to enter it.
    fn entering(&self) -> String {
        match &self.0 {
            Some(group) => format!("echo $$ > {}/cgroup.procs;", group.display()),
            None => String::new(),
        }
    }

    fn assert_has(&self, process: u32) {
        let Some(group) = &self.0 else { return };
        let members = fs::read_to_string(group.join("cgroup.procs")).unwrap();
        assert!(members.lines().any(|member| member == process.to_string()), "{members}");
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        if let Some(group) = &self.0 {
            let _ = fs::remove_dir(group);
        }
    }
}

/// Makes, writes, reads and finds files. Answers the node of one of them.
fn uses(session: &mut Session) -> u64 {
    let created = session
        .ask(|requests| requests.create(ROOT, b"file", 2, 0o644))
        .unwrap();
    let (node, handle) = (field_u64(&created, 0), field_u64(&created, 128));
    session
        .ask(|requests| requests.write(node, handle, 0, b"written"))
        .unwrap();
    let read = session.ask(|requests| requests.read(node, handle, 0, 100));
    assert_eq!(read.unwrap(), b"written");
    session
        .ask(|requests| requests.mkdir(ROOT, b"directory", 0o755))
        .unwrap();
    session.ask(|requests| requests.lookup(ROOT, b"directory")).unwrap();
    node
}

fn owners(home: &Path) -> (u32, u32) {
    let metadata = fs::metadata(home.join("data/file")).unwrap();
    (metadata.uid(), metadata.gid())
}

/// libvirt makes the socket and hands it over, under a user, with nothing on standard input. Nobody makes a user namespace under a
/// changed root (unshare(2)), nor in most containers.
#[rstest]
fn libvirt_starts_it_with_a_listener_under_a_user_of_its_own(
    #[values("", "--no-new-privs")] privileges: &str,
    #[values(false, true)] changed_root: bool,
) {
    let Some(home) = home() else { return };
    let group = ControlGroup::new();
    let socket = home.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    chown(&socket, Some(USER), Some(USER)).unwrap();
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let root = if changed_root {
        "mkdir root; mount --rbind / root; exec chroot root"
    } else {
        "exec"
    };
    let script = format!(
        "set -e; {} {root} setpriv --reuid {USER} --regid {USER} --clear-groups --bounding-set=-all {privileges} \
         \"$PWD/innkeeper\" share \"$PWD/data\" \"$@\"",
        group.entering()
    );
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"])
        .args(["--fd", &listener.as_raw_fd().to_string()])
        .args(["--num-queues", "2", "--log-level", "info"])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .current_dir(home.path());
    let daemon = Daemon::run(&mut command, home);
    drop(listener);
    let (process, home) = (daemon.child.id(), daemon.directory.path().to_path_buf());
    group.assert_has(process);
    let mut session = Session::of(daemon, Requests::new(0, 0));
    let node = uses(&mut session);
    assert_eq!(owners(&home), (USER, USER));
    let away = session.ask(|requests| requests.chown(node, 33, 33));
    assert!(matches!(away, Err(libc::EPERM | libc::EINVAL)), "{away:?}");
    session.ask(|requests| requests.chown(node, USER, USER)).unwrap();
    assert_confined(process, CapabilitySet::empty(), true);
    let (said, _home) = session.end();
    assert!(socket.exists(), "it is libvirt's to remove");
    assert!(!changed_root || said.contains("confined by Landlock\n"), "{said}");
}

/// Kata Containers and KubeVirt start it in a container: root, with the capabilities of a container.
#[rstest]
fn kata_starts_it_as_root_without_cap_sys_admin(#[values("", ",-sys_chroot", ",-sys_chroot,-setpcap")] less: &str) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: takes root");
        return;
    }
    let directory = TempDir::new().unwrap();
    fs::create_dir(directory.path().join("data")).unwrap();
    fs::set_permissions(directory.path().join("data"), fs::Permissions::from_mode(0o777)).unwrap();
    let group = ControlGroup::new();
    let script = format!(
        "{} exec setpriv --bounding-set=-all,+{}{less} --inh-caps=-all \"$@\"",
        group.entering(),
        CONTAINER.join(",+"),
    );
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"])
        .args([
            env!("CARGO_BIN_EXE_innkeeper"),
            "share",
            "data",
            "--socket-path",
            "socket",
        ])
        .args(["--num-queues", "2", "--log-level", "debug"])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .current_dir(directory.path());
    let daemon = Daemon::run(&mut command, directory);
    let (process, home) = (daemon.child.id(), daemon.directory.path().to_path_buf());
    group.assert_has(process);
    let mut session = Session::of(daemon, Requests::new(1000, 1001));
    let node = uses(&mut session);
    assert_eq!(owners(&home), (1000, 1001));
    session.ask(|requests| requests.chown(node, 33, 34)).unwrap();
    assert_eq!(owners(&home), (33, 34));
    // No container has the other one.
    let serving = SERVING.difference(CapabilitySet::DAC_READ_SEARCH);
    assert_confined(process, serving, !less.contains("setpcap"));
    let (said, _directory) = session.end();
    let sandbox = if less.is_empty() { "a changed root" } else { "Landlock" };
    assert!(said.contains(&format!("confined by {sandbox}\n")), "{said}");
    assert!(said.contains("not CAP_SYS_ADMIN"), "{said}");
}
