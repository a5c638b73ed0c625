//! Extended attributes, on nodes of every kind.
//!
//! The calls take paths, and a symbolic link or FIFO cannot be opened. The descriptor's magic link leads to the node
//! itself, even if that is a symbolic link. Its path is relative to the thread's working directory, `/proc/self/fd`.

use std::ffi::CStr;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Mode, XattrFlags, chmodat, getxattr, getxattr_query, listxattr, removexattr, setxattr};

use super::Passthrough;
use super::opening::NodeFd;
use super::procfs::FdName;
use super::stat;
use super::syscall_text::Quoted;
use crate::cause::HostResult as _;
use crate::fs::{Caller, Errno, NodeId, Result, XattrReply};
use crate::wire::InitFlags;

/// Longest list and longest value that Linux knows (XATTR_LIST_MAX, XATTR_SIZE_MAX).
const MAX: usize = 65_536;
/// ACLs of a guest that does not enforce them.
const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// Attributes for CAP_SYS_ADMIN alone.
const TRUSTED: &[u8] = b"trusted.";

impl Passthrough {
    pub(super) fn get_xattr(&self, node: NodeId, name: &CStr, size: u32) -> Result<XattrReply> {
        let fd = self.xattr_target(node, name)?;
        let path = FdName::of(fd.as_fd());
        if size == 0 {
            let length = getxattr_query(path.as_c_str(), name).of(|| format!("getxattr(node, {}, 0)", Quoted(name)))?;
            return Ok(XattrReply::Size(length as u32));
        }
        let mut value = vec![0; (size as usize).min(MAX)];
        let length = getxattr(path.as_c_str(), name, &mut value[..])
            .of(|| format!("getxattr(node, {}, {size})", Quoted(name)))?;
        value.truncate(length);
        Ok(XattrReply::Value(value))
    }

    pub(super) fn list_xattr(&self, by: &Caller, node: NodeId, size: u32) -> Result<XattrReply> {
        self.xattr_allowed()?;
        let fd = self.descriptor(node)?;
        let mut list = vec![0; MAX];
        let length = listxattr(FdName::of(fd.as_fd()).as_c_str(), &mut list[..]).of(|| "listxattr(node)".into())?;
        list.truncate(length);
        // xattr(7): whoever may not read them does not see that they are there. The guest's kernel leaves that to the file system.
        // Of a caller without a name nobody knows, and a backup that misses them is worse than a name that is seen.
        let of_others = |name: &[u8]| by.uid != 0 && !by.is_unnamed() && name.starts_with(TRUSTED);
        let shown = list
            .split_inclusive(|&byte| byte == 0)
            .filter(|name| !of_others(name) && !self.hidden(name.strip_suffix(b"\0").unwrap_or(name)));
        let list = shown.collect::<Vec<_>>().concat();
        match size as usize {
            0 => Ok(XattrReply::Size(list.len() as u32)),
            size if size < list.len() => Err(Errno::ERANGE.rule("the list is longer than the guest asked for")),
            _ => Ok(XattrReply::Value(list)),
        }
    }

    pub(super) fn set_xattr(
        &self,
        by: &Caller,
        node: NodeId,
        name: &CStr,
        value: &[u8],
        flags: u32,
        kill_sgid: bool,
    ) -> Result<()> {
        self.writable()?;
        let fd = self.xattr_target(node, name)?;
        let path = FdName::of(fd.as_fd());
        let flags =
            XattrFlags::from_bits(flags).ok_or_else(|| Errno::EINVAL.rule("setxattr(2) knows no such flags"))?;
        let namer = self.credentials.become_namer(by)?;
        setxattr(path.as_c_str(), name, value, flags).of(|| {
            let (name, length, flags) = (Quoted(name), value.len(), flags.bits());
            format!("setxattr(node, {name}, {length} bytes, {flags:#x})")
        })?;
        drop(namer);
        if kill_sgid {
            // The host judges by our groups whether a new ACL drops set-group-id; the guest has judged by the caller's.
            let mode = u32::from(stat::of(fd.as_fd())?.stx_mode) & 0o7777;
            if mode & libc::S_ISGID != 0 {
                let mode = Mode::from_raw_mode(mode & !libc::S_ISGID);
                chmodat(self.proc.directory(), path.as_c_str(), mode, AtFlags::empty())
                    .of(|| format!("chmod(node, 0{:o})", mode.bits()))?;
            }
        }
        Ok(())
    }

    pub(super) fn remove_xattr(&self, node: NodeId, name: &CStr) -> Result<()> {
        self.writable()?;
        let fd = self.xattr_target(node, name)?;
        removexattr(FdName::of(fd.as_fd()).as_c_str(), name).of(|| format!("removexattr(node, {})", Quoted(name)))
    }

    fn xattr_target(&self, node: NodeId, name: &CStr) -> Result<NodeFd> {
        self.xattr_allowed()?;
        if self.hidden(name.to_bytes()) {
            return Err(Errno::EOPNOTSUPP.rule("access control lists are off (--posix-acl)"));
        }
        self.descriptor(node)
    }

    fn xattr_allowed(&self) -> Result<()> {
        if !self.options.xattr {
            return Err(Errno::ENOSYS.rule("extended attributes are off (--no-xattr)"));
        }
        self.prepare_thread()
    }

    /// An ACL set by a guest that does not enforce it would open or close files for the host alone.
    fn hidden(&self, name: &[u8]) -> bool {
        !self.has(InitFlags::POSIX_ACL) && ACLS.contains(&name)
    }
}
