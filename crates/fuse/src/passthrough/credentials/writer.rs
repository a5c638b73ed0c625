//! Writing as a user other than root, because file systems reserve blocks for root.

use rustix::io::Errno;
use rustix::process::Uid;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_thread_res_uid};

use super::daemon::{Credentials, own, restored};
use super::killpriv::{FsetidGuard, GroupGuard, Kill};
use crate::cause::HostResult as _;
use crate::fs::{Caller, Result};

/// Of a user who is nobody in particular (`nobody` of most systems).
pub(super) const NOBODY: u32 = 65534;

impl Credentials {
    /// Who writes to an open file until the guard drops: `by`, where the daemon is root and the caller is not. File systems keep
    /// blocks for root (mke2fs -m), known by its id or by CAP_SYS_RESOURCE, that a guest's users must not fill. `None` is nobody in
    /// particular. What the file may be used for was decided when it was opened. With `kill` also without CAP_FSETID, see
    /// [`Credentials::without_fsetid`].
    pub(crate) fn become_writer(&self, by: Option<u32>, kill: Option<Kill>) -> Result<WriterGuard> {
        if let Some(by) = self.other_than_root(by) {
            let group = kill.map_or(GroupGuard(None), |kill| self.become_member(kill));
            let keep = match kill {
                Some(_) => CapabilitySet::empty(),
                None => CapabilitySet::FSETID,
            };
            if let Some(writer) = self.become_other(by, keep, group)? {
                return Ok(writer);
            }
        }
        let fsetid = kill.map(|kill| self.without_fsetid(kill)).transpose()?;
        Ok(WriterGuard::unchanged(fsetid))
    }

    /// Who gives a file attributes or another name until the guard drops, for the blocks that those take: as
    /// [`Credentials::become_writer`], but with all other powers of the daemon, since the guest's kernel has checked permissions.
    pub(crate) fn become_namer(&self, by: &Caller) -> Result<WriterGuard> {
        let Some(by) = self.other_than_root((!by.is_unnamed()).then_some(by.uid)) else {
            return Ok(WriterGuard::unchanged(None));
        };
        let keep = CapabilitySet::all().difference(CapabilitySet::SYS_RESOURCE);
        let namer = self.become_other(by, keep, GroupGuard(None))?;
        Ok(namer.unwrap_or_else(|| WriterGuard::unchanged(None)))
    }

    /// The id to act under for `by`. `None`: the daemon's own will do, since it is not root, or acts for the guest's root.
    fn other_than_root(&self, by: Option<u32>) -> Option<u32> {
        let by = by.filter(|&by| by != Caller::UNNAMED).unwrap_or(NOBODY);
        (self.is_root() && by != 0).then_some(by)
    }

    /// `None`: the daemon's user namespace does not map `by`. Its root is an ordinary user of the host, for whom nothing is reserved.
    fn become_other(&self, by: u32, keep: CapabilitySet, group: GroupGuard) -> Result<Option<WriterGuard>> {
        let own = own()?;
        match set_thread_res_uid(None, Uid::from_raw(by), None) {
            Err(Errno::INVAL) => return Ok(None),
            answer => answer.of(|| format!("setresuid(-1, {by}, -1)"))?,
        }
        let guard = WriterGuard {
            own: Some(own),
            loses_capabilities: self.loses_capabilities,
            _fsetid: None,
            _group: group,
        };
        // Most writes keep nothing, and are spared the call.
        if !(keep.is_empty() && self.loses_capabilities) {
            let effective = own.effective & keep;
            set_capabilities(None, CapabilitySets { effective, ..own }).of(|| "capset()".into())?;
        }
        Ok(Some(guard))
    }
}

/// The thread writes as another.
#[must_use]
pub(crate) struct WriterGuard {
    /// What the thread has as root again.
    own: Option<CapabilitySets>,
    loses_capabilities: bool,
    _fsetid: Option<FsetidGuard>,
    /// Dropped once the thread is root again.
    _group: GroupGuard,
}

impl WriterGuard {
    /// The thread stays who it is.
    fn unchanged(fsetid: Option<FsetidGuard>) -> WriterGuard {
        WriterGuard {
            own: None,
            loses_capabilities: true,
            _fsetid: fsetid,
            _group: GroupGuard(None),
        }
    }
}

impl Drop for WriterGuard {
    fn drop(&mut self) {
        let Some(own) = self.own else { return };
        restored(|| set_thread_res_uid(None, Uid::ROOT, None));
        // All that is permitted has become effective, if it was lost.
        if own.effective != own.permitted || !self.loses_capabilities {
            restored(|| set_capabilities(None, own));
        }
    }
}
