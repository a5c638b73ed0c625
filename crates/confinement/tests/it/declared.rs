//! Declarations for tests.

use std::path::Path;

use confinement::system_calls as call;
use confinement::{Access, Argument, Calls, Capabilities, Declaration, Permit, Role, Shared};
use rustix::thread::CapabilitySet;

/// What a share keeps to act for all users of its guest, and to open files by their handles.
pub(crate) const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP);

const FILES: &[Permit] = &[
    // musl's open(3): it closes on exec twice.
    call::OPEN.any(),
    call::FCNTL.when(&[&[Argument::is(1, libc::F_SETFD as u32)]]),
    call::OPENAT.any(),
    call::OPENAT2.any(),
    call::PREADV2.any(),
    call::FCHMODAT.any(),
    call::READ.any(),
    call::WRITE.any(),
];

const CONTROL: &[Permit] = &[
    call::SOCKET.when(&[&[Argument::is(0, libc::AF_UNIX as u32)]]),
    call::PPOLL.any(),
];

/// Something like a share of `directory`.
pub(crate) fn share(directory: &Path) -> Declaration {
    Declaration {
        device: "share",
        shared: Some(Shared {
            directory: directory.into(),
            access: Access::Write,
            why: "it is shared",
        }),
        network: false,
        capabilities: vec![Capabilities {
            set: KEPT,
            roles: &[Role::Lane],
            why: "requests of all users of the guest",
        }],
        calls: vec![
            Calls {
                roles: &[Role::Lane, Role::Helper],
                why: "requests",
                permits: FILES,
            },
            Calls {
                roles: &[Role::ControlPlane],
                why: "the front end",
                permits: CONTROL,
            },
            Calls {
                roles: &[Role::Signals],
                why: "the end",
                permits: const { &[call::READ.any()] },
            },
        ],
        ioctls: Vec::new(),
    }
}

/// Something like a device that opens no file.
pub(crate) fn fileless() -> Declaration {
    Declaration {
        device: "rng",
        shared: None,
        capabilities: Vec::new(),
        ..share(Path::new("/"))
    }
}

/// A device that calls for nothing but what every thread does.
pub(crate) fn without_files() -> Declaration {
    Declaration {
        calls: Vec::new(),
        ..fileless()
    }
}
