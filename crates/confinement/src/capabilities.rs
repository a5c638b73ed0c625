//! Capabilities: what a thread may do beyond what any user may.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use crate::Error;

/// Whether the bounding set was reduced as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounding {
    /// It has no more than what was kept.
    Reduced,
    /// It has what it had, since the thread lacks CAP_SETPCAP. It grants nothing: no-new-privs holds, under which execve(2) gives no
    /// capability that the thread has not.
    Left,
}

/// Leaves the calling thread, and those that it starts from now on, with those of `kept` that it has: permitted and effective, and in
/// the bounding set. The inheritable and the ambient set are emptied, no-new-privs is set. There is no way back. Secure bits stay as
/// they are: without execve(2) they decide nothing but what a change of user ids does, which a device may rely on.
///
/// # Errors
///
/// The system refuses a change, or capabilities remain.
pub fn keep(kept: CapabilitySet) -> Result<Bounding, Error> {
    let have = capabilities(None).map_err(Error::capabilities("read the capabilities"))?;
    // First, while CAP_SETPCAP is there.
    let bounding = reduce_bounding(kept)?;
    clear_ambient_capability_set().map_err(Error::capabilities("empty the ambient capabilities"))?;
    let sets = CapabilitySets {
        effective: have.permitted & kept,
        permitted: have.permitted & kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).map_err(Error::capabilities("give up capabilities"))?;
    set_no_new_privs(true).map_err(Error::capabilities("give up new privileges"))?;
    let now = capabilities(None).map_err(Error::capabilities("read the capabilities"))?;
    let remain = (now.effective | now.permitted | now.inheritable) - kept;
    if !remain.is_empty() {
        let names: Vec<_> = remain.iter_names().map(|(name, _)| name).collect();
        return Err(Error::CapabilitiesRemain(names.join(", ")));
    }
    Ok(bounding)
}

fn reduce_bounding(kept: CapabilitySet) -> Result<Bounding, Error> {
    for number in 0..u64::BITS {
        // Newer kernels have some without a name here.
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(capability) {
            Ok(true) if !kept.contains(capability) => match remove_capability_from_bounding_set(capability) {
                Ok(()) => {}
                Err(Errno::PERM) => return Ok(Bounding::Left),
                Err(errno) => return Err(Error::capabilities("reduce the bounding set")(errno)),
            },
            Ok(_) => {}
            // No kernel has capabilities beyond one that it does not know.
            Err(_) => break,
        }
    }
    Ok(Bounding::Reduced)
}
