//! What a share needs of the host once it serves.

use std::path::Path;

use confinement::{
    Access, Argument, Calls, Capabilities, Declaration, Ioctl, Occasion, Role, Shared, system_calls as call,
};
use rustix::thread::CapabilitySet;

use super::args::Export;
use super::error::Error;
use crate::serve::common_calls::{STAT_BY_LIBRARY, with_common};

/// Threads that act for the guest.
const SERVING: &[Role] = &[Role::Lane, Role::Helper];
/// With the one that makes the share, and starts the others.
const ALL: &[Role] = &[Role::ControlPlane, Role::Lane, Role::Helper];

const DESCRIPTORS: &[&[Argument]] = &[
    &[Argument::is(1, libc::F_DUPFD_CLOEXEC as u32)],
    &[Argument::is(1, libc::F_GETFL as u32)],
];
const SET_FLAGS: &[&[Argument]] = &[&[Argument::is(1, libc::F_SETFL as u32)]];
const KEEP_CAPABILITIES: &[&[Argument]] = &[&[Argument::is(0, libc::PR_SET_KEEPCAPS as u32)]];
/// The effective id alone changes, and back again: real and saved one stay the daemon's.
const EFFECTIVE_ID: &[&[Argument]] = &[&[Argument::is(0, u32::MAX), Argument::is(2, u32::MAX)]];
const WORKING_DIRECTORY: &[&[Argument]] = &[&[Argument::is(0, libc::CLONE_FS as u32)]];

/// What the share of `directory` needs.
pub(super) fn of(directory: &Path, export: &Export) -> Result<Declaration, crate::serve::error::Error> {
    let real = directory.canonicalize().map_err(|source| Error::Directory {
        path: directory.into(),
        source,
    })?;
    Ok(with_common(Declaration {
        device: "share",
        shared: Some(Shared {
            directory: real,
            access: if export.readonly { Access::Read } else { Access::Write },
            why: "the directory that is shared",
        }),
        network: false,
        capabilities: capabilities(export),
        calls: calls(),
        ioctls: ioctls(),
    }))
}

fn capabilities(export: &Export) -> Vec<Capabilities> {
    let need = |set, why| Capabilities { set, roles: ALL, why };
    let mut needs = vec![
        need(
            CapabilitySet::SETUID | CapabilitySet::SETGID,
            "act as the guest's user who asks",
        ),
        need(
            CapabilitySet::CHOWN
                | CapabilitySet::DAC_OVERRIDE
                | CapabilitySet::FOWNER
                | CapabilitySet::FSETID
                | CapabilitySet::MKNOD
                | CapabilitySet::SETFCAP,
            "do what the guest's root may do to files",
        ),
        need(CapabilitySet::DAC_READ_SEARCH, "open files by their handles"),
    ];
    // Much of the host is in reach of these, so that each is there for those alone who ask for what takes it.
    if export.dax.is_some() {
        needs.push(Capabilities {
            set: CapabilitySet::SYS_ADMIN,
            roles: &[Role::Views],
            why: "map files beyond their end (`--dax`)",
        });
    }
    if export.allow_trusted_xattr {
        let set = CapabilitySet::SYS_ADMIN;
        needs.push(need(set, "`trusted.*` attributes (`--allow-trusted-xattr`)"));
    }
    if export.allow_security_labels {
        let set = CapabilitySet::SYS_ADMIN | CapabilitySet::MAC_ADMIN | CapabilitySet::MAC_OVERRIDE;
        needs.push(need(set, "`security.*` attributes (`--allow-security-labels`)"));
    }
    if export.allow_chattr {
        let set = CapabilitySet::LINUX_IMMUTABLE;
        needs.push(need(set, "chattr +i and +a (`--allow-chattr`)"));
    }
    needs
}

