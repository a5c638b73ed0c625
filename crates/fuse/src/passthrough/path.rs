//! Paths of nodes, for people to read. Nodes know no path; the kernel knows the path of most.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::readlinkat;

use super::Passthrough;
use super::procfs::FdName;
use crate::fs::NodeId;

impl Passthrough {
    /// The path from the shared directory, which is `/`. Of a node without a name it is the last one, followed by ` (deleted)`.
    /// `None`: the node is unknown, or lies outside of the share by now, which is none of the guest's business; or the kernel
    /// has dropped the name of a file that was opened by its handle.
    pub(super) fn path_in_share(&self, node: NodeId) -> Option<Vec<u8>> {
        if node == NodeId::ROOT {
            return Some(b"/".to_vec());
        }
        let root = self.path_on_host(self.descriptor(NodeId::ROOT).ok()?.as_fd())?;
        let path = self.path_on_host(self.descriptor(node).ok()?.as_fd())?;
        let below = match root.as_slice() {
            b"/" => path.as_slice(),
            root => path.strip_prefix(root)?,
        };
        // A sibling of the share may start with its name, and what has no name has the path `/`.
        (below.starts_with(b"/") && below != b"/").then(|| below.to_vec())
    }

    fn path_on_host(&self, fd: BorrowedFd<'_>) -> Option<Vec<u8>> {
        let path = readlinkat(self.proc.directory(), FdName::of(fd).as_c_str(), Vec::new());
        path.ok().map(|path| path.into_bytes())
    }
}
