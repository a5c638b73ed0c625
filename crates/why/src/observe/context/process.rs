//! The rights of a process, by its limits and its credentials.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};

use crate::observe::proc;

/// The names of limits in `/proc/PID/limits`, and those of setrlimit(2).
const LIMITS: [(&str, &str); 16] = [
    ("Max cpu time", "RLIMIT_CPU"),
    ("Max file size", "RLIMIT_FSIZE"),
    ("Max data size", "RLIMIT_DATA"),
    ("Max stack size", "RLIMIT_STACK"),
    ("Max core file size", "RLIMIT_CORE"),
    ("Max resident set", "RLIMIT_RSS"),
    ("Max processes", "RLIMIT_NPROC"),
    ("Max open files", "RLIMIT_NOFILE"),
    ("Max locked memory", "RLIMIT_MEMLOCK"),
    ("Max address space", "RLIMIT_AS"),
    ("Max file locks", "RLIMIT_LOCKS"),
    ("Max pending signals", "RLIMIT_SIGPENDING"),
    ("Max msgqueue size", "RLIMIT_MSGQUEUE"),
    ("Max nice priority", "RLIMIT_NICE"),
    ("Max realtime priority", "RLIMIT_RTPRIO"),
    ("Max realtime timeout", "RLIMIT_RTTIME"),
];
/// Limits in bytes.
const BYTES: [&str; 6] = [
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_MSGQUEUE",
];
/// Lines of `/proc/PID/status` that say how much of a limit is used.
const USED: [(&str, &str); 3] = [
    ("VmLck", "RLIMIT_MEMLOCK"),
    ("VmSize", "RLIMIT_AS"),
    ("VmData", "RLIMIT_DATA"),
];
/// The capabilities in the order of their numbers, capabilities(7).
const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];
/// What the first user namespace is called (`PROC_USER_INIT_INO`).
const FIRST_USER_NAMESPACE: &str = "user:[4026531837]";

/// Of a process what its calls are checked against.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// Its limits by name.
    pub limits: BTreeMap<String, Limit>,
    /// Its effective capabilities, a bit for each.
    pub capabilities: Option<u64>,
    /// Whether they are those of a user namespace, which count for what belongs to it alone.
    pub own_user_namespace: bool,
    /// Its effective user.
    pub user: Option<u32>,
    /// Whether seccomp filters its calls: 0 not, 1 all but four, 2 by a filter.
    pub seccomp: Option<u8>,
    /// What a security module calls it (`/proc/PID/attr/current`).
    pub label: Option<String>,
}

/// A limit and what is used of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limit {
    /// The limit; none if there is no limit.
    pub soft: Option<u64>,
    /// What the process may raise it to.
    pub hard: Option<u64>,
    /// How much is used, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
}

impl Process {
    pub(super) fn of(thread: i32) -> Option<Self> {
        let read = |file: &str| proc::read(thread, file);
        let mut process = Self::parse(&read("status").ok()?, &read("limits").unwrap_or_default());
        if let Some(limit) = process.limits.get_mut("RLIMIT_NOFILE") {
            limit.used = fs::read_dir(format!("/proc/{thread}/fd"))
                .ok()
                .map(|entries| entries.count() as u64);
        }
        let namespace = fs::read_link(format!("/proc/{thread}/ns/user"));
        process.own_user_namespace = namespace.is_ok_and(|name| name.as_os_str() != FIRST_USER_NAMESPACE);
        let label = read("attr/current").unwrap_or_default();
        let label = label.trim_end_matches(['\n', '\0']);
        process.label = (!label.is_empty()).then(|| label.to_owned());
        Some(process)
    }

