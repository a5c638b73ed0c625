//! Who the host believes a request comes from: identity, capabilities and umask of the calling thread.
//!
//! The raw system calls change one thread alone, so every lane can act for another caller at the same time. All changes are
//! guards: they end with the operation, on every path.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process;

use rustix::fs::{Mode, Statx};
use rustix::process::{Gid, Uid, fchdir, getegid, geteuid, umask};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities, capabilities_secure_bits, set_capabilities,
    set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::attr;
use crate::cause::HostResult as _;
use crate::fs::{Caller, Errno, Result};
use crate::sys;

/// What the daemon may do with its identity, found out once.
#[derive(Debug)]
pub(super) struct Credentials {
    uid: Uid,
    gid: Gid,
    /// May become any caller (CAP_SETUID and CAP_SETGID).
    switches: bool,
    has_fsetid: bool,
    /// A thread that ceases to be root loses its effective capabilities, and gets them back with root's id (capabilities(7)). Not so
    /// under SECBIT_NO_SETUID_FIXUP, which a daemon may inherit.
    loses_capabilities: bool,
}

/// Kept while acting for a caller: the guest's kernel has checked permissions already, with knowledge (all groups, file
/// capabilities, its own user namespaces) that a request does not carry.
const KEPT: CapabilitySet = CapabilitySet::DAC_OVERRIDE.union(CapabilitySet::MKNOD);

/// A change of contents that drops set-user-id, set-group-id and file capabilities, as an unprivileged caller's does (FUSE 7.33,
/// FUSE_HANDLE_KILLPRIV_V2).
#[derive(Clone, Copy, Debug)]
pub(super) struct Kill {
    /// The group of a file that keeps set-group-id, since it lacks group execute. Linux drops it unless a member changes the file.
    /// Requests don't carry the caller's supplementary groups, so that every caller counts as a member.
    group: Option<Gid>,
}

/// Of a user who is nobody in particular (`nobody` of most systems).
const NOBODY: u32 = 65534;

thread_local! {
    static PREPARED: Cell<bool> = const { Cell::new(false) };
    static OWN: Cell<Option<CapabilitySets>> = const { Cell::new(None) };
}

/// The thread's capabilities as they were when it first asked, which is what guards restore.
fn own() -> Result<CapabilitySets> {
    if let Some(own) = OWN.get() {
        return Ok(own);
    }
    let own = capabilities(None).of(|| "capget()".into())?;
    OWN.set(Some(own));
    Ok(own)
}

impl Credentials {
    pub(super) fn detect() -> Result<Credentials> {
        let own = capabilities(None).of(|| "capget()".into())?;
        let switches = own.effective.contains(CapabilitySet::SETUID | CapabilitySet::SETGID);
        let has_fsetid = own.effective.contains(CapabilitySet::FSETID);
        let secure_bits = capabilities_secure_bits().of(|| "prctl(PR_GET_SECUREBITS)".into())?;
        Ok(Credentials {
            uid: geteuid(),
            gid: getegid(),
            switches,
            has_fsetid,
            loses_capabilities: !secure_bits.contains(CapabilitiesSecureBits::NO_SETUID_FIXUP),
        })
    }

    /// Whether nodes can be made in the caller's name.
    pub(super) fn switches(&self) -> bool {
        self.switches
    }

    /// Once a thread: its own umask (0) and working directory (`/proc/self/fd`, where xattr calls find descriptors by name),
    /// no supplementary groups that would count as the caller's, and the way back from being root.
    pub(super) fn prepare_thread(&self, proc_self_fd: &OwnedFd) -> Result<()> {
        if PREPARED.get() {
            return Ok(());
        }
        sys::unshare_fs().of(|| "unshare(CLONE_FS)".into())?;
        fchdir(proc_self_fd.as_fd()).of(|| "fchdir(/proc/self/fd)".into())?;
        umask(Mode::empty());
        if self.switches {
            set_thread_groups(&[]).of(|| "setgroups()".into())?;
            // Else a daemon that is not root, but may become it, loses all capabilities when it ceases to be (capabilities(7)).
            set_keep_capabilities(true).of(|| "prctl(PR_SET_KEEPCAPS)".into())?;
        }
        PREPARED.set(true);
        Ok(())
    }

