//! A child process of one thread, as root or as an ordinary user.

use std::fs;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write, pipe};
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Output};

use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::process::{DumpableBehavior, Gid, Pid, Uid, WaitOptions, geteuid, set_dumpable_behavior, waitpid};
use rustix::thread::{UnshareFlags, set_thread_groups, set_thread_res_gid, set_thread_res_uid, unshare_unsafe};

/// Who a child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    Root,
    Ordinary,
    /// The same ordinary user, on a host that grants them subordinate ids (subuid(5)).
    Granted,
}

/// The ids of an ordinary user.
pub(crate) const ORDINARY: u32 = 12345;

impl User {
    pub(crate) fn id(self) -> u32 {
        match self {
            User::Root => 0,
            User::Ordinary | User::Granted => ORDINARY,
        }
    }
}

/// Runs a test that is ignored otherwise in a process of its own, in which no other thread is at work when it forks. Passes if that does.
#[track_caller]
pub(crate) fn alone(test: &str) {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: these tests make users and devices, which root alone may");
        return;
    }
    let Output { status, stdout, stderr } = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        // Whoever is confined finds no program to read symbols from.
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let said = [stdout, stderr].concat();
    let said = String::from_utf8_lossy(&said);
    said.lines()
        .filter(|line| line.starts_with("SKIPPED"))
        .for_each(|line| eprintln!("{line}"));
    assert!(status.success(), "{said}");
    assert!(said.contains("1 passed"), "no test {test}: {said}");
}

/// The child's end of the talk.
pub(crate) struct Talk {
    say: PipeWriter,
    hear: PipeReader,
}

impl Talk {
    /// Sends a line.
    pub(crate) fn say(&mut self, line: &str) {
        self.say.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Waits until the parent goes on.
    pub(crate) fn wait(&mut self) {
        let _closed = self.hear.read(&mut [0]).unwrap();
    }
}

/// The parent's end.
pub(crate) struct Child {
    pub(crate) pid: Pid,
    hear: BufReader<PipeReader>,
    say: PipeWriter,
}

/// How a child ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    Exit(i32),
    Signal(i32),
}

impl Child {
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.hear.read_line(&mut line).unwrap();
        line.strip_suffix('\n').map(str::to_owned)
    }

    /// Lets it go on, hears the rest and waits for its end.
    pub(crate) fn end(mut self) -> (End, String) {
        drop(self.say);
        let mut rest = String::new();
        self.hear.read_to_string(&mut rest).unwrap();
        let (_, status) = waitpid(Some(self.pid), WaitOptions::empty()).unwrap().unwrap();
        let end = match status.exit_status() {
            Some(code) => End::Exit(code),
            None => End::Signal(status.terminating_signal().unwrap()),
        };
        (end, rest)
    }
}

/// Runs `body` in a child as `user`.
pub(crate) fn fork(user: User, body: impl FnOnce(&mut Talk)) -> Child {
    let (from_child, say) = pipe().unwrap();
    let (hear, to_child) = pipe().unwrap();
    // SAFETY: the only other thread, if there is one, waits for this test and holds no lock.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "{}", std::io::Error::last_os_error());
    let Some(pid) = Pid::from_raw(pid) else {
        drop((from_child, to_child));
        let mut talk = Talk { say, hear };
        let run = || {
            become_user(user);
            body(&mut talk);
        };
        let code = i32::from(catch_unwind(AssertUnwindSafe(run)).is_err());
        // SAFETY: ends the child, with nothing of its parent's undone.
        unsafe { libc::_exit(code) }
    };
    Child {
        pid,
        hear: BufReader::new(from_child),
        say: to_child,
    }
}

fn become_user(user: User) {
    if user == User::Root {
        return;
    }
    if user == User::Granted {
        grant();
    }
    set_thread_groups(&[]).unwrap();
    let (uid, gid) = (Uid::from_raw(user.id()), Gid::from_raw(user.id()));
    set_thread_res_gid(gid, gid, gid).unwrap();
    set_thread_res_uid(uid, uid, uid).unwrap();
    // As it is after execve(2), so that its files in /proc are its own.
    set_dumpable_behavior(DumpableBehavior::Dumpable).unwrap();
}

/// Has this process see a host that knows the ordinary user and grants them ids.
fn grant() {
    // SAFETY: the table of descriptors stays shared (no CLONE_FILES).
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    let users = fs::read_to_string("/etc/passwd").unwrap() + &format!("ordinary:x:{ORDINARY}:{ORDINARY}::/:/bin/sh\n");
    let grants = "ordinary:100000:65536\n";
    for (path, content) in [
        ("/etc/passwd", &*users),
        ("/etc/subuid", grants),
        ("/etc/subgid", grants),
    ] {
        // What is mounted stays when the file's name is gone.
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        mount_bind(file.path(), path).unwrap();
    }
}

/// Why no process can be [`User::Granted`].
pub(crate) fn nothing_granted() -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = |program: &str| std::env::split_paths(&path).any(|directory| directory.join(program).exists());
    let missing = ["newuidmap", "newgidmap"].into_iter().find(|program| !in_path(program));
    let missing = missing.or_else(|| {
        let mut tables = ["/etc/subuid", "/etc/subgid"].into_iter();
        tables.find(|path| !Path::new(path).exists())
    });
    missing.map(|missing| format!("no {missing} (Debian package uidmap)"))
}
