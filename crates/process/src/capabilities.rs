//! Capabilities: what root may do and a device has no use for is given up, before a guest is served.

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::Error;

/// Leaves the calling thread, and all that it starts from now on, with `kept` at most. A program that root runs has everything again
/// (capabilities(7)).
///
/// # Errors
///
/// The system refuses to read or to set them.
pub fn keep(kept: CapabilitySet) -> Result<(), Error> {
    let have = capabilities(None).map_err(Error::system("read the capabilities"))?;
    let less = CapabilitySets {
        effective: have.effective & kept,
        permitted: have.permitted & kept,
        inheritable: have.inheritable & kept,
    };
    set_capabilities(None, less).map_err(Error::system("give up capabilities"))
}
