//! The daemon's own identity: its rights, the preparation of a thread to leave it, and the return to it.

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::process;

use rustix::fs::Mode;
use rustix::process::{Gid, Uid, fchdir, getegid, geteuid, umask};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities, capabilities_secure_bits,
    set_keep_capabilities, set_thread_groups,
};

use crate::cause::HostResult as _;
use crate::fs::Result;
use crate::sys;

/// What the daemon may do with its identity, found out once.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    /// May become any caller (CAP_SETUID and CAP_SETGID).
    pub(super) switches: bool,
    pub(super) has_fsetid: bool,
    /// A thread that ceases to be root loses its effective capabilities, and gets them back with root's id (capabilities(7)). Not so
    /// under SECBIT_NO_SETUID_FIXUP, which a daemon may inherit.
    pub(super) loses_capabilities: bool,
}

thread_local! {
    static PREPARED: Cell<bool> = const { Cell::new(false) };
    static OWN: Cell<Option<CapabilitySets>> = const { Cell::new(None) };
}

/// The thread's capabilities as they were when it first asked, which is what guards restore.
pub(super) fn own() -> Result<CapabilitySets> {
    if let Some(own) = OWN.get() {
        return Ok(own);
    }
    let own = capabilities(None).of(|| "capget()".into())?;
    OWN.set(Some(own));
    Ok(own)
}

impl Credentials {
    pub(crate) fn detect() -> Result<Credentials> {
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
    pub(crate) fn switches(&self) -> bool {
        self.switches
    }

    /// Once a thread: its own umask (0) and working directory (`/proc/self/fd`, where xattr calls find descriptors by name),
    /// no supplementary groups that would count as the caller's, and the way back from being root.
    pub(crate) fn prepare_thread(&self, proc_self_fd: &OwnedFd) -> Result<()> {
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

    /// Whether the daemon is root, and can become others.
    pub(super) fn is_root(&self) -> bool {
        self.switches && self.uid.is_root()
    }
}

/// A way back to an identity that the thread still owns fails only for want of kernel memory. To serve on under a wrong
/// identity would be worse than to end.
pub(super) fn restored(mut change: impl FnMut() -> rustix::io::Result<()>) {
    for _ in 0..100 {
        match change() {
            Ok(()) => return,
            Err(error) => tracing::error!(%error, "cannot return to the daemon's own identity; retrying"),
        }
    }
    process::abort();
}
