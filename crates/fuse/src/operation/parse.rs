//! Parses the bytes behind a request's header into an operation.

use super::{Operation, Setup};
use crate::arguments::{Arguments, malformed};
use crate::fs::{CopyRange, Create, Errno, Handle, Negotiated, NodeId, Result, SetAttr, SetTime, WriteTo};
use crate::limits::{MAX_IOCTL, MAX_READ, MAX_WRITE, MAX_XATTR, within};
use crate::wire::{self, InitFlags, Opcode};

impl<'a> Operation<'a> {
    /// Takes the arguments of `opcode`, asked of `node`.
    pub(crate) fn parse(
        opcode: Opcode,
        node: NodeId,
        arguments: &mut Arguments<'a>,
        terms: &Negotiated,
    ) -> Result<Operation<'a>> {
        Ok(match opcode {
            Opcode::Lookup => Operation::Lookup {
                name: arguments.name()?,
            },
            Opcode::Getattr => {
                let input: wire::GetattrIn = arguments.take()?;
                Operation::Getattr {
                    handle: optional_handle(input.getattr_flags, wire::GETATTR_FH, input.fh),
                }
            }
            Opcode::Statx => {
                let input: wire::StatxIn = arguments.take()?;
                let handle = optional_handle(input.getattr_flags, wire::GETATTR_FH, input.fh);
                Operation::Statx {
                    handle,
                    flags: input.sx_flags,
                    mask: input.sx_mask,
                }
            }
            Opcode::Setattr => Operation::Setattr {
                change: set_attr(&arguments.take()?)?,
            },
            Opcode::Readlink => Operation::Readlink,
            Opcode::Symlink => Operation::Symlink {
                name: arguments.name()?,
                target: arguments.c_str()?,
            },
            Opcode::Mknod => {
                let wire::MknodIn { mode, rdev, umask, .. } = arguments.take()?;
                let create = Create {
                    mode,
                    umask,
                    flags: 0,
                    device: rdev,
                };
                Operation::Mknod {
                    name: arguments.name()?,
                    create,
                }
            }
            Opcode::Mkdir => {
                let wire::MkdirIn { mode, umask } = arguments.take()?;
                let create = Create {
                    mode,
                    umask,
                    flags: 0,
                    device: 0,
                };
                Operation::Mkdir {
                    name: arguments.name()?,
                    create,
                }
            }
            Opcode::Unlink => Operation::Unlink {
                name: arguments.name()?,
            },
            Opcode::Rmdir => Operation::Rmdir {
                name: arguments.name()?,
            },
            Opcode::Rename => {
                let wire::RenameIn { newdir } = arguments.take()?;
                let (name, new_name) = (arguments.name()?, arguments.name()?);
                Operation::Rename {
                    name,
                    to: (NodeId(newdir), new_name),
                    flags: 0,
                }
            }
            Opcode::Rename2 => {
                let wire::Rename2In { newdir, flags, .. } = arguments.take()?;
                let (name, new_name) = (arguments.name()?, arguments.name()?);
                Operation::Rename {
                    name,
                    to: (NodeId(newdir), new_name),
                    flags,
                }
            }
            Opcode::Link => {
                let wire::LinkIn { oldnodeid } = arguments.take()?;
                Operation::Link {
                    node: NodeId(oldnodeid),
                    name: arguments.name()?,
                }
            }
            Opcode::Open => {
                let wire::OpenIn { flags, open_flags } = arguments.take()?;
                Operation::Open {
                    flags,
                    kill_suid_gid: open_flags & wire::OPEN_KILL_SUIDGID != 0,
                }
            }
            Opcode::Create => {
                let (create, kill_suid_gid) = create(&arguments.take()?);
                Operation::Create {
                    name: arguments.name()?,
                    create,
                    kill_suid_gid,
                }
            }
            Opcode::Tmpfile => {
                let (create, _) = create(&arguments.take()?);
                // A file without a name has the name "/" in Linux, and that is what it sends.
                arguments.c_str()?;
                Operation::Tmpfile { create }
            }
            Opcode::Read => {
                let wire::ReadIn { fh, offset, size, .. } = arguments.take()?;
                within(size, MAX_READ)?;
                Operation::Read {
                    handle: Handle(fh),
                    offset,
                    size,
                }
            }
            Opcode::Write => {
                let wire::WriteIn {
                    fh,
                    offset,
                    size,
                    write_flags,
                    flags,
                    ..
                } = arguments.take()?;
                within(size, MAX_WRITE)?;
                let handle = Handle(fh);
                Operation::Write {
                    to: WriteTo {
                        handle,
                        offset,
                        len: size,
                        flags: write_flags,
                        open_flags: flags,
                    },
                }
            }
            Opcode::Flush => {
                let wire::FlushIn { fh, .. } = arguments.take()?;
                Operation::Flush { handle: Handle(fh) }
            }
            Opcode::Release | Opcode::Releasedir => {
                let wire::ReleaseIn { fh, .. } = arguments.take()?;
                let handle = Handle(fh);
                if opcode == Opcode::Release {
                    Operation::Release { handle }
                } else {
                    Operation::Releasedir { handle }
                }
            }
            Opcode::Fsync | Opcode::Fsyncdir => {
                let wire::FsyncIn { fh, fsync_flags, .. } = arguments.take()?;
                let (handle, data_only) = (Handle(fh), fsync_flags & wire::FSYNC_FDATASYNC != 0);
                if opcode == Opcode::Fsync {
                    Operation::Fsync { handle, data_only }
                } else {
                    Operation::Fsyncdir { handle, data_only }
                }
            }
            Opcode::Syncfs => {
                let _: wire::SyncfsIn = arguments.take()?;
                Operation::Syncfs
            }
            Opcode::Opendir => {
                let wire::OpenIn { flags, .. } = arguments.take()?;
                Operation::Opendir { flags }
            }
            Opcode::Readdir | Opcode::Readdirplus => {
                let wire::ReadIn { fh, offset, size, .. } = arguments.take()?;
                within(size, MAX_READ)?;
                Operation::Readdir {
                    handle: Handle(fh),
                    offset,
                    size,
                    plus: opcode == Opcode::Readdirplus,
                }
            }
            Opcode::Statfs => Operation::Statfs,
            Opcode::Access => {
                let wire::AccessIn { mask, .. } = arguments.take()?;
                Operation::Access { mask }
            }
            Opcode::Setxattr => setxattr(arguments, terms)?,
            Opcode::Getxattr => {
                let wire::GetxattrIn { size, .. } = arguments.take()?;
                Operation::Getxattr {
                    name: arguments.c_str()?,
                    size,
                }
            }
            Opcode::Listxattr => {
                let wire::GetxattrIn { size, .. } = arguments.take()?;
                Operation::Listxattr { size }
            }
            Opcode::Removexattr => Operation::Removexattr {
                name: arguments.c_str()?,
            },
            Opcode::Fallocate => {
                let wire::FallocateIn {
                    fh,
                    offset,
                    length,
                    mode,
                    ..
                } = arguments.take()?;
                Operation::Fallocate {
                    handle: Handle(fh),
                    mode,
                    offset,
                    len: length,
                }
            }
            Opcode::Lseek => {
                let wire::LseekIn { fh, offset, whence, .. } = arguments.take()?;
                Operation::Lseek {
                    handle: Handle(fh),
                    offset,
                    whence,
                }
            }
            Opcode::CopyFileRange | Opcode::CopyFileRange64 => {
                let wide = opcode == Opcode::CopyFileRange64;
                Operation::CopyFileRange {
                    range: copy_range(node, &arguments.take()?, wide),
                    wide,
                }
            }
            Opcode::Ioctl => ioctl(arguments)?,
            Opcode::Setupmapping => {
                let wire::SetupmappingIn {
                    foffset,
                    len,
                    flags,
                    moffset,
                    ..
                } = arguments.take()?;
                if flags & !(wire::SETUPMAPPING_READ | wire::SETUPMAPPING_WRITE) != 0 {
                    return Err(Errno::EINVAL.rule("it has flags that FUSE does not know"));
                }
                Operation::Setupmapping {
                    setup: Setup {
                        file_offset: foffset,
                        offset: moffset,
                        length: len,
                        writable: flags & wire::SETUPMAPPING_WRITE != 0,
                    },
                }
            }
            Opcode::Removemapping => {
                let wire::RemovemappingIn { count } = arguments.take()?;
                let length = count.checked_mul(size_of::<wire::RemovemappingOne>() as u32);
                Operation::Removemapping {
                    ranges: arguments.bytes(length.ok_or_else(malformed)?)?,
                }
            }
            // Locks stay within the guest unless negotiated, which they are not.
            Opcode::Getlk | Opcode::Setlk | Opcode::Setlkw => {
                return Err(Errno::ENOSYS.rule("locks stay within the guest"));
            }
            Opcode::Bmap | Opcode::Poll | Opcode::NotifyReply => {
                return Err(Errno::ENOSYS.rule("innkeeper does not have the operation"));
            }
            // Not asked within a session: the server has taken these out before.
            Opcode::Init | Opcode::Destroy | Opcode::Forget | Opcode::BatchForget | Opcode::Interrupt => {
                return Err(malformed());
            }
        })
    }
}

