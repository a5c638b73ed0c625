//! What root may do and a share has no use for is given up, before a guest is served.

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::error::Error;

/// All that requests and the start of a share need. Not among them is CAP_SYS_RESOURCE, with which a guest would write beyond
/// the hard limits of quotas.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    // chattr +i and +a.
    .union(CapabilitySet::LINUX_IMMUTABLE)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP)
    // trusted.* and security.*, views, and file handles in a mount namespace of one's own.
    .union(CapabilitySet::SYS_ADMIN)
    // Labels of SELinux and Smack.
    .union(CapabilitySet::MAC_ADMIN)
    .union(CapabilitySet::MAC_OVERRIDE);

/// Leaves the calling thread, and all that it starts from now on, with what a share needs. A program that root runs has everything
/// again (capabilities(7)).
pub(crate) fn give_up_what_no_share_needs() -> Result<(), Error> {
    let have = capabilities(None).map_err(Error::system("read the capabilities"))?;
    let less = CapabilitySets {
        effective: have.effective & KEPT,
        permitted: have.permitted & KEPT,
        inheritable: have.inheritable & KEPT,
    };
    set_capabilities(None, less).map_err(Error::system("give up capabilities"))
}
