//! Facts from the kernel's source: for each case of `exercise refuse` the function that makes its errno, and the
//! check that it makes, as read in Linux 6.12 and, where that differs, in 6.1.

/// Where a case's errno is made.
pub(super) struct Known {
    /// Name of the case.
    pub(super) case: &'static str,
    /// The function, in 6.12 and in 6.1. Static functions that Debian's compiler put into their caller go by its name.
    pub(super) functions: [&'static str; 2],
    /// The check, in the words of the source.
    pub(super) check: &'static str,
    /// Whether the kernel's tracer shows the function. Where it does not, another one is named, which must not be certain.
    pub(super) shown: bool,
}

const fn known(case: &'static str, function: &'static str, check: &'static str) -> Known {
    changed(case, [function, function], check)
}

const fn changed(case: &'static str, functions: [&'static str; 2], check: &'static str) -> Known {
    Known {
        case,
        functions,
        check,
        shown: true,
    }
}

const fn not_shown(case: &'static str, function: &'static str, check: &'static str) -> Known {
    Known {
        shown: false,
        ..known(case, function, check)
    }
}

/// The function by which FUSE asks its server.
const FUSE: [&str; 2] = ["__fuse_simple_request", "fuse_simple_request"];

#[rustfmt::skip] // A table.
pub(super) const ORIGINS: &[Known] = &[
    known("open-missing", "step_into", "the last component's dentry is negative"),
    changed("open-missing-shared", FUSE, "the reply to LOOKUP"),
    known("create-existing", "path_openat", "do_open: O_EXCL and FMODE_CREATED is not set"),
    known("open-directory-to-write", "may_open", "S_IFDIR and MAY_WRITE"),
    known("open-link-nofollow", "may_open", "S_IFLNK"),
    known("open-below-file", "link_path_walk", "!d_can_lookup(nd->path.dentry)"),
    known("open-long-path", "getname_flags", "len == PATH_MAX"),
    known("open-long-name", "simple_lookup", "dentry->d_name.len > NAME_MAX"),
    known("open-link-loop", "step_into", "pick_link: nd->total_link_count++ >= MAXSYMLINKS"),
    known("open-not-mine", "generic_permission", "no mode bit, and no CAP_DAC_READ_SEARCH or CAP_DAC_OVERRIDE"),
    known("open-not-mine-shared", "generic_permission", "as in a local file system: default_permissions"),
    known("open-tmpfile-read-only", "do_sys_openat2", "build_open_flags: O_TMPFILE without MAY_WRITE"),
    known("open-too-many", "alloc_fd", "fd >= end, the limit RLIMIT_NOFILE"),
    changed("open-long-name-shared", FUSE, "the reply to LOOKUP"),
    known("mkdir-existing-shared", "filename_create", "d_is_positive(dentry)"),
    changed("rmdir-full-shared", FUSE, "the reply to RMDIR"),
    changed("rename-onto-full-shared", FUSE, "the reply to RENAME2"),
    known("rmdir-full", "shmem_rmdir", "!simple_empty(dentry)"),
    known("rename-into-itself", "do_renameat2", "old_dentry == trap"),
    known("rename-across", "do_renameat2", "old_path.mnt != new_path.mnt"),
    known("link-directory", "vfs_link", "S_ISDIR(inode->i_mode)"),
    known("chdir-file", "path_lookupat", "LOOKUP_DIRECTORY and !d_can_lookup"),
    known("readlink-file", "do_readlinkat", "neither d_is_symlink nor i_op->readlink"),
    known("setxattr-unknown", "xattr_resolve_name", "no handler for the prefix"),
    known("read-closed", "ksys_read", "no file of this descriptor"),
    known("read-directory", "generic_read_dir", "always"),
    known("write-read-only", "vfs_write", "!(file->f_mode & FMODE_WRITE)"),
    known("write-beyond-limit", "generic_write_check_limits", "pos >= rlimit(RLIMIT_FSIZE)"),
    known("write-broken-pipe", "pipe_write", "!pipe->readers"),
    known("lseek-pipe", "ksys_lseek", "vfs_llseek: !(file->f_mode & FMODE_LSEEK)"),
    known("fallocate-pipe", "vfs_fallocate", "S_ISFIFO(inode->i_mode)"),
    changed("ftruncate-read-only", ["do_ftruncate", "do_sys_ftruncate"], "!(file->f_mode & FMODE_WRITE)"),
    known("getdents-file", "iterate_dir", "no iterate operation"),
    known("ioctl-no-terminal", "__x64_sys_ioctl", "vfs_ioctl: !filp->f_op->unlocked_ioctl"),
    known("execve-bad-interpreter", "step_into", "load_script: open_exec() of the interpreter, a negative dentry"),
    known("execve-not-executable", "generic_permission", "do_open_execat: MAY_EXEC and no x bit"),
    known("mount-as-user", "path_mount", "!may_mount()"),
    known("mount-unknown-type", "path_mount", "do_new_mount: !get_fs_type(fstype)"),
    known("mount-unknown-tag", "virtio_fs_get_tree", "!virtio_fs_find_instance(fc->source)"),
    known("umount-no-mount", "path_umount", "can_umount: !path_mounted(path)"),
    known("rmdir-mount-point", "vfs_rmdir", "is_local_mountpoint(dentry)"),
    changed("create-on-read-only", ["mnt_get_write_access", "__mnt_want_write"], "mnt_is_readonly(m)"),
    known("chroot-as-user", "__x64_sys_chroot", "!ns_capable(current_user_ns(), CAP_SYS_CHROOT)"),
    known("mmap-not-writable", "do_mmap", "MAP_SHARED and PROT_WRITE of a file without FMODE_WRITE"),
    known("mmap-no-length", "do_mmap", "!len"),
    changed("mmap-too-much", ["__mmap_region", "mmap_region"], "!may_expand_vm(), the limit RLIMIT_AS"),
    known("mmap-more-than-memory", "__vm_enough_memory", "pages > totalram_pages() + total_swap_pages"),
    changed("munmap-odd", ["do_vmi_munmap", "do_mas_munmap"], "offset_in_page(start)"),
    known("mlock-too-much", "do_mlock", "locked > lock_limit and !capable(CAP_IPC_LOCK)"),
    known("io_uring_setup-empty", "io_uring_setup", "io_uring_create: !entries"),
    known("io_uring_setup-flags", "io_uring_setup", "a flag that is not known"),
    known("io_uring_register-memlock", "__io_account_mem", "new_pages > page_limit, the limit RLIMIT_MEMLOCK"),
    known("io_uring_register-nonsense", "__x64_sys_io_uring_register", "opcode >= IORING_REGISTER_LAST"),
    known("epoll-itself", "do_epoll_ctl", "the set is the file"),
    known("epoll-loop", "do_epoll_ctl", "ep_loop_check() != 0"),
    known("epoll-file", "do_epoll_ctl", "!file_can_poll(tf.file)"),
    changed("bpf-as-user", ["map_create", "__sys_bpf"], "sysctl_unprivileged_bpf_disabled and no CAP_BPF"),
    known("seccomp", "__seccomp_filter", "SECCOMP_RET_ERRNO"),
    known("no-such-call", "do_syscall_64", "nr >= NR_syscalls"),
    changed("landlock", ["hook_file_open", "check_access_path_dual"], "LANDLOCK_ACCESS_FS_READ_FILE is not allowed"),
    known("bind-low-port", "__inet_bind", "snum < ip_unprivileged_port_start and no CAP_NET_BIND_SERVICE"),
    known("bind-foreign-address", "__inet_bind", "!inet_addr_valid_or_nonlocal()"),
    known("bind-in-use", "inet_csk_get_port", "inet_csk_bind_conflict()"),
    known("bind-unix-existing", "unix_bind", "unix_bind_bsd: -EEXIST of kern_path_create becomes -EADDRINUSE"),
    known("connect-no-route", "ip_route_output_key_hash_rcu", "fib_lookup() finds nothing"),
    known("connect-refused", "tcp_reset", "TCP_SYN_SENT: sk->sk_err = ECONNREFUSED, which connect reads later"),
    known("connect-unix-missing", "step_into", "the last component's dentry is negative"),
    known("connect-unix-dead", "unix_find_other", "unix_find_bsd: no socket of this inode"),
    known("sendmsg-nowhere", "udp_sendmsg", "sk->sk_state != TCP_ESTABLISHED"),
    known("sendmsg-too-long", "udp_sendmsg", "len > 0xFFFF"),
    known("sendto-unconnected", "unix_stream_sendmsg", "!unix_peer(sk)"),
    changed("accept-not-listening", ["inet_csk_accept", "inet_csk_accept"], "sk->sk_state != TCP_LISTEN"),
    known("listen-datagrams", "sock_no_listen", "always"),
    known("socket-unknown-family", "__sock_create", "family >= NPROTO"),
    known("socket-raw-as-user", "inet_create", "SOCK_RAW and no CAP_NET_RAW"),
    known("socket-wrong-protocol", "inet_create", "no such protocol of this type"),
    known("setsockopt-unknown", "sk_setsockopt", "no such option"),
    known("shutdown-unconnected", "inet_shutdown", "TCP_CLOSE"),
    known("getpeername-unconnected", "inet_getname", "!inet->inet_dport"),
    changed("shutdown-no-socket", ["__sys_shutdown", "sockfd_lookup_light"], "sock_from_file: f_op is not that of sockets"),
    known("connect-long-name", "move_addr_to_kernel", "ulen > sizeof(struct sockaddr_storage)"),
    known("setuid-as-user", "__sys_setuid", "!ns_capable_setid(), and neither the real nor the saved id"),
    known("setgroups-as-user", "__x64_sys_setgroups", "!may_setgroups()"),
    known("capset-as-user", "cap_capset", "!cap_issubset(*permitted, old->cap_permitted)"),
    known("kill-not-mine", "check_kill_permission", "!kill_ok_by_cred(t)"),
    changed("kill-nobody", ["kill_pid_info_type", "kill_pid_info"], "no task of this pid"),
    known("kill-bad-signal", "check_kill_permission", "!valid_signal(sig)"),
    known("ptrace-not-mine", "__ptrace_may_access", "other ids and !ptrace_has_cap()"),
    known("clone-too-many", "copy_process", "is_rlimit_overlimit(UCOUNT_RLIMIT_NPROC) and no capability"),
    known("clone-flags", "copy_process", "CLONE_SIGHAND without CLONE_VM"),
    known("unshare-as-user", "unshare_nsproxy_namespaces", "!ns_capable(user_ns, CAP_SYS_ADMIN)"),
    known("setns-no-namespace", "__x64_sys_setns", "neither proc_ns_file() nor a pidfd"),
    known("setpriority-as-user", "set_one_prio", "!can_nice(p, niceval)"),
    known("sched_setscheduler-as-user", "__sched_setscheduler", "user_check_sched_setscheduler: !capable(CAP_SYS_NICE)"),
    known("prlimit-raise-as-user", "do_prlimit", "a higher rlim_max and !capable(CAP_SYS_RESOURCE)"),
    known("sethostname-as-user", "__x64_sys_sethostname", "!ns_capable(uts_ns->user_ns, CAP_SYS_ADMIN)"),
    changed("wait4-no-child", ["__do_wait", "do_wait"], "no child: notask_error stays -ECHILD"),
    known("prctl-unknown", "__x64_sys_prctl", "no such option"),
    known("nanosleep-nonsense", "__x64_sys_nanosleep", "!timespec64_valid(&tu)"),
    not_shown("oom-score-not-a-number", "_kstrtoull", "_parse_integer() finds no digit"),
    not_shown("readv-too-many", "iovec_from_user", "nr_segs > UIO_MAXIOV"),
];
