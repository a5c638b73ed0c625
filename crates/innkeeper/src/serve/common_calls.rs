//! The system calls and ioctls that serving takes, whatever the device: `backend`, `vhost-user` and `guestmem` make them, and the daemon at its end.

use confinement::{Argument, Calls, Declaration, Ioctl, Occasion, Role, system_calls as call};

const PROT_EXEC: u64 = libc::PROT_EXEC as u64;
/// `PR_GET_AUXV` (linux/prctl.h), which libc does not name.
const AUXILIARY_VECTOR: &[&[Argument]] = &[&[Argument::is(0, 0x4155_5856)]];
const OWN_MEMORY: &[&[Argument]] = &[&[Argument::own_process(0)]];
/// Of calls that `rustix` or a C library makes in place of another.
pub(super) const OTHER_LIBRARY: &str = "in builds that wait by the C library";
pub(super) const STAT_BY_LIBRARY: &str = "in builds that ask for attributes by the C library";
const NOT_EXECUTABLE: &[&[Argument]] = &[&[Argument::without(2, PROT_EXEC)]];
const DESCRIPTORS: &[&[Argument]] = &[
    &[Argument::is(1, libc::F_DUPFD_CLOEXEC as u32)],
    &[Argument::is(1, libc::F_GETFL as u32)],
];

/// What it takes threads of these roles to wait for files of a device (`backend::Files`), beside kicks.
pub(super) fn waiting_for_files(roles: &'static [Role], why: &'static str) -> Calls {
    Calls {
        roles,
        why,
        permits: const {
            &[
                call::EPOLL_CREATE1.any(),
                call::EPOLL_CTL.any(),
                call::EPOLL_PWAIT.any(),
                call::EPOLL_WAIT.any().rarely(OTHER_LIBRARY),
            ]
        },
    }
}

/// What a device declares of its own, with what serving takes.
pub(super) fn with_common(own: Declaration) -> Declaration {
    Declaration {
        calls: [common_calls(), own.calls].concat(),
        ioctls: [common_ioctls(), own.ioctls].concat(),
        ..own
    }
}

fn common_calls() -> Vec<Calls> {
    vec![
        Calls {
            roles: &[Role::ControlPlane],
            why: "accept a front end and answer it",
            permits: const {
                &[
                    call::ACCEPT4.any(),
                    call::RECVMSG.any(),
                    call::SENDMSG.any(),
                    call::PPOLL.any(),
                ]
            },
        },
        Calls {
            roles: &[Role::ControlPlane],
            why: "take over what the front end sends: memory, and descriptors of kicks, calls and logs",
            permits: const {
                &[
                    call::MMAP.when(NOT_EXECUTABLE),
                    call::FSTAT.any(),
                    call::NEWFSTATAT.any().rarely(STAT_BY_LIBRARY),
                    call::STATX.any(),
                    call::FSTATFS.any(),
                    call::EVENTFD2.any(),
                    call::FCNTL.when(DESCRIPTORS),
                ]
            },
        },
        Calls {
            roles: &[Role::ControlPlane, Role::Lane, Role::Helper, Role::Signals],
            why: "wait, and wake each other",
            permits: const {
                &[
                    call::PPOLL.any(),
                    call::POLL.any().rarely(OTHER_LIBRARY),
                    call::READ.any(),
                    call::WRITE.any(),
                ]
            },
        },
        Calls {
            roles: &[Role::ControlPlane, Role::Lane, Role::Helper, Role::Views],
            why: "learn the size of a page",
            permits: const { &[call::PRCTL.when(AUXILIARY_VECTOR)] },
        },
        Calls {
            roles: &[Role::Lane, Role::Helper],
            why: "write to files that are mapped as memory of the guest",
            permits: const { &[call::PROCESS_VM_WRITEV.when(OWN_MEMORY)] },
        },
        Calls {
            roles: &[Role::Lane],
            why: "read requests, and tables of their buffers, from such files",
            permits: const { &[call::PROCESS_VM_READV.when(OWN_MEMORY)] },
        },
        Calls {
            roles: &[Role::Lane],
            why: "ask the front end to map a file, and go on with memory whose file has been cut short",
            permits: const {
                &[
                    call::SENDMSG.any(),
                    call::RECVMSG.any(),
                    call::MMAP.when(NOT_EXECUTABLE),
                ]
            },
        },
    ]
}

fn common_ioctls() -> Vec<Ioctl> {
    vec![Ioctl {
        name: "FIONBIO",
        number: 0x5421,
        roles: &[Role::ControlPlane],
        why: "have descriptors of the front end not block",
        occasion: Occasion::Usual,
    }]
}
