//! System calls that no thread of a share makes, whatever its options: what a guest would need that has taken a thread over.
#![allow(unsafe_code, reason = "the calls are made by their numbers")]

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use clap::Parser;
use confinement::{Action, Filters, Role};
use libc::c_long;

use super::Line;

/// Tells the process that the test starts which call to make, as which role.
const CHILD: &str = "INNKEEPER_TEST_CALL";
/// The longest command line, with everything that widens the lists.
const SHARE: [&str; 10] = [
    "innkeeper",
    "share",
    "/",
    "--socket-path",
    "s",
    "--allow-trusted-xattr",
    "--allow-security-labels",
    "--allow-chattr",
    "--dax",
    "2M",
];

/// A call by its purpose, number and arguments. The kernel refuses them or does no harm, where the filter lets the call through.
type Call = (&'static str, c_long, [c_long; 4]);

/// Not tkill(2), which every thread may ask for and none gets.
const CALLS: &[Call] = &[
    // A socket connected.
    (
        "make a socket of the network",
        libc::SYS_socket,
        [libc::AF_INET as c_long, libc::SOCK_STREAM as c_long, 0, 0],
    ),
    (
        "make a socket",
        libc::SYS_socket,
        [libc::AF_UNIX as c_long, libc::SOCK_STREAM as c_long, 0, 0],
    ),
    ("make a pair of sockets", libc::SYS_socketpair, [-1, 0, 0, 0]),
    ("connect a socket", libc::SYS_connect, [-1, 0, 0, 0]),
    ("bind a socket", libc::SYS_bind, [-1, 0, 0, 0]),
    ("send to an address", libc::SYS_sendto, [-1, 0, 0, 0]),
    ("take a descriptor of a process", libc::SYS_pidfd_getfd, [-1, 0, 0, 0]),
    // A process signalled.
    ("signal a process", libc::SYS_kill, [1, 0, 0, 0]),
    ("signal a thread of another process", libc::SYS_tgkill, [1, 1, 0, 0]),
    ("queue a signal", libc::SYS_rt_sigqueueinfo, [1, 0, 0, 0]),
    ("signal by a descriptor", libc::SYS_pidfd_send_signal, [-1, 0, 0, 0]),
    // A mount made.
    ("mount", libc::SYS_mount, [0, 0, 0, 0]),
    ("unmount", libc::SYS_umount2, [0, 0, 0, 0]),
    ("open a file system", libc::SYS_fsopen, [0, 0, 0, 0]),
    ("make a mount", libc::SYS_fsmount, [-1, 0, 0, 0]),
    ("copy a mount", libc::SYS_open_tree, [-1, 0, 0, 0]),
    ("move a mount", libc::SYS_move_mount, [-1, 0, -1, 0]),
    ("change a mount", libc::SYS_mount_setattr, [-1, 0, 0, 0]),
    ("change the root", libc::SYS_chroot, [0, 0, 0, 0]),
    ("exchange the root", libc::SYS_pivot_root, [0, 0, 0, 0]),
    ("enter a namespace", libc::SYS_setns, [-1, 0, 0, 0]),
    (
        "make a user namespace",
        libc::SYS_unshare,
        [libc::CLONE_NEWUSER as c_long, 0, 0, 0],
    ),
    (
        "make a namespace of mounts",
        libc::SYS_unshare,
        [libc::CLONE_NEWNS as c_long, 0, 0, 0],
    ),
    // A module loaded.
    ("load a module", libc::SYS_init_module, [0, 0, 0, 0]),
    ("load a module from a file", libc::SYS_finit_module, [-1, 0, 0, 0]),
    ("unload a module", libc::SYS_delete_module, [0, 0, 0, 0]),
    ("load a kernel", libc::SYS_kexec_load, [0, 0, 0, -1]),
    ("make a BPF map", libc::SYS_bpf, [0, 0, 0, 0]),
    // A process traced.
    (
        "trace a process",
        libc::SYS_ptrace,
        [libc::PTRACE_SEIZE as c_long, -1, 0, 0],
    ),
    ("read memory of a process", libc::SYS_process_vm_readv, [-1, 0, 0, 0]),
    ("write memory of a process", libc::SYS_process_vm_writev, [-1, 0, 0, 0]),
    ("observe a process", libc::SYS_perf_event_open, [0, -1, -1, -1]),
    // Whatever else leads to more.
    ("execute a program", libc::SYS_execve, [0, 0, 0, 0]),
    ("execute a file", libc::SYS_execveat, [-1, 0, 0, 0]),
    (
        "start a process",
        libc::SYS_clone,
        [(libc::CLONE_SIGHAND | libc::SIGCHLD) as c_long, 0, 0, 0],
    ),
    (
        "map memory for execution",
        libc::SYS_mmap,
        [0, 4096, libc::PROT_EXEC as c_long, libc::MAP_PRIVATE as c_long],
    ),
    (
        "make memory executable",
        libc::SYS_mprotect,
        [0, 4096, libc::PROT_EXEC as c_long, 0],
    ),
    ("set up io_uring", libc::SYS_io_uring_setup, [1, 0, 0, 0]),
    ("handle page faults", libc::SYS_userfaultfd, [-1, 0, 0, 0]),
    ("use the keyring", libc::SYS_keyctl, [-1, 0, 0, 0]),
    (
        "type into a terminal",
        libc::SYS_ioctl,
        [-1, libc::TIOCSTI as c_long, 0, 0],
    ),
];

/// Makes the call that `words` has, as the thread of the role that it names. The filters end the process.
fn make_call(words: &str) {
    let (role, purpose) = words.split_once(": ").unwrap();
    let &(_, number, [a, b, c, d]) = CALLS.iter().find(|call| call.0 == purpose).unwrap();
    if let Some(role) = Role::ALL.into_iter().find(|known| known.name() == role) {
        let declaration = Line::parse_from(SHARE).served.service().declaration().unwrap();
        Filters::new(&declaration, Action::Kill).unwrap().narrow(role).unwrap();
    }
    // SAFETY: the kernel refuses the arguments of every call, or does something to a new descriptor or mapping.
    unsafe { libc::syscall(number, a, b, c, d) };
}

#[test]
fn a_call_that_leads_out_of_the_sandbox_ends_the_daemon() {
    if let Ok(words) = env::var(CHILD) {
        return make_call(&words);
    }
    let roles = Role::ALL.map(Role::name);
    for role in roles.into_iter().chain(["unconfined"]) {
        for (purpose, ..) in CALLS {
            let mut child = Command::new(env::current_exe().unwrap());
            child.args([
                "--exact",
                "serve::tests::stopped_calls::a_call_that_leads_out_of_the_sandbox_ends_the_daemon",
            ]);
            let child = child.env(CHILD, format!("{role}: {purpose}")).stdout(Stdio::null());
            let killed = child.status().unwrap().signal() == Some(libc::SIGSYS);
            assert_eq!(killed, role != "unconfined", "{role}: {purpose}");
        }
    }
}