    fn parse(status: &str, limits: &str) -> Self {
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
        };
        let mut parsed = Self {
            capabilities: field("CapEff").and_then(|digits| u64::from_str_radix(digits, 16).ok()),
            // Real, effective, saved and that of the file system.
            user: field("Uid").and_then(|users| users.split_ascii_whitespace().nth(1)?.parse().ok()),
            seccomp: field("Seccomp").and_then(|mode| mode.parse().ok()),
            ..Self::default()
        };
        for line in limits.lines() {
            let Some((rest, name)) = LIMITS
                .iter()
                .find_map(|(label, name)| Some((line.strip_prefix(label)?, *name)))
            else {
                continue;
            };
            let mut words = rest.split_ascii_whitespace();
            let mut next = || words.next().and_then(|word| word.parse().ok());
            let (soft, hard) = (next(), next());
            let used = USED.iter().find(|(_, limit)| *limit == name).and_then(|(line, _)| {
                let kib: u64 = field(line)?.strip_suffix(" kB")?.trim().parse().ok()?;
                Some(kib << 10)
            });
            parsed.limits.insert(name.to_owned(), Limit { soft, hard, used });
        }
        parsed
    }

    pub(super) fn tell_limit(&self, name: &str) -> Option<String> {
        let limit = self.limits.get(name)?;
        let bytes = BYTES.contains(&name);
        let show = |value: Option<u64>| match value {
            None => "unlimited".to_owned(),
            Some(value) if bytes => size(value),
            Some(value) => value.to_string(),
        };
        let hard = if limit.hard == limit.soft {
            String::new()
        } else {
            format!(" (it may raise it to {})", show(limit.hard))
        };
        let used = match limit.used {
            Some(used) => format!(", {} in use", show(Some(used))),
            None => String::new(),
        };
        Some(format!("{name} is {}{hard}{used}", show(limit.soft)))
    }

    pub(super) fn tell_capability(&self, name: &str) -> Option<String> {
        let number = CAPABILITIES.iter().position(|known| *known == name)?;
        let has = self.capabilities? >> number & 1 == 1;
        let user = self.user.map_or_else(String::new, |user| format!(" (user {user})"));
        Some(match (has, self.own_user_namespace) {
            (false, _) => format!("it has no {name}{user}"),
            (true, false) => format!("it has {name}"),
            (true, true) => format!("it has {name}, but in a user namespace, not for what belongs to the whole system"),
        })
    }
}

/// Bytes as people write them, if that loses nothing.
fn size(bytes: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str =
        "Name:\tx\nUid:\t1000\t1001\t1000\t1000\nVmLck:\t      64 kB\nCapEff:\t0000000000000400\nSeccomp:\t2\n";
    const TEXT: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
                        Max open files            256                  4096                 files     \n\
                        Max locked memory         65536                65536                bytes     \n\
                        Max cpu time              unlimited            unlimited            seconds   \n";

    #[test]
    fn limits_are_told_with_what_is_used_of_them() {
        let mut process = Process::parse(STATUS, TEXT);
        process.limits.get_mut("RLIMIT_NOFILE").unwrap().used = Some(256);
        assert_eq!(
            process.tell_limit("RLIMIT_NOFILE").unwrap(),
            "RLIMIT_NOFILE is 256 (it may raise it to 4096), 256 in use"
        );
        assert_eq!(
            process.tell_limit("RLIMIT_MEMLOCK").unwrap(),
            "RLIMIT_MEMLOCK is 64 KiB, 64 KiB in use"
        );
        assert_eq!(process.tell_limit("RLIMIT_CPU").unwrap(), "RLIMIT_CPU is unlimited");
        assert_eq!(process.tell_limit("RLIMIT_AS"), None, "there is no such line");
    }

    #[test]
    fn capabilities_are_those_of_the_effective_set() {
        let mut process = Process::parse(STATUS, TEXT);
        assert_eq!(
            process.tell_capability("CAP_NET_BIND_SERVICE").unwrap(),
            "it has CAP_NET_BIND_SERVICE"
        );
        assert_eq!(
            process.tell_capability("CAP_SYS_ADMIN").unwrap(),
            "it has no CAP_SYS_ADMIN (user 1001)"
        );
        process.own_user_namespace = true;
        let told = process.tell_capability("CAP_NET_BIND_SERVICE").unwrap();
        assert!(told.contains("in a user namespace"), "{told}");
    }

    #[test]
    fn the_own_process_has_all_limits() {
        let process = Process::of(std::process::id().cast_signed()).unwrap();
        assert_eq!(process.limits.len(), LIMITS.len());
        assert!(process.limits["RLIMIT_NOFILE"].used.unwrap() > 2);
        assert!(process.limits["RLIMIT_AS"].used.unwrap() > 0);
    }

    #[test]
    fn sizes_lose_nothing() {
        assert_eq!(size(65536), "64 KiB");
        assert_eq!(size(65537), "65537 bytes");
        assert_eq!(size(3 << 30), "3 GiB");
        assert_eq!(size(0), "0 bytes");
    }
}
