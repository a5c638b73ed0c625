//! Values that may have decided, by system call: where no kernel function was observed, or none that has a hint.

use super::fact::Fact::{self, Capability, Limit, Mount, Seccomp, Setting, User};

/// Calls, the errno, and what it may have been about.
#[rustfmt::skip] // A table.
const CALLS: &[(&[&str], &str, &[Fact])] = &[
    (&["bind"], "EACCES", &[Setting("net/ipv4/ip_unprivileged_port_start"), Capability("CAP_NET_BIND_SERVICE")]),
    (&["socket"], "EPERM", &[Capability("CAP_NET_RAW")]),
    (&["clone", "clone3", "fork", "vfork"], "EAGAIN", &[Limit("RLIMIT_NPROC"), Setting("pids.max"), Setting("pids.current"), Setting("kernel/threads-max")]),
    (&["clone", "clone3", "unshare"], "ENOSPC", &[Setting("user/max_user_namespaces")]),
    (&["clone", "clone3", "unshare"], "EPERM", &[Capability("CAP_SYS_ADMIN"), Setting("kernel/unprivileged_userns_clone"), Setting("kernel/apparmor_restrict_unprivileged_userns"), Setting("user/max_user_namespaces")]),
    (&["mmap", "mremap", "brk", "mprotect"], "ENOMEM", &[Limit("RLIMIT_AS"), Limit("RLIMIT_DATA"), Setting("vm/overcommit_memory"), Setting("vm/max_map_count")]),
    (&["mmap", "mremap"], "EAGAIN", &[Limit("RLIMIT_MEMLOCK")]),
    (&["mlock", "mlock2", "mlockall"], "ENOMEM", &[Limit("RLIMIT_MEMLOCK"), Capability("CAP_IPC_LOCK")]),
    (&["mlock", "mlock2", "mlockall"], "EPERM", &[Limit("RLIMIT_MEMLOCK"), Capability("CAP_IPC_LOCK")]),
    (&["io_uring_setup", "io_uring_register"], "ENOMEM", &[Limit("RLIMIT_MEMLOCK"), Capability("CAP_IPC_LOCK")]),
    (&["io_uring_setup"], "EPERM", &[Setting("kernel/io_uring_disabled")]),
    (&["io_setup"], "EAGAIN", &[Setting("fs/aio-max-nr")]),
    (&["bpf"], "EPERM", &[Setting("kernel/unprivileged_bpf_disabled"), Capability("CAP_BPF")]),
    (&["perf_event_open"], "EACCES", &[Setting("kernel/perf_event_paranoid"), Capability("CAP_PERFMON")]),
    (&["ptrace"], "EPERM", &[User, Capability("CAP_SYS_PTRACE"), Setting("kernel/yama/ptrace_scope")]),
    (&["kill", "tgkill", "tkill"], "EPERM", &[User, Capability("CAP_KILL")]),
    (&["setuid", "setreuid", "setresuid"], "EPERM", &[User, Capability("CAP_SETUID")]),
    (&["setgid", "setregid", "setresgid", "setgroups"], "EPERM", &[User, Capability("CAP_SETGID")]),
    (&["mount", "umount2", "pivot_root", "setns", "sethostname"], "EPERM", &[Capability("CAP_SYS_ADMIN")]),
    (&["chroot"], "EPERM", &[Capability("CAP_SYS_CHROOT")]),
    (&["link", "linkat"], "EPERM", &[Setting("fs/protected_hardlinks"), User]),
    (&["inotify_add_watch"], "ENOSPC", &[Setting("fs/inotify/max_user_watches")]),
    (&["inotify_init1"], "EMFILE", &[Setting("fs/inotify/max_user_instances"), Limit("RLIMIT_NOFILE")]),
    (&["setpriority"], "EACCES", &[Limit("RLIMIT_NICE"), Capability("CAP_SYS_NICE")]),
    (&["sched_setscheduler"], "EPERM", &[Limit("RLIMIT_RTPRIO"), Capability("CAP_SYS_NICE")]),
    (&["setrlimit", "prlimit64"], "EPERM", &[Capability("CAP_SYS_RESOURCE")]),
    (&["execve", "execveat"], "E2BIG", &[Limit("RLIMIT_STACK")]),
    (&["execve", "execveat"], "EACCES", &[Mount, User]),
    (&["write", "pwrite64", "writev", "ftruncate", "truncate", "fallocate"], "EFBIG", &[Limit("RLIMIT_FSIZE")]),
    (&[], "EMFILE", &[Limit("RLIMIT_NOFILE")]),
    (&[], "ENFILE", &[Setting("fs/file-max")]),
    (&[], "EROFS", &[Mount]),
    (&[], "EXDEV", &[Mount]),
    (&[], "ENOSPC", &[Mount]),
    (&[], "ENOSYS", &[Seccomp]),
    (&[], "SIGSYS", &[Seccomp]),
];

/// What this errno of this call may have been about.
#[must_use]
pub fn facts(call: &str, errno: &str) -> &'static [Fact] {
    let found = CALLS
        .iter()
        .find(|(calls, known, _)| *known == errno && (calls.is_empty() || calls.contains(&call)));
    found.map_or(&[], |(_, _, facts)| *facts)
}

#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = &'static Fact> {
    CALLS.iter().flat_map(|(_, _, facts)| *facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_errnos_exist_and_the_first_row_is_the_narrowest() {
        let calls: Vec<_> = (0..1000).filter_map(crate::words::syscall_name).collect();
        for (named, errno, _) in CALLS {
            assert!(
                *errno == "SIGSYS" || (1..4096).any(|number| crate::words::errno_name(number) == Some(errno)),
                "{errno}"
            );
            for call in *named {
                assert!(calls.contains(call), "{call}");
            }
        }
        assert_eq!(
            facts("inotify_add_watch", "ENOSPC"),
            [Setting("fs/inotify/max_user_watches")]
        );
        assert_eq!(facts("write", "ENOSPC"), [Mount]);
        assert_eq!(facts("read", "EIO"), []);
    }
}
