//! What the process may do that removes a daemon's sockets: see [`process::remover`].

use confinement::{Action, Calls, Declaration, Error, Filters, Role, capabilities, system_calls as call};
use rustix::thread::CapabilitySet;

/// Leaves the calling process with that.
pub(super) fn confine(action: Action) -> Result<(), Error> {
    // Root's socket may lie in a directory of another user.
    capabilities::keep(CapabilitySet::DAC_OVERRIDE)?;
    Filters::new(&declaration(), action)?.narrow(Role::Signals)
}

fn declaration() -> Declaration {
    Declaration {
        device: "remover",
        shared: None,
        network: false,
        capabilities: Vec::new(),
        calls: vec![Calls {
            roles: &[Role::Signals],
            why: "wait for the end of the daemon, and remove its sockets",
            permits: const {
                &[
                    call::READ.any(),
                    call::FSTAT.any(),
                    call::NEWFSTATAT.any(),
                    call::UNLINKAT.any(),
                ]
            },
        }],
        ioctls: Vec::new(),
    }
}
