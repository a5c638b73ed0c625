//! What each sandbox stops by itself, with a share's capabilities and without seccomp. This is the source of the table in SECURITY.md.

use std::io;
use std::panic::resume_unwind;

use confinement::{Ids, Kind, Maps, Sandbox, capabilities, sandbox};
use rustix::thread::CapabilitySet;

use crate::attacks::{ATTACKS, Attack};
use crate::child::{End, User, alone, fork, nothing_granted};
use crate::declared::{KEPT, share};
use crate::world::World;

/// Why `kind` cannot be had here as `user`, by the one system call that it stands on.
pub(crate) fn unavailable(user: User, kind: Kind) -> Option<String> {
    let granted = || (user == User::Granted).then(nothing_granted).flatten();
    let user_of_trial = if user == User::Granted { User::Ordinary } else { user };
    let mut child = fork(user_of_trial, |talk| {
        let result = match kind {
            Kind::Namespace => unshare(libc::CLONE_NEWNS),
            Kind::UserNamespace => unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS),
            // SAFETY: the path is a terminated string.
            Kind::Chroot => unsafe { libc::chroot(c"/".as_ptr()) }.into(),
            // SAFETY: LANDLOCK_CREATE_RULESET_VERSION reads no memory.
            Kind::Landlock => unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1) },
            Kind::None => 0,
        };
        if result < 0 {
            talk.say(&io::Error::last_os_error().to_string());
        }
    });
    let why = child.line();
    child.end();
    let why = why.or_else(granted);
    why.inspect(|why| println!("SKIPPED: {kind} as {user:?}: {why}"))
}

fn unshare(flags: i32) -> libc::c_long {
    // SAFETY: touches neither memory nor the table of descriptors.
    unsafe { libc::unshare(flags) }.into()
}

/// Confines a process of `user` for each attack, and expects that those in `through` alone succeed.
fn stops_all_but(user: User, wanted: Sandbox, kind: Kind, kept: CapabilitySet, through: &[&str]) {
    if unavailable(user, kind).is_some() {
        return;
    }
    let world = World::new(user);
    let succeeds = |attack: &Attack| {
        let mut child = fork(user, |talk| {
            let entered = sandbox::enter(wanted, &share(&world.share), &Maps::default()).unwrap();
            assert_eq!(entered.kind, kind);
            assert_eq!(entered.refused, []);
            let several = matches!(entered.ids, Some(Ids::Ranges { .. }));
            assert_eq!(several, user == User::Granted);
            capabilities::keep(kept & entered.capabilities).unwrap();
            talk.say("confined");
            (attack.1)(&world, &entered).unwrap_or_else(|why| resume_unwind(Box::new(why)));
        });
        assert_eq!(child.line().as_deref(), Some("confined"));
        // execve(2) ends as /bin/true does.
        child.end().0 == End::Exit(0)
    };
    let all = ATTACKS.iter().filter(|attack| succeeds(attack));
    let all: Vec<_> = all.map(|attack| attack.0).collect();
    world.end();
    assert_eq!(all, through, "{user:?} in {kind}");
}

/// What no sandbox concerns itself with, and the lists of system calls do.
const LEFT_TO_SECCOMP: [&str; 3] = ["make a user namespace", "make memory executable", "set up io_uring"];

#[test]
fn without_a_sandbox_capabilities_alone_stop_root() {
    alone("modes::root_without_a_sandbox");
}

#[test]
#[ignore = "without_a_sandbox_capabilities_alone_stop_root runs it"]
fn root_without_a_sandbox() {
    let stopped = [
        "open through /proc/PID/root",
        "trace another process",
        "mount",
        "enter the host's mounts",
        "load a module",
        "make a BPF map",
    ];
    let through: Vec<_> = ATTACKS.iter().map(|attack| attack.0).collect();
    let through: Vec<_> = through.into_iter().filter(|name| !stopped.contains(name)).collect();
    stops_all_but(User::Root, Sandbox::None, Kind::None, KEPT, &through);
}

#[test]
fn namespaces_of_root_let_file_handles_through_alone() {
    alone("modes::root_in_namespaces");
}

/// A handle leads to any file of the file system that the share lies on: nothing but the capability to use handles stands in the way.
#[test]
#[ignore = "namespaces_of_root_let_file_handles_through_alone runs it"]
fn root_in_namespaces() {
    let (sandbox, kind) = (Sandbox::Namespace, Kind::Namespace);
    let without_handles = KEPT.difference(CapabilitySet::DAC_READ_SEARCH);
    stops_all_but(User::Root, sandbox, kind, without_handles, &LEFT_TO_SECCOMP);
    let through = [&["open by file handle"], &LEFT_TO_SECCOMP[..]].concat();
    stops_all_but(User::Root, sandbox, kind, KEPT, &through);
}

#[test]
fn namespaces_of_an_ordinary_user_let_nothing_through() {
    alone("modes::user_in_namespaces");
}

#[test]
#[ignore = "namespaces_of_an_ordinary_user_let_nothing_through runs it"]
fn user_in_namespaces() {
    let (sandbox, kind) = (Sandbox::Namespace, Kind::UserNamespace);
    stops_all_but(User::Ordinary, sandbox, kind, KEPT, &LEFT_TO_SECCOMP);
}

#[test]
fn namespaces_with_subordinate_ids_let_nothing_through() {
    alone("modes::granted_user_in_namespaces");
}

/// With capabilities over the ids that are mapped, and over nothing else.
#[test]
#[ignore = "namespaces_with_subordinate_ids_let_nothing_through runs it"]
fn granted_user_in_namespaces() {
    let (sandbox, kind) = (Sandbox::Namespace, Kind::UserNamespace);
    stops_all_but(User::Granted, sandbox, kind, KEPT, &LEFT_TO_SECCOMP);
}

#[test]
fn a_changed_root_lets_attributes_and_devices_through() {
    alone("modes::root_in_a_changed_root");
}

#[test]
#[ignore = "a_changed_root_lets_attributes_and_devices_through runs it"]
fn root_in_a_changed_root() {
    let through = [
        "chmod by .. of /proc/self/fd",
        "open a device node",
        "make memory executable",
        "set up io_uring",
    ];
    stops_all_but(User::Root, Sandbox::Chroot, Kind::Chroot, KEPT, &through);
}

/// What Landlock lets through, whoever uses it. Newer kernels stop connections to socket files too.
const BY_LANDLOCK: [&str; 7] = [
    "chmod by absolute path",
    "chmod by .. of /proc/self/fd",
    "open a device node",
    "connect to a socket file",
    "make a user namespace",
    "make memory executable",
    "set up io_uring",
];

#[test]
fn landlock_of_root_lets_attributes_and_devices_through() {
    alone("modes::root_by_landlock");
}

#[test]
#[ignore = "landlock_of_root_lets_attributes_and_devices_through runs it"]
fn root_by_landlock() {
    stops_all_but(User::Root, Sandbox::Landlock, Kind::Landlock, KEPT, &BY_LANDLOCK);
}

#[test]
fn landlock_of_an_ordinary_user_lets_attributes_and_devices_through() {
    alone("modes::user_by_landlock");
}

#[test]
#[ignore = "landlock_of_an_ordinary_user_lets_attributes_and_devices_through runs it"]
fn user_by_landlock() {
    stops_all_but(User::Ordinary, Sandbox::Landlock, Kind::Landlock, KEPT, &BY_LANDLOCK);
}