    /// Makes what the thread creates until the guard drops belong to the caller. Unprivileged, all belongs to the daemon.
    pub(super) fn become_caller(&self, by: &Caller) -> Result<CallerGuard<'_>> {
        self.switch(by, KEPT)
    }

    /// As [`Credentials::become_caller`], with none of the daemon's powers: for what the host shall check.
    pub(super) fn become_caller_powerless(&self, by: &Caller) -> Result<CallerGuard<'_>> {
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
            set_thread_groups(&[Gid::from_raw(group)]).of(|| format!("setgroups({group})"))?;
            guard.groups = true;
        }
        let (uid, gid) = (Uid::from_raw(by.uid), Gid::from_raw(by.gid));
        if gid != self.gid {
            set_thread_res_gid(None, gid, None).of(|| format!("setresgid(-1, {}, -1)", by.gid))?;
            guard.gid = true;
        }
        if uid != self.uid {
            set_thread_res_uid(None, uid, None).of(|| format!("setresuid(-1, {}, -1)", by.uid))?;
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

    /// What dropping the privileges of `file` takes.
    pub(super) fn kill(&self, file: BorrowedFd<'_>) -> Kill {
        match self.is_root().then(|| attr::stat_cached(file)) {
            Some(Ok(stat)) => self.kill_by(&stat),
            Some(Err(_)) | None => Kill { group: None },
        }
    }

    /// The same, by what [`attr::stat_cached`] says of the file.
    pub(super) fn kill_by(&self, stat: &Statx) -> Kill {
        let keeps = self.is_root() && keeps_set_group_id(stat.stx_mode) && stat.stx_gid != u32::MAX;
        Kill {
            group: keeps.then(|| Gid::from_raw(stat.stx_gid)),
        }
    }

    /// Takes CAP_FSETID away, so that the host drops set-user-id and set-group-id on a change of contents.
    pub(super) fn without_fsetid(&self, kill: Kill) -> Result<FsetidGuard> {
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
    fn become_member(&self, kill: Kill) -> GroupGuard {
        let group = kill.group.filter(|&group| group != self.gid);
        let changed = group.is_some_and(|group| set_thread_res_gid(None, group, None).is_ok());
        GroupGuard(changed.then_some(self.gid))
    }

    /// Whether the daemon is root, and can become others.
    fn is_root(&self) -> bool {
        self.switches && self.uid.is_root()
    }

    /// Who writes to an open file until the guard drops: `by`, where the daemon is root and the caller is not. File systems keep
    /// blocks for root (mke2fs -m), known by its id or by CAP_SYS_RESOURCE, that a guest's users must not fill. `None` is nobody in
    /// particular. What the file may be used for was decided when it was opened. With `kill` also without CAP_FSETID, see
    /// [`Credentials::without_fsetid`].
    pub(super) fn become_writer(&self, by: Option<u32>, kill: Option<Kill>) -> Result<WriterGuard> {
        let Some(by) = self.other_than_root(by) else {
            let fsetid = kill.map(|kill| self.without_fsetid(kill)).transpose()?;
            return Ok(WriterGuard::unchanged(fsetid));
        };
        let group = kill.map_or(GroupGuard(None), |kill| self.become_member(kill));
        let keep = match kill {
            Some(_) => CapabilitySet::empty(),
            None => CapabilitySet::FSETID,
        };
        self.become_other(by, keep, group)
    }

    /// Who gives a file attributes or another name until the guard drops, for the blocks that those take: as
    /// [`Credentials::become_writer`], but with all other powers of the daemon, since the guest's kernel has checked permissions.
    pub(super) fn become_namer(&self, by: &Caller) -> Result<WriterGuard> {
        let Some(by) = self.other_than_root((!by.is_unnamed()).then_some(by.uid)) else {
            return Ok(WriterGuard::unchanged(None));
        };
        let keep = CapabilitySet::all().difference(CapabilitySet::SYS_RESOURCE);
        self.become_other(by, keep, GroupGuard(None))
    }

    /// The id to act under for `by`. `None`: the daemon's own will do, since it is not root, or acts for the guest's root.
    fn other_than_root(&self, by: Option<u32>) -> Option<u32> {
        let by = by.filter(|&by| by != Caller::UNNAMED).unwrap_or(NOBODY);
        (self.is_root() && by != 0).then_some(by)
    }

    fn become_other(&self, by: u32, keep: CapabilitySet, group: GroupGuard) -> Result<WriterGuard> {
        let own = own()?;
        set_thread_res_uid(None, Uid::from_raw(by), None).of(|| format!("setresuid(-1, {by}, -1)"))?;
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
        Ok(guard)
    }
}

/// The thread writes as another.
#[must_use]
pub(super) struct WriterGuard {
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

/// The thread acts as the caller.
#[must_use]
pub(super) struct CallerGuard<'c> {
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

/// The thread lacks CAP_FSETID.
#[must_use]
pub(super) struct FsetidGuard {
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
struct GroupGuard(Option<Gid>);

impl Drop for GroupGuard {
    fn drop(&mut self) {
        // The saved group id allows the way back without a capability.
        if let Some(own) = self.0 {
            restored(|| set_thread_res_gid(None, own, None));
        }
    }
}

/// Set-group-id without group execute gives no rights to a program, and a change of contents leaves it (linux/fuse.h).
fn keeps_set_group_id(mode: u16) -> bool {
    let mode = Mode::from_raw_mode(mode.into());
    mode.contains(Mode::SGID) && !mode.contains(Mode::XGRP)
}

/// A way back to an identity that the thread still owns fails only for want of kernel memory. To serve on under a wrong
/// identity would be worse than to end.
fn restored(mut change: impl FnMut() -> rustix::io::Result<()>) {
    for _ in 0..100 {
        match change() {
            Ok(()) => return,
            Err(error) => tracing::error!(%error, "could not return to the daemon's own identity, trying again"),
        }
    }
    process::abort();
}

/// The thread's umask, 0 again when the guard drops. The host applies it where no default ACL takes its place.
#[must_use]
pub(super) struct UmaskGuard(());

impl UmaskGuard {
    /// The thread must have been prepared, or the umask would be the process'.
    pub(super) fn set(mask: u32) -> UmaskGuard {
        umask(Mode::from_raw_mode(mask & 0o777));
        UmaskGuard(())
    }
}

impl Drop for UmaskGuard {
    fn drop(&mut self) {
        umask(Mode::empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::getgroups;
    use rustix::thread::set_capabilities_secure_bits;

    fn caller(uid: u32, gid: u32, supplementary_group: Option<u32>) -> Caller {
        Caller {
            uid,
            gid,
            pid: 1,
            supplementary_group,
        }
    }

    /// `None` where the test cannot run: only root changes identity.
    fn root() -> Option<Credentials> {
        let credentials = Credentials::detect().unwrap();
        if !credentials.switches() {
            eprintln!("skipped: needs CAP_SETUID and CAP_SETGID");
            return None;
        }
        set_thread_groups(&[]).unwrap();
        Some(credentials)
    }

    fn state() -> (Uid, Gid, Vec<Gid>, CapabilitySet) {
        (
            geteuid(),
            getegid(),
            getgroups().unwrap(),
            capabilities(None).unwrap().effective,
        )
    }

    #[test]
    fn a_caller_lasts_as_long_as_its_guard() {
        let Some(credentials) = root() else { return };
        let before = state();
        let guard = credentials.become_caller(&caller(1000, 1001, Some(1002))).unwrap();
        let (uid, gid, groups, effective) = state();
        assert_eq!((uid.as_raw(), gid.as_raw()), (1000, 1001));
        assert_eq!(groups, [Gid::from_raw(1002)]);
        assert_eq!(effective, KEPT & before.3);
        drop(guard);
        assert_eq!(state(), before);
    }

    #[test]
    fn the_root_of_the_guest_keeps_its_powers() {
        let Some(credentials) = root() else { return };
        let before = state();
        let _guard = credentials.become_caller(&caller(0, 5, None)).unwrap();
        assert_eq!(state(), (before.0, Gid::from_raw(5), vec![], before.3));
    }

    #[test]
    fn an_unmapped_caller_is_refused_and_changes_nothing() {
        let Some(credentials) = root() else { return };
        let before = state();
        assert_eq!(
            credentials.become_caller(&caller(u32::MAX, 0, None)).err(),
            Some(Errno::EOVERFLOW)
        );
        assert_eq!(
            credentials.become_caller(&caller(0, u32::MAX, Some(3))).err(),
            Some(Errno::EOVERFLOW)
        );
        assert_eq!(state(), before);
    }

    #[test]
    fn a_daemon_that_is_not_root_comes_back_from_acting_for_root() {
        if root().is_none() {
            return;
        }
        let file = tempfile::tempfile().unwrap();
        let marked = std::os::unix::fs::PermissionsExt::from_mode(0o2644);
        file.set_permissions(marked).unwrap();
        let run = || {
            let set = CapabilitySet::SETUID | CapabilitySet::SETGID;
            set_keep_capabilities(true).unwrap();
            set_thread_res_gid(Gid::from_raw(2000), Gid::from_raw(2000), Gid::from_raw(2000)).unwrap();
            set_thread_res_uid(Uid::from_raw(2000), Uid::from_raw(2000), Uid::from_raw(2000)).unwrap();
            let sets = CapabilitySets {
                effective: set,
                permitted: set,
                inheritable: CapabilitySet::empty(),
            };
            set_capabilities(None, sets).unwrap();
            set_keep_capabilities(false).unwrap();

            let credentials = Credentials::detect().unwrap();
            let proc = crate::passthrough::procfs::ProcSelfFd::open().unwrap();
            credentials.prepare_thread(proc.directory()).unwrap();
            let before = state();
            assert!(
                credentials.kill(file.as_fd()).group.is_none(),
                "a group's members are not for it to be"
            );
            for uid in [0, 1000] {
                let guard = credentials.become_caller(&caller(uid, uid, Some(3))).unwrap();
                assert_eq!(geteuid().as_raw(), uid);
                drop(guard);
                assert_eq!(state(), before, "after acting for {uid}");
            }
        };
        // A thread has an identity of its own.
        std::thread::scope(|scope| scope.spawn(run).join().unwrap());
    }

    #[test]
    fn a_panic_ends_the_guise_of_the_caller() {
        let Some(credentials) = root() else { return };
        let before = state();
        let panicked = std::panic::catch_unwind(|| {
            let _caller = credentials.become_caller(&caller(1000, 1001, Some(1002))).unwrap();
            panic!("within a request");
        });
        assert!(panicked.is_err());
        assert_eq!(state(), before);
    }

    #[test]
    fn a_writer_is_not_root_for_as_long_as_its_guard() {
        let Some(credentials) = root() else { return };
        let before = state();
        for (by, is, kill, kept) in [
            (Some(1000), 1000, true, CapabilitySet::empty()),
            (Some(1000), 1000, false, CapabilitySet::FSETID & before.3),
            (None, NOBODY, false, CapabilitySet::FSETID & before.3),
            (Some(u32::MAX), NOBODY, true, CapabilitySet::empty()),
            (Some(0), 0, false, before.3),
            (Some(0), 0, true, before.3.difference(CapabilitySet::FSETID)),
        ] {
            for group in [None, Some(5)] {
                let case = format!("{by:?} {kill} {group:?}");
                let kill = kill.then_some(Kill {
                    group: group.map(Gid::from_raw),
                });
                let member = kill.and_then(|kill| kill.group).unwrap_or(before.1);
                let guard = credentials.become_writer(by, kill).unwrap();
                assert_eq!(state(), (Uid::from_raw(is), member, vec![], kept), "{case}");
                drop(guard);
                assert_eq!(state(), before, "{case}");
            }
        }
    }

    #[test]
    fn set_group_id_stays_where_group_execute_is_missing() {
        for (mode, keeps) in [
            (0o2644, true),
            (0o6745, true),
            (0o2654, false),
            (0o4644, false),
            (0o644, false),
        ] {
            assert_eq!(keeps_set_group_id(0o100_000 | mode), keeps, "{mode:o}");
        }
    }

    #[test]
    fn fsetid_comes_back() {
        let Some(credentials) = root() else { return };
        let before = state();
        for group in [before.1, Gid::from_raw(5)] {
            let guard = credentials.without_fsetid(Kill { group: Some(group) }).unwrap();
            assert!(!state().3.contains(CapabilitySet::FSETID));
            assert_eq!(state().1, group);
            drop(guard);
            assert_eq!(state(), before);
        }
    }

    /// systemd: SecureBits=no-setuid-fixup.
    #[test]
    fn a_writer_has_no_capabilities_whatever_the_securebits() {
        if root().is_none() {
            return;
        }
        let run = || {
            set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP).unwrap();
            let credentials = Credentials::detect().unwrap();
            let proc = crate::passthrough::procfs::ProcSelfFd::open().unwrap();
            credentials.prepare_thread(proc.directory()).unwrap();
            let before = state();
            let writer = credentials.become_writer(Some(1000), Some(Kill { group: None }));
            assert_eq!((state().0.as_raw(), state().3), (1000, CapabilitySet::empty()));
            drop(writer.unwrap());
            assert_eq!(state(), before);
        };
        // A thread has securebits of its own.
        std::thread::spawn(run).join().unwrap();
    }

    #[test]
    fn who_names_a_file_is_not_root_but_keeps_its_powers() {
        let Some(credentials) = root() else { return };
        let before = state();
        for (uid, is) in [(1000, 1000), (Caller::UNNAMED, NOBODY), (0, 0)] {
            let guard = credentials.become_namer(&caller(uid, uid, None)).unwrap();
            let kept = if is == 0 {
                before.3
            } else {
                before.3.difference(CapabilitySet::SYS_RESOURCE)
            };
            assert_eq!((state().0.as_raw(), state().3), (is, kept));
            drop(guard);
            assert_eq!(state(), before);
        }
    }
}
