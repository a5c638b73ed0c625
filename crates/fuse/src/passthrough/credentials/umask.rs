//! The umask of the calling thread.

use rustix::fs::Mode;
use rustix::process::umask;

/// The thread's umask, 0 again when the guard drops. The host applies it where no default ACL takes its place.
#[must_use]
pub(crate) struct UmaskGuard(());

impl UmaskGuard {
    /// The thread must have been prepared, or the umask would be the process'.
    pub(crate) fn set(mask: u32) -> UmaskGuard {
        umask(Mode::from_raw_mode(mask & 0o777));
        UmaskGuard(())
    }
}

impl Drop for UmaskGuard {
    fn drop(&mut self) {
        umask(Mode::empty());
    }
}
