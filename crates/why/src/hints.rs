//! What a newcomer is told of a kernel function that refused something: what was wrong, and what to do.
//!
//! The table goes by function and errno and not by system call: many calls run through the same check.

/// What is known of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint {
    /// What was wrong, in plain words.
    pub reason: &'static str,
    /// What to do; empty if there is nothing that helps in general.
    pub attempt: &'static str,
    /// The sysctl that decides, below `/proc/sys`, if one does.
    pub sysctl: Option<&'static str>,
}

struct Row {
    function: &'static str,
    /// Names of the errnos that it is about; any if there are none.
    errnos: &'static [&'static str],
    hint: Hint,
}

const fn row(
    function: &'static str,
    errnos: &'static [&'static str],
    reason: &'static str,
    attempt: &'static str,
) -> Row {
    Row {
        function,
        errnos,
        hint: Hint {
            reason,
            attempt,
            sysctl: None,
        },
    }
}

const fn with_sysctl(row: Row, path: &'static str) -> Row {
    Row {
        hint: Hint {
            sysctl: Some(path),
            ..row.hint
        },
        ..row
    }
}

/// What the hint is for this function and errno; `function` without the suffixes that a compiler adds.
#[must_use]
pub fn hint(function: &str, errno: &str) -> Option<Hint> {
    let base = function.split('.').next().unwrap_or(function);
    let found = ROWS
        .iter()
        .find(|row| row.function == base && (row.errnos.is_empty() || row.errnos.contains(&errno)));
    found.or_else(|| module(base)).map(|row| row.hint)
}

/// Security modules have a beginning of their names in common.
fn module(function: &str) -> Option<&'static Row> {
    MODULES.iter().find(|row| function.starts_with(row.function))
}

#[rustfmt::skip] // A table.
const MODULES: &[Row] = &[
    row("apparmor_", &[], "an AppArmor profile forbids it", "look for DENIED in the kernel log (dmesg); aa-status lists the profiles"),
    row("aa_", &[], "an AppArmor profile forbids it", "look for DENIED in the kernel log (dmesg); aa-status lists the profiles"),
    row("selinux_", &[], "the SELinux policy forbids it", "ausearch -m avc -ts recent shows the rule that is missing"),
    row("avc_", &[], "the SELinux policy forbids it", "ausearch -m avc -ts recent shows the rule that is missing"),
    row("smack_", &[], "a Smack rule forbids it", ""),
    row("tomoyo_", &[], "the TOMOYO policy forbids it", ""),
    row("yama_", &[], "Yama restricts who may trace whom", "see /proc/sys/kernel/yama/ptrace_scope"),
];