fn optional_handle(flags: u32, flag: u32, handle: u64) -> Option<Handle> {
    (flags & flag != 0).then_some(Handle(handle))
}

fn set_attr(input: &wire::SetattrIn) -> Result<SetAttr> {
    let asked = |flag| input.valid & flag != 0;
    let time = |flag, now, seconds: u64, nanoseconds: u32| match (asked(flag), asked(now)) {
        (false, _) => Ok(None),
        (true, true) => Ok(Some(SetTime::Now)),
        (true, false) if nanoseconds < 1_000_000_000 => Ok(Some(SetTime::At(seconds as i64, nanoseconds))),
        (true, false) => Err(Errno::EINVAL.rule("the time has more nanoseconds than a second")),
    };
    // FATTR_CTIME comes with a writeback cache; no system call sets ctime, and the host's own is as good.
    Ok(SetAttr {
        handle: optional_handle(input.valid, wire::FATTR_FH, input.fh),
        mode: asked(wire::FATTR_MODE).then_some(input.mode),
        uid: asked(wire::FATTR_UID).then_some(input.uid),
        gid: asked(wire::FATTR_GID).then_some(input.gid),
        size: asked(wire::FATTR_SIZE).then_some(input.size),
        atime: time(wire::FATTR_ATIME, wire::FATTR_ATIME_NOW, input.atime, input.atimensec)?,
        mtime: time(wire::FATTR_MTIME, wire::FATTR_MTIME_NOW, input.mtime, input.mtimensec)?,
        kill_suid_gid: asked(wire::FATTR_KILL_SUIDGID),
    })
}

