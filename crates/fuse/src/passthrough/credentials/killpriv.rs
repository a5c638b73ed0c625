//! Drops set-user-id and set-group-id when contents change: in a thread without CAP_FSETID, in a group that keeps the
//! bits that must stay.

use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, Statx};
use rustix::process::Gid;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_thread_res_gid};

use super::super::stat;
use super::daemon::{Credentials, own, restored};
use crate::cause::HostResult as _;
use crate::fs::Result;

/// A change of contents that drops set-user-id, set-group-id and file capabilities, as an unprivileged caller's does (FUSE 7.33,
/// FUSE_HANDLE_KILLPRIV_V2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kill {
    /// The group of a file that keeps set-group-id, since it lacks group execute. Linux drops it unless a member changes the file.
    /// Requests don't carry the caller's supplementary groups, so that every caller counts as a member.
    pub(super) group: Option<Gid>,
}

impl Credentials {
    /// What dropping the privileges of `file` takes.
    pub(crate) fn kill(&self, file: BorrowedFd<'_>) -> Kill {
        match self.is_root().then(|| stat::cached(file)) {
            Some(Ok(stat)) => self.kill_by(&stat),
            Some(Err(_)) | None => Kill { group: None },
        }
    }

    /// The same, by what [`stat::cached`] says of the file.
    pub(crate) fn kill_by(&self, stat: &Statx) -> Kill {
        let keeps = self.is_root() && keeps_set_group_id(stat.stx_mode) && stat.stx_gid != u32::MAX;
        Kill {
            group: keeps.then(|| Gid::from_raw(stat.stx_gid)),
        }
    }

    /// Takes CAP_FSETID away, so that the host drops set-user-id and set-group-id on a change of contents.
    pub(crate) fn without_fsetid(&self, kill: Kill) -> Result<FsetidGuard> {
        let mut guard = FsetidGuard {
            own: None,
            _group: self.become_member(kill),
        };
        if self.has_fsetid {
            let own = own()?;
            let effective = own.effective.difference(CapabilitySet::FSETID);
            set_capabilities(None, CapabilitySets { effective, ..own }).of(|| "capset()".into())?;
            guard.own = Some(own);
        }
        Ok(guard)
    }

    /// Makes the thread's group that of a file which keeps set-group-id. A group that the daemon cannot have (in a user namespace)
    /// costs the file the bit, and not the caller its request.
    pub(super) fn become_member(&self, kill: Kill) -> GroupGuard {
        let group = kill.group.filter(|&group| group != self.gid);
        let changed = group.is_some_and(|group| set_thread_res_gid(None, group, None).is_ok());
        GroupGuard(changed.then_some(self.gid))
    }
}

/// The thread lacks CAP_FSETID.
#[must_use]
pub(crate) struct FsetidGuard {
    own: Option<CapabilitySets>,
    _group: GroupGuard,
}

impl Drop for FsetidGuard {
    fn drop(&mut self) {
        if let Some(own) = self.own {
            restored(|| set_capabilities(None, own));
        }
    }
}

/// The thread's effective group is a file's; what it was before.
#[must_use]
pub(super) struct GroupGuard(pub(super) Option<Gid>);

impl Drop for GroupGuard {
    fn drop(&mut self) {
        // The saved group id allows the way back without a capability.
        if let Some(own) = self.0 {
            restored(|| set_thread_res_gid(None, own, None));
        }
    }
}

/// Set-group-id without group execute gives no rights to a program, and a change of contents leaves it (linux/fuse.h).
pub(super) fn keeps_set_group_id(mode: u16) -> bool {
    let mode = Mode::from_raw_mode(mode.into());
    mode.contains(Mode::SGID) && !mode.contains(Mode::XGRP)
}
