//! Restrictions on calls apart from their function: filters, modules, lockdown.

use super::fact::Fact::{Capability, Modules, Seccomp, Setting, User};
use super::row::{Row, row};

#[rustfmt::skip] // A table.
pub(super) const ROWS: &[Row] = &[
    row("map_create", &["EPERM"], "BPF is not for users without CAP_BPF", "run it as root, or set kernel.unprivileged_bpf_disabled").value(&[Setting("kernel/unprivileged_bpf_disabled"), Capability("CAP_BPF")]),
    row("__sys_bpf", &["EPERM"], "BPF is not for users without CAP_BPF", "run it as root, or set kernel.unprivileged_bpf_disabled").value(&[Setting("kernel/unprivileged_bpf_disabled"), Capability("CAP_BPF")]),
    row("__seccomp_filter", &[], "a seccomp filter of the program or of its container forbids the call", "in a container: another seccomp profile (--security-opt seccomp=FILE)").value(&[Seccomp]),
    row("do_syscall_64", &["ENOSYS"], "this kernel has no such system call", "use a newer kernel, or a program that does without"),
    row("hook_file_open", &["EACCES"], "a Landlock rule that the program set for itself forbids it", ""),
    row("check_access_path_dual", &["EACCES"], "a Landlock rule that the program set for itself forbids it", ""),
    row("cap_capset", &["EPERM"], "a process can only drop capabilities, or take those that it is permitted", "getpcaps PID lists them"),
    row("__secure_computing", &[], "seccomp forbids the call", "in a container: another seccomp profile (--security-opt seccomp=FILE)").value(&[Seccomp]),
    row("syscall_trace_enter", &["ENOSYS"], "a tracer or a seccomp filter skipped the call", "").value(&[Seccomp]),
    row("do_seccomp", &["EACCES"], "a filter takes CAP_SYS_ADMIN, or PR_SET_NO_NEW_PRIVS before it", "call prctl(PR_SET_NO_NEW_PRIVS, 1) first").value(&[Capability("CAP_SYS_ADMIN")]),
    row("seccomp_set_mode_filter", &["EACCES"], "a filter takes CAP_SYS_ADMIN, or PR_SET_NO_NEW_PRIVS before it", "call prctl(PR_SET_NO_NEW_PRIVS, 1) first").value(&[Capability("CAP_SYS_ADMIN")]),
    row("current_check_refer_path", &["EXDEV"], "a Landlock rule that the program set for itself forbids to move files between directories", ""),
    row("current_check_refer_path", &["EACCES"], "a Landlock rule that the program set for itself forbids it", ""),
    row("current_check_access_path", &["EACCES"], "a Landlock rule that the program set for itself forbids it", ""),
    row("current_check_access_socket", &["EACCES"], "a Landlock rule that the program set for itself forbids the port", ""),
    row("hook_sb_mount", &["EPERM"], "a program under Landlock rules may not mount", ""),
    row("hook_ptrace_access_check", &["EPERM"], "a program under Landlock rules may not trace one outside of them", ""),
    row("__x64_sys_landlock_restrict_self", &["EPERM"], "Landlock takes CAP_SYS_ADMIN, or PR_SET_NO_NEW_PRIVS before it", "call prctl(PR_SET_NO_NEW_PRIVS, 1) first").value(&[Capability("CAP_SYS_ADMIN")]),
    row("bpf_prog_load", &["EPERM"], "BPF is not for users without CAP_BPF", "run it as root, or set kernel.unprivileged_bpf_disabled").value(&[Setting("kernel/unprivileged_bpf_disabled"), Capability("CAP_BPF"), Capability("CAP_PERFMON")]),
    row("bpf_check", &["EINVAL"], "the verifier refuses the program", "its log, log_buf, says at which instruction"),
    row("bpf_check", &["EACCES"], "the verifier refuses the program", "its log, log_buf, says at which instruction"),
    row("lockdown_is_locked_down", &["EPERM"], "the kernel is locked down, as with Secure Boot, and forbids this to root as well", "cat /sys/kernel/security/lockdown; the kernel's log names what"),
    row("devcgroup_check_permission", &["EPERM"], "the control group does not allow this device", "in a container: --device PATH; systemd: DeviceAllow="),
    row("__cgroup_bpf_check_dev_permission", &["EPERM"], "the control group does not allow this device", "in a container: --device PATH; systemd: DeviceAllow="),
    row("cap_capable", &["EPERM"], "a capability is missing", "run it as root, or setcap the one that is missing").value(&[User]),
    row("cap_ptrace_access_check", &["EPERM"], "the process has more capabilities than this one", "run it as root").value(&[Capability("CAP_SYS_PTRACE")]),
    row("cap_inode_setxattr", &["EPERM"], "security. attributes take CAP_SYS_ADMIN", "run it as root").value(&[Capability("CAP_SYS_ADMIN")]),
    row("cap_convert_nscap", &["EPERM"], "to give a file capabilities takes CAP_SETFCAP", "run it as root").value(&[Capability("CAP_SETFCAP")]),
    row("cap_task_prctl", &["EPERM"], "to change securebits or the bounding set takes CAP_SETPCAP", "").value(&[Capability("CAP_SETPCAP")]),
    row("cap_safe_nice", &["EPERM"], "the process has more capabilities than this one", "").value(&[Capability("CAP_SYS_NICE")]),
    row("ima_file_check", &["EACCES"], "the file's measurement is not what IMA expects", "evmctl ima_verify FILE"),
    row("process_measurement", &["EACCES"], "the file's measurement is not what IMA expects", "evmctl ima_verify FILE"),
];

/// By the beginnings of their functions' names.
#[rustfmt::skip] // A table.
pub(super) const MODULES: &[Row] = &[
    row("apparmor_", &[], "an AppArmor profile forbids it", "look for DENIED in the kernel log (dmesg); aa-status lists the profiles").value(&[Modules]),
    row("aa_", &[], "an AppArmor profile forbids it", "look for DENIED in the kernel log (dmesg); aa-status lists the profiles").value(&[Modules]),
    row("selinux_", &[], "the SELinux policy forbids it", "ausearch -m avc -ts recent shows the rule that is missing").value(&[Modules]),
    row("avc_", &[], "the SELinux policy forbids it", "ausearch -m avc -ts recent shows the rule that is missing").value(&[Modules]),
    row("smack_", &[], "a Smack rule forbids it", "").value(&[Modules]),
    row("tomoyo_", &[], "the TOMOYO policy forbids it", "").value(&[Modules]),
    row("hook_", &["EACCES", "EPERM"], "a Landlock rule that the program set for itself forbids it", "").value(&[Modules]),
    row("yama_", &[], "Yama restricts who may trace whom", "run it as root, or set kernel.yama.ptrace_scope to 0").value(&[Setting("kernel/yama/ptrace_scope"), Capability("CAP_SYS_PTRACE")]),
];
