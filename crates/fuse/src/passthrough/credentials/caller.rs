//! Acting as the caller: new files belong to the caller.

use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, set_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::daemon::{Credentials, own, restored};
use crate::cause::HostResult as _;
use crate::fs::{Caller, Errno, Result};

/// Kept while acting for a caller: the guest's kernel has checked permissions already, with knowledge (all groups, file
/// capabilities, its own user namespaces) that a request does not carry.
pub(super) const KEPT: CapabilitySet = CapabilitySet::DAC_OVERRIDE.union(CapabilitySet::MKNOD);

impl Credentials {
    /// Makes what the thread creates until the guard drops belong to the caller. Unprivileged, all belongs to the daemon.
    pub(crate) fn become_caller(&self, by: &Caller) -> Result<CallerGuard<'_>> {
        self.switch(by, KEPT)
    }

    /// As [`Credentials::become_caller`], with none of the daemon's powers: for what the host shall check.
    pub(crate) fn become_caller_powerless(&self, by: &Caller) -> Result<CallerGuard<'_>> {
        self.switch(by, CapabilitySet::empty())
    }

    fn switch(&self, by: &Caller, keep: CapabilitySet) -> Result<CallerGuard<'_>> {
        let own = own()?;
        let mut guard = CallerGuard {
            of: self,
            own,
            groups: false,
            gid: false,
            uid: false,
        };
        if !self.switches {
            return Ok(guard);
        }
        // Linux sends it for ids its mount does not map, and setresuid(2) reads it as "leave unchanged".
        if by.is_unnamed() {
            return Err(Errno::EOVERFLOW.rule("the caller has no user or group id"));
        }
        if let Some(group) = by.supplementary_group.filter(|&group| group != u32::MAX) {
            become_mapped(set_thread_groups(&[Gid::from_raw(group)]), || {
                format!("setgroups({group})")
            })?;
            guard.groups = true;
        }
        let (uid, gid) = (Uid::from_raw(by.uid), Gid::from_raw(by.gid));
        if gid != self.gid {
            become_mapped(set_thread_res_gid(None, gid, None), || {
                format!("setresgid(-1, {}, -1)", by.gid)
            })?;
            guard.gid = true;
        }
        if uid != self.uid {
            become_mapped(set_thread_res_uid(None, uid, None), || {
                format!("setresuid(-1, {}, -1)", by.uid)
            })?;
            guard.uid = true;
            set_capabilities(
                None,
                CapabilitySets {
                    effective: own.effective & keep,
                    ..own
                },
            )
            .of(|| "capset()".into())?;
        }
        Ok(guard)
    }
}

/// Why an id is refused that the daemon's user namespace does not map.
pub(crate) const UNMAPPED: &str = "the id is in no map of the daemon's user namespace (--uid-map, --gid-map)";

/// The answer to a change of identity. Its one reason for EINVAL is an id that the daemon's user namespace does not map, for which Linux
/// has EOVERFLOW where it makes files itself.
fn become_mapped(answer: rustix::io::Result<()>, call: impl FnOnce() -> String) -> Result<()> {
    match answer {
        Err(rustix::io::Errno::INVAL) => Err(Errno::EOVERFLOW.rule(UNMAPPED)),
        answer => answer.of(call),
    }
}

/// The thread acts as the caller.
#[must_use]
pub(crate) struct CallerGuard<'c> {
    of: &'c Credentials,
    own: CapabilitySets,
    groups: bool,
    gid: bool,
    uid: bool,
}

impl Drop for CallerGuard<'_> {
    fn drop(&mut self) {
        // The saved ids allow the way back; the capabilities come next, since setgroups(2) asks for one of them.
        if self.uid {
            restored(|| set_thread_res_uid(None, self.of.uid, None));
            restored(|| set_capabilities(None, self.own));
        }
        if self.gid {
            restored(|| set_thread_res_gid(None, self.of.gid, None));
        }
        if self.groups {
            restored(|| set_thread_groups(&[]));
        }
    }
}