/// What CREATE and TMPFILE say, and whether to drop set-user-id and set-group-id.
fn create(input: &wire::CreateIn) -> (Create, bool) {
    let create = Create {
        mode: input.mode,
        umask: input.umask,
        flags: input.flags,
        device: 0,
    };
    (create, input.open_flags & wire::OPEN_KILL_SUIDGID != 0)
}

fn setxattr<'a>(arguments: &mut Arguments<'a>, terms: &Negotiated) -> Result<Operation<'a>> {
    let input = if terms.flags.contains(InitFlags::SETXATTR_EXT) {
        arguments.take()?
    } else {
        let wire::SetxattrShortIn { size, flags } = arguments.take()?;
        wire::SetxattrIn {
            size,
            flags,
            ..Default::default()
        }
    };
    if input.size > MAX_XATTR {
        return Err(Errno::E2BIG.rule("the value is longer than any extended attribute"));
    }
    Ok(Operation::Setxattr {
        name: arguments.c_str()?,
        value: arguments.bytes(input.size)?,
        flags: input.flags,
        kill_sgid: input.setxattr_flags & wire::SETXATTR_ACL_KILL_SGID != 0,
    })
}

fn copy_range(from: NodeId, input: &wire::CopyFileRangeIn, wide: bool) -> CopyRange {
    // The count must fit the reply of 32 bits; a whole number of pages keeps the rest aligned for reflinks.
    let limit = if wide { u64::MAX } else { u64::from(!0xfff_u32) };
    CopyRange {
        from: (from, Handle(input.fh_in), input.off_in),
        to: (NodeId(input.nodeid_out), Handle(input.fh_out), input.off_out),
        len: input.len.min(limit),
        flags: input.flags,
    }
}

fn ioctl<'a>(arguments: &mut Arguments<'a>) -> Result<Operation<'a>> {
    let input: wire::IoctlIn = arguments.take()?;
    // Unrestricted ones would have us name further guest memory to be copied; only CUSE sends them.
    if input.flags & wire::IOCTL_UNRESTRICTED != 0 {
        return Err(Errno::ENOTTY.rule("the ioctl has no fixed size (FUSE_IOCTL_UNRESTRICTED)"));
    }
    if input.out_size > MAX_IOCTL {
        return Err(Errno::EINVAL.rule("the answer is longer than that of any ioctl"));
    }
    let (handle, out_size) = (Handle(input.fh), input.out_size);
    Ok(Operation::Ioctl {
        handle,
        command: input.cmd,
        input: arguments.bytes(input.in_size)?,
        out_size,
    })
}
