//! Settings of the whole system, and those of a control group.

use std::collections::BTreeMap;
use std::fs;

/// Settings that make calls fail, below `/proc/sys`.
const SETTINGS: [&str; 36] = [
    "fs/file-max",
    "fs/nr_open",
    "fs/mount-max",
    "fs/pipe-user-pages-hard",
    "fs/pipe-max-size",
    "fs/aio-max-nr",
    "fs/protected_hardlinks",
    "fs/protected_symlinks",
    "fs/protected_regular",
    "fs/protected_fifos",
    "fs/suid_dumpable",
    "fs/inotify/max_user_instances",
    "fs/inotify/max_user_watches",
    "fs/epoll/max_user_watches",
    "fs/mqueue/queues_max",
    "kernel/apparmor_restrict_unprivileged_userns",
    "kernel/dmesg_restrict",
    "kernel/io_uring_disabled",
    "kernel/io_uring_group",
    "kernel/keys/maxkeys",
    "kernel/modules_disabled",
    "kernel/perf_event_paranoid",
    "kernel/pid_max",
    "kernel/threads-max",
    "kernel/unprivileged_bpf_disabled",
    "kernel/unprivileged_userns_clone",
    "kernel/yama/ptrace_scope",
    "net/core/optmem_max",
    "net/ipv4/ip_unprivileged_port_start",
    "net/ipv4/ping_group_range",
    "user/max_user_namespaces",
    "vm/max_map_count",
    "vm/mmap_min_addr",
    "vm/overcommit_memory",
    "vm/overcommit_ratio",
    "vm/unprivileged_userfaultfd",
];
/// Settings of a control group that make calls fail.
const GROUP: [&str; 4] = ["pids.max", "pids.current", "memory.max", "memory.current"];

pub(super) fn settings() -> BTreeMap<String, String> {
    let value = |path: &str| fs::read_to_string(format!("/proc/sys/{path}"));
    let found = SETTINGS.iter().filter_map(|path| {
        let text = value(path).ok()?;
        let words: Vec<_> = text.split_ascii_whitespace().collect();
        Some(((*path).to_owned(), words.join(" ")))
    });
    found.collect()
}

/// The thread's own control group, or the nearest one around it that has a limit.
pub(super) fn control_group(thread: i32) -> BTreeMap<String, String> {
    let groups = fs::read_to_string(format!("/proc/{thread}/cgroup")).unwrap_or_default();
    // The second version has one hierarchy, with the number 0 and no controllers.
    let Some(group) = groups.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return BTreeMap::new();
    };
    let mut found = BTreeMap::new();
    for limit in GROUP.iter().filter(|name| name.ends_with(".max")) {
        let mut path = Some(group);
        while let Some(inner) = path {
            let read = |name: &str| fs::read_to_string(format!("/sys/fs/cgroup/{inner}/{name}"));
            if let Ok(value) = read(limit)
                && value.trim() != "max"
            {
                found.insert((*limit).to_owned(), value.trim().to_owned());
                let current = limit.replace(".max", ".current");
                if let Ok(value) = read(&current) {
                    found.insert(current, value.trim().to_owned());
                }
                break;
            }
            path = inner.rsplit_once('/').map(|(outer, _)| outer);
        }
    }
    found
}

/// The security modules that are at work, in their order.
pub(super) fn modules() -> Vec<String> {
    let text = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    text.trim()
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::hints::{self, Fact};

    #[test]
    fn values_that_decide_are_among_those_that_are_read() {
        for fact in hints::facts() {
            if let Fact::Setting(path) = fact {
                assert!(SETTINGS.contains(path) || GROUP.contains(path), "{path} is not read");
            }
        }
    }
}
