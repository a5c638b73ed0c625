//! Users and groups of a user namespace.
//!
//! The process's own are mapped to themselves; all others look like `nobody`. Ranges of further ids (subuid(5)) take a helper that is
//! set-user-id (newuidmap(1)) and writes the maps from outside, while this process waits: it would take the place of [`Own::map`].

use std::fs;
use std::io;

use rustix::process::{getegid, geteuid};

/// Who the process is outside of the namespace.
pub(super) struct Own {
    user: u32,
    group: u32,
}

impl Own {
    /// To be called before the namespace is made: without a map the process is nobody there.
    pub(super) fn now() -> Own {
        Own {
            user: geteuid().as_raw(),
            group: getegid().as_raw(),
        }
    }

    /// Maps user and group to themselves in the namespace that the process has just made.
    pub(super) fn map(&self) -> io::Result<()> {
        fs::write("/proc/self/uid_map", format!("{0} {0} 1", self.user))?;
        // Without it no group can be mapped (user_namespaces(7)).
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/gid_map", format!("{0} {0} 1", self.group))
    }
}