#[rustfmt::skip] // A table.
const ROWS: &[Row] = &[
    row("step_into", &["ENOENT"], "the last name of the path does not exist", "check the spelling, and what the path is relative to"),
    row("step_into", &["ELOOP"], "symbolic links lead in a circle, or there are more than 40", "follow them with namei PATH"),
    row("path_openat", &["EEXIST"], "the file exists, and O_EXCL wants to make it", "remove it, or open it without O_EXCL"),
    row("path_openat", &["ENOENT"], "a name of the path does not exist", "namei PATH shows how far it goes"),
    row("link_path_walk", &["ENOTDIR"], "a file stands in the path where a directory must be", "namei PATH shows which"),
    row("link_path_walk", &["ENOENT"], "a directory of the path does not exist", "namei PATH shows which"),
    row("path_lookupat", &["ENOTDIR"], "it is a file, and a directory is wanted", ""),
    row("may_open", &["EISDIR"], "it is a directory, which cannot be opened for writing", ""),
    row("may_open", &["ELOOP"], "it is a symbolic link, and O_NOFOLLOW forbids to follow it", ""),
    row("getname_flags", &["ENAMETOOLONG"], "the path is longer than 4095 bytes", "go there in steps with openat()"),
    row("getname_flags", &["ENOENT"], "the path is empty", ""),
    row("getname_flags", &["EFAULT"], "the path's address is not the program's memory", ""),
    row("simple_lookup", &["ENAMETOOLONG"], "a name of the path is longer than 255 bytes", ""),
    row("generic_permission", &["EACCES"], "the mode of the file or of a directory above does not allow it to this user", "namei -l PATH shows owner and mode of each part"),
    row("inode_permission", &["EROFS"], "the file system is mounted read-only", "see mount options in /proc/self/mountinfo"),
    row("do_sys_openat2", &["EINVAL"], "flags of the open do not go together", ""),
    row("alloc_fd", &["EMFILE"], "the process has as many descriptors as its limit allows (RLIMIT_NOFILE)", "raise it with ulimit -n or LimitNOFILE=, or close what is not needed"),
    row("alloc_empty_file", &["ENFILE"], "the system has as many open files as it may", "raise the sysctl fs.file-max"),
    row("__fuse_simple_request", &[], "the host that serves this directory said no", "have innkeeper share --log-errors write a log on the host, and give it to why with --host-log"),
    row("fuse_simple_request", &[], "the host that serves this directory said no", "have innkeeper share --log-errors write a log on the host, and give it to why with --host-log"),
    row("filename_create", &["EEXIST"], "the name is taken", "remove what is there, or choose another name"),
    row("shmem_rmdir", &["ENOTEMPTY"], "the directory is not empty", ""),
    row("ext4_rmdir", &["ENOTEMPTY"], "the directory is not empty", ""),
    row("do_renameat2", &["EXDEV"], "source and target are on different mounts", "copy and remove, as mv does"),
    row("do_renameat2", &["EINVAL"], "a directory cannot be moved into itself", ""),
    row("vfs_link", &["EPERM"], "a directory cannot have a second name", "use a symbolic link or a bind mount"),
    row("vfs_link", &["EXDEV"], "a hard link cannot lead to another mount", "use a symbolic link"),
    row("vfs_rmdir", &["EBUSY"], "something is mounted there", "umount it first"),
    row("vfs_unlink", &["EBUSY"], "something is mounted there, or it is swap", ""),
    row("do_readlinkat", &["EINVAL"], "it is no symbolic link", ""),
    row("xattr_resolve_name", &["EOPNOTSUPP"], "this file system has no attributes of that class", "names begin with user., trusted., security. or system."),
    row("ksys_read", &["EBADF"], "the descriptor is not open, or not for reading", ""),
    row("ksys_write", &["EBADF"], "the descriptor is not open, or not for writing", ""),
    row("vfs_write", &["EBADF"], "the file is not open for writing", ""),
    row("vfs_read", &["EBADF"], "the file is not open for reading", ""),
    row("generic_read_dir", &["EISDIR"], "it is a directory: list it in place of reading it", ""),
    row("generic_write_check_limits", &["EFBIG"], "the file would grow beyond the limit of the process (RLIMIT_FSIZE) or of the file system", "raise it with ulimit -f or LimitFSIZE="),
    row("pipe_write", &["EPIPE"], "nobody reads from the pipe any more", "see why the reader ended"),
    row("ksys_lseek", &["ESPIPE"], "a pipe or socket has no position", ""),
    row("vfs_fallocate", &["ESPIPE"], "a pipe has no space to reserve", ""),
    row("do_ftruncate", &["EINVAL"], "the file is not open for writing, or no regular file", ""),
    row("do_sys_ftruncate", &["EINVAL"], "the file is not open for writing, or no regular file", ""),
    row("iterate_dir", &["ENOTDIR"], "it is no directory", ""),
    row("__x64_sys_ioctl", &["ENOTTY"], "this kind of file does not know the request", ""),
    row("load_elf_binary", &["ENOEXEC"], "the file is neither a program of this machine nor a script", "file PROGRAM tells what it is; a script begins with #!"),
    row("load_script", &["ENOEXEC"], "the file is neither a program of this machine nor a script", "file PROGRAM tells what it is; a script begins with #!"),
    row("path_mount", &["EPERM"], "to mount takes CAP_SYS_ADMIN in the namespace that owns the mounts", "run it as root, or in a user namespace of your own (unshare -Urm)"),
    row("path_mount", &["ENODEV"], "the kernel does not know this type of file system", "modprobe it; /proc/filesystems lists those that are there"),
    row("path_umount", &["EINVAL"], "nothing is mounted there", ""),
    row("path_umount", &["EPERM"], "to unmount takes CAP_SYS_ADMIN", "run it as root"),
    row("virtio_fs_get_tree", &["EINVAL"], "no virtio-fs device has this tag", "cat /sys/fs/virtiofs/*/tag lists them; the host chooses the tag"),
    row("mnt_get_write_access", &["EROFS"], "the mount or its file system is read-only", "mount -o remount,rw PLACE, if the file system allows it"),
    row("__mnt_want_write", &["EROFS"], "the mount or its file system is read-only", "mount -o remount,rw PLACE, if the file system allows it"),
    row("__x64_sys_chroot", &["EPERM"], "chroot takes CAP_SYS_CHROOT", "run it as root"),
    row("do_mmap", &["EACCES"], "the file is not open as the mapping wants it: a shared writable one takes O_RDWR", ""),
    row("do_mmap", &["EINVAL"], "length 0, or flags that do not go together", ""),
    row("do_mmap", &["EAGAIN"], "more memory would be locked than the limit allows (RLIMIT_MEMLOCK)", "raise it with ulimit -l or LimitMEMLOCK="),
    row("mmap_region", &["ENOMEM"], "the address space would grow beyond the limit of the process (RLIMIT_AS or RLIMIT_DATA)", "raise it with ulimit -v or LimitAS="),
    row("__mmap_region", &["ENOMEM"], "the address space would grow beyond the limit of the process (RLIMIT_AS or RLIMIT_DATA)", "raise it with ulimit -v or LimitAS="),
    with_sysctl(row("__vm_enough_memory", &["ENOMEM"], "more memory is asked for than the system promises", "ask for less, use MAP_NORESERVE, or set vm.overcommit_memory"), "vm/overcommit_memory"),
    row("do_vmi_munmap", &["EINVAL"], "the address is not at the start of a page, or the length is 0", ""),
    row("do_mas_munmap", &["EINVAL"], "the address is not at the start of a page, or the length is 0", ""),
    row("do_mlock", &["ENOMEM"], "more memory would be locked than the limit allows (RLIMIT_MEMLOCK)", "raise it with ulimit -l or LimitMEMLOCK=, or give CAP_IPC_LOCK"),
    row("__io_account_mem", &["ENOMEM"], "the user's locked memory would grow beyond the limit (RLIMIT_MEMLOCK)", "raise it with ulimit -l or LimitMEMLOCK="),
    with_sysctl(row("io_uring_setup", &["EPERM"], "io_uring is switched off for this user", "set kernel.io_uring_disabled to 0"), "kernel/io_uring_disabled"),
    row("io_uring_setup", &["EINVAL"], "no entries, too many, or a flag that this kernel does not know", ""),
    row("__x64_sys_io_uring_register", &["EINVAL"], "this kernel does not know the operation", ""),
    row("do_epoll_ctl", &["ELOOP"], "epoll sets would watch each other in a circle, or be nested too deep", ""),
    row("do_epoll_ctl", &["EPERM"], "this kind of file cannot be waited for: a regular file is always ready", ""),
    row("do_epoll_ctl", &["EINVAL"], "an epoll set cannot watch itself", ""),
    with_sysctl(row("map_create", &["EPERM"], "BPF is not for users without CAP_BPF", "run it as root, or set kernel.unprivileged_bpf_disabled"), "kernel/unprivileged_bpf_disabled"),
    with_sysctl(row("__sys_bpf", &["EPERM"], "BPF is not for users without CAP_BPF", "run it as root, or set kernel.unprivileged_bpf_disabled"), "kernel/unprivileged_bpf_disabled"),
    row("__seccomp_filter", &[], "a seccomp filter of the program or of its container forbids the call", "in a container: another seccomp profile (--security-opt seccomp=FILE)"),
    row("do_syscall_64", &["ENOSYS"], "this kernel has no such system call", "use a newer kernel, or a program that does without"),
    row("hook_file_open", &["EACCES"], "a Landlock rule that the program set for itself forbids it", ""),
    row("check_access_path_dual", &["EACCES"], "a Landlock rule that the program set for itself forbids it", ""),
    with_sysctl(row("__inet_bind", &["EACCES"], "ports below a limit take CAP_NET_BIND_SERVICE", "use a higher port, setcap cap_net_bind_service=+ep PROGRAM, or lower net.ipv4.ip_unprivileged_port_start"), "net/ipv4/ip_unprivileged_port_start"),
    row("__inet_bind", &["EADDRNOTAVAIL"], "no interface of this machine has the address", "ip address lists them"),
    row("inet_csk_get_port", &["EADDRINUSE"], "another socket has the port", "ss -ltnp shows which; SO_REUSEADDR helps after a restart"),
    row("unix_bind", &["EADDRINUSE"], "the socket's name exists already", "remove the file that an earlier run left"),
    row("ip_route_output_key_hash_rcu", &["ENETUNREACH"], "there is no route to the address", "ip route get ADDRESS"),
    row("__inet_stream_connect", &["ECONNREFUSED"], "the other side refused: nobody listens on that port", "ss -ltn there"),
    row("__inet_stream_connect", &["ETIMEDOUT"], "the other side did not answer", "a firewall may drop it"),
    row("unix_find_other", &["ECONNREFUSED"], "nobody listens on the socket: its server ended", "start the server; the file was left behind"),
    row("udp_sendmsg", &["EDESTADDRREQ"], "the socket is not connected, and the message has no address", ""),
    row("udp_sendmsg", &["EMSGSIZE"], "a datagram has 65,507 bytes at most", ""),
    row("unix_stream_sendmsg", &["ENOTCONN"], "the socket is not connected", ""),
    row("inet_accept", &["EINVAL"], "the socket does not listen: listen() comes before accept()", ""),
    row("inet_csk_accept", &["EINVAL"], "the socket does not listen: listen() comes before accept()", ""),
    row("sock_no_listen", &["EOPNOTSUPP"], "this kind of socket cannot listen: only streams can", ""),
    row("__sock_create", &["EAFNOSUPPORT"], "the kernel does not know this address family", "its module may be missing"),
    row("inet_create", &["EPERM"], "raw sockets take CAP_NET_RAW", "run it as root, or setcap cap_net_raw=+ep PROGRAM"),
    row("inet_create", &["EPROTONOSUPPORT"], "this type of socket does not have the protocol", ""),
    row("sk_setsockopt", &["ENOPROTOOPT"], "the kernel does not know this socket option", ""),
    row("inet_shutdown", &["ENOTCONN"], "the socket is not connected", ""),
    row("inet_getname", &["ENOTCONN"], "the socket is not connected", ""),
    row("__sys_shutdown", &["ENOTSOCK"], "the descriptor is no socket", ""),
    row("move_addr_to_kernel", &["EINVAL"], "the address is longer than any", ""),
    row("__sys_setuid", &["EPERM"], "to become another user takes CAP_SETUID", "run it as root"),
    row("__x64_sys_setgroups", &["EPERM"], "to set groups takes CAP_SETGID, and in a user namespace that setgroups is allowed", "run it as root"),
    row("cap_capset", &["EPERM"], "a process can only drop capabilities, or take those that it is permitted", "getpcaps PID lists them"),
    row("check_kill_permission", &["EPERM"], "the process is another user's", "run it as that user or as root"),
    row("check_kill_permission", &["EINVAL"], "there is no such signal", ""),
    row("kill_pid_info", &["ESRCH"], "there is no such process, or it has ended", ""),
    row("kill_pid_info_type", &["ESRCH"], "there is no such process, or it has ended", ""),
    row("__ptrace_may_access", &["EPERM"], "the process is another user's, or may not be looked into", "run it as root"),
    row("copy_process", &["EAGAIN"], "the user has as many processes as the limit allows (RLIMIT_NPROC), or the control group has", "raise it with ulimit -u or TasksMax="),
    row("copy_process", &["EINVAL"], "flags of the clone do not go together", ""),
    row("unshare_nsproxy_namespaces", &["EPERM"], "a new namespace takes CAP_SYS_ADMIN", "add a user namespace (unshare -U), or run it as root"),
    row("__x64_sys_setns", &["EINVAL"], "the descriptor is neither a namespace nor a process", "open /proc/PID/ns/NAME"),
    row("set_one_prio", &["EACCES"], "a better priority takes CAP_SYS_NICE or a limit that allows it (RLIMIT_NICE)", "raise it with LimitNICE=, or run it as root"),
    row("__sched_setscheduler", &["EPERM"], "real-time scheduling takes CAP_SYS_NICE or a limit that allows it (RLIMIT_RTPRIO)", "raise it with ulimit -r or LimitRTPRIO="),
    row("do_prlimit", &["EPERM"], "to raise a hard limit takes CAP_SYS_RESOURCE", "raise it where the session begins: limits.conf or the unit"),
    row("__x64_sys_sethostname", &["EPERM"], "to set the host's name takes CAP_SYS_ADMIN", "run it as root, or in a namespace of your own (unshare -Uru)"),
    row("do_wait", &["ECHILD"], "the process has no child to wait for", ""),
    row("__do_wait", &["ECHILD"], "the process has no child to wait for", ""),
    row("__x64_sys_prctl", &["EINVAL"], "this kernel does not know the option, or its arguments are wrong", ""),
    row("__x64_sys_nanosleep", &["EINVAL"], "nanoseconds are less than a second, and time does not run backwards", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_is_hidden_by_one_before_it() {
        for (at, row) in ROWS.iter().enumerate() {
            let hidden = ROWS[..at].iter().any(|before| {
                before.function == row.function
                    && (before.errnos.is_empty() || before.errnos.iter().any(|errno| row.errnos.contains(errno)))
            });
            assert!(!hidden, "{} {:?}", row.function, row.errnos);
        }
    }

    #[test]
    fn every_row_is_of_an_identifier_and_of_errnos_that_exist() {
        let errnos: Vec<_> = (1..4096).filter_map(crate::errno_name).collect();
        for row in ROWS.iter().chain(MODULES) {
            assert!(
                row.function
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            );
            assert!(
                row.errnos.iter().all(|errno| errnos.contains(errno)),
                "{:?}",
                row.errnos
            );
            assert!(!row.hint.reason.is_empty());
        }
    }

    #[test]
    fn copies_of_the_compiler_and_security_modules_have_hints() {
        assert!(hint("getname_flags.part.0", "ENAMETOOLONG").is_some());
        assert!(
            hint("apparmor_file_open", "EACCES")
                .unwrap()
                .reason
                .contains("AppArmor")
        );
        assert_eq!(hint("getname_flags", "EIO"), None);
    }
}
