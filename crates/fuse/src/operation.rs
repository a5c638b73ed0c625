//! The table of operations: the arguments of each, and the length of its reply.

mod parse;

use std::ffi::CStr;

use crate::fs::{CopyRange, Create, Handle, Name, NodeId, SetAttr, WriteTo};
use crate::wire;

/// What a request within a session asks for.
#[derive(Debug)]
pub(crate) enum Operation<'a> {
    Lookup {
        name: Name<'a>,
    },
    Getattr {
        handle: Option<Handle>,
    },
    Statx {
        handle: Option<Handle>,
        flags: u32,
        mask: u32,
    },
    Setattr {
        change: SetAttr,
    },
    Readlink,
    Symlink {
        name: Name<'a>,
        target: &'a CStr,
    },
    Mknod {
        name: Name<'a>,
        create: Create,
    },
    Mkdir {
        name: Name<'a>,
        create: Create,
    },
    Unlink {
        name: Name<'a>,
    },
    Rmdir {
        name: Name<'a>,
    },
    Rename {
        name: Name<'a>,
        to: (NodeId, Name<'a>),
        flags: u32,
    },
    Link {
        node: NodeId,
        name: Name<'a>,
    },
    Open {
        flags: u32,
        kill_suid_gid: bool,
    },
    Create {
        name: Name<'a>,
        create: Create,
        kill_suid_gid: bool,
    },
    Tmpfile {
        create: Create,
    },
    Read {
        handle: Handle,
        offset: u64,
        size: u32,
    },
    Write {
        to: WriteTo,
    },
    Flush {
        handle: Handle,
    },
    Release {
        handle: Handle,
    },
    Fsync {
        handle: Handle,
        data_only: bool,
    },
    Syncfs,
    Opendir {
        flags: u32,
    },
    Readdir {
        handle: Handle,
        offset: u64,
        size: u32,
        plus: bool,
    },
    Releasedir {
        handle: Handle,
    },
    Fsyncdir {
        handle: Handle,
        data_only: bool,
    },
    Statfs,
    Access {
        mask: u32,
    },
    Setxattr {
        name: &'a CStr,
        value: &'a [u8],
        flags: u32,
        kill_sgid: bool,
    },
    Getxattr {
        name: &'a CStr,
        size: u32,
    },
    Listxattr {
        size: u32,
    },
    Removexattr {
        name: &'a CStr,
    },
    Fallocate {
        handle: Handle,
        mode: u32,
        offset: u64,
        len: u64,
    },
    Lseek {
        handle: Handle,
        offset: u64,
        whence: u32,
    },
    /// `wide`: the reply has room for 64 bits (COPY_FILE_RANGE_64).
    CopyFileRange {
        range: CopyRange,
        wide: bool,
    },
    Ioctl {
        handle: Handle,
        command: u32,
        input: &'a [u8],
        out_size: u32,
    },
    Setupmapping {
        setup: Setup,
    },
    /// `ranges`: any number of [`wire::RemovemappingOne`].
    Removemapping {
        ranges: &'a [u8],
    },
}

/// A mapping that the guest asks for, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) file_offset: u64,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) writable: bool,
}

impl Operation<'_> {
    /// Bytes that a reply of this operation needs behind its header, so that nothing is opened or looked up for a reply
    /// that cannot be given.
    pub(crate) fn reply_length(&self) -> usize {
        match self {
            Operation::Lookup { .. }
            | Operation::Symlink { .. }
            | Operation::Mknod { .. }
            | Operation::Mkdir { .. }
            | Operation::Link { .. } => size_of::<wire::EntryOut>(),
            Operation::Create { .. } | Operation::Tmpfile { .. } => {
                size_of::<wire::EntryOut>() + size_of::<wire::OpenOut>()
            }
            Operation::Getattr { .. } | Operation::Setattr { .. } => size_of::<wire::AttrOut>(),
            Operation::Statx { .. } => size_of::<wire::StatxOut>(),
            Operation::Open { .. } | Operation::Opendir { .. } => size_of::<wire::OpenOut>(),
            Operation::Read { size, .. } | Operation::Readdir { size, .. } => *size as usize,
            Operation::Write { .. } | Operation::CopyFileRange { .. } => size_of::<wire::WriteOut>(),
            Operation::Statfs => size_of::<wire::Statfs>(),
            Operation::Getxattr { size: 0, .. } | Operation::Listxattr { size: 0 } => size_of::<wire::GetxattrOut>(),
            Operation::Getxattr { size, .. } | Operation::Listxattr { size } => *size as usize,
            Operation::Lseek { .. } => size_of::<wire::LseekOut>(),
            Operation::Ioctl { out_size, .. } => size_of::<wire::IoctlOut>() + *out_size as usize,
            // The target's length is not known before it is read.
            Operation::Readlink => 0,
            Operation::Unlink { .. }
            | Operation::Rmdir { .. }
            | Operation::Rename { .. }
            | Operation::Flush { .. }
            | Operation::Release { .. }
            | Operation::Fsync { .. }
            | Operation::Syncfs
            | Operation::Releasedir { .. }
            | Operation::Fsyncdir { .. }
            | Operation::Access { .. }
            | Operation::Setxattr { .. }
            | Operation::Removexattr { .. }
            | Operation::Fallocate { .. }
            | Operation::Setupmapping { .. }
            | Operation::Removemapping { .. } => 0,
        }
    }
}
