//! Names shared by host and guest.

/// Innkeeper's path in the initramfs. The kernel starts it by this name, which nobody else calls innkeeper by.
pub(crate) const PROGRAM: &str = "/innkeeper-guest-init";
/// Mount points of the initramfs.
pub(crate) const PROC: &str = "/proc";
pub(crate) const SYS: &str = "/sys";
pub(crate) const DEV: &str = "/dev";
pub(crate) const NEW_ROOT: &str = "/root";

/// What begins the one line on the console that tells why the guest could not be set up.
pub(crate) const FAILURE: &str = "innkeeper in the guest: ";