fn calls() -> Vec<Calls> {
    vec![
        Calls {
            roles: SERVING,
            why: "find and open files",
            permits: const {
                &[
                    call::OPENAT.any(),
                    call::OPENAT2.any(),
                    call::NAME_TO_HANDLE_AT.any(),
                    call::OPEN_BY_HANDLE_AT.any().privileged(),
                    call::STATX.any(),
                    call::FSTAT.any(),
                    call::NEWFSTATAT.any().rarely(STAT_BY_LIBRARY),
                    call::FSTATFS.any(),
                    call::READLINKAT.any(),
                    call::GETDENTS64.any(),
                    call::FACCESSAT
                        .any()
                        .rarely("before Linux 5.8, which has no faccessat2"),
                    call::FACCESSAT2.any(),
                    call::FCNTL.when(DESCRIPTORS),
                    call::FCNTL
                        .when(SET_FLAGS)
                        .rarely("if a file that was opened with O_DIRECT cannot be opened again"),
                ]
            },
        },
        Calls {
            roles: SERVING,
            why: "read files",
            permits: const { &[call::PREADV2.any()] },
        },
        Calls {
            roles: &[Role::Lane],
            why: "write files, and what else there is to do with those that are open",
            permits: const {
                &[
                    call::PWRITEV2.any(),
                    call::LSEEK.any(),
                    call::COPY_FILE_RANGE.any(),
                    call::FALLOCATE.any(),
                    call::FTRUNCATE.any(),
                    call::TRUNCATE.any(),
                    call::FSYNC.any(),
                    call::FDATASYNC.any(),
                    call::SYNCFS.any(),
                    call::CACHESTAT
                        .any()
                        .rarely("from Linux 6.5 on, if the file system reads without waiting"),
                ]
            },
        },
        Calls {
            roles: &[Role::Lane],
            why: "change directories and attributes",
            permits: const {
                &[
                    call::MKDIRAT.any(),
                    call::MKNODAT.any(),
                    call::SYMLINKAT.any(),
                    call::LINKAT.any(),
                    call::RENAMEAT2.any(),
                    call::UNLINKAT.any(),
                    call::FCHMODAT.any(),
                    call::FCHOWNAT.any(),
                    call::UTIMENSAT.any(),
                    call::GETXATTR.any(),
                    call::SETXATTR.any(),
                    call::LISTXATTR.any(),
                    call::REMOVEXATTR.any(),
                ]
            },
        },
        Calls {
            roles: &[Role::Lane],
            why: "act as the guest's user who asks, in a working directory and with a umask of the thread's own",
            permits: const {
                &[
                    call::SETRESUID.when(EFFECTIVE_ID).privileged(),
                    call::SETRESGID.when(EFFECTIVE_ID).privileged(),
                    call::SETGROUPS.any().privileged(),
                    call::CAPGET.any(),
                    call::CAPSET.any().privileged(),
                    call::PRCTL.when(KEEP_CAPABILITIES).privileged(),
                    call::UMASK.any(),
                    call::FCHDIR.any(),
                    call::UNSHARE.when(WORKING_DIRECTORY),
                ]
            },
        },
        Calls {
            roles: &[Role::Views],
            why: "answer for views of files",
            permits: const { &[call::READ.any(), call::WRITE.any(), call::RECVMSG.any()] },
        },
    ]
}

fn ioctls() -> Vec<Ioctl> {
    let file = |name, number| Ioctl {
        name,
        number,
        roles: &[Role::Lane],
        why: "lsattr, chattr and project ids",
        occasion: Occasion::Usual,
    };
    let view = |name, number| Ioctl {
        name,
        number,
        roles: &[Role::Views],
        why: "back a view by its file",
        occasion: Occasion::Rarely("with DAX, where the host allows views"),
    };
    vec![
        file("FS_IOC_GETFLAGS", 0x8008_6601),
        file("FS_IOC_SETFLAGS", 0x4008_6602),
        file("FS_IOC_FSGETXATTR", 0x801c_581f),
        file("FS_IOC_FSSETXATTR", 0x401c_5820),
        view("FUSE_DEV_IOC_BACKING_OPEN", 0x4010_e501),
        view("FUSE_DEV_IOC_BACKING_CLOSE", 0x4004_e502),
    ]
}
