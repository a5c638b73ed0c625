//! Reports of failed requests to a listener ([`Server::tell`](crate::server::Server::tell)).

use std::sync::Arc;

use crate::cause::{self, Cause, Watch};
use crate::fs::{Errno, FileSystem, Name, NodeId};
use crate::operation::Operation;
use crate::request::Request;
use crate::wire::{self, Opcode};

/// One errno that a guest is given.
#[derive(Debug)]
pub struct Failure<'a> {
    /// `LOOKUP`, `CREATE` and so on as fuse.h has it, without `FUSE_`; `OPCODE_` and a number if fuse.h has none.
    pub operation: String,
    /// The guest's number of the request.
    pub unique: u64,
    /// The node that the request is about, or the directory in which the name is; 0 where there is none (INIT, DESTROY).
    pub node: NodeId,
    /// Where in the share: the path of the node from `/`, the shared directory, and the name if there is one. The path is the one that
    /// the host has for the node now; it is `?` if the host has none, or there is no such node. `None`: there is no node.
    pub path: Option<&'a [u8]>,
    /// As `path`, of what is there besides: the new name of RENAME and LINK, the file that COPY_FILE_RANGE writes to.
    pub to: Option<&'a [u8]>,
    /// User id of the process in the guest, as the guest tells it.
    pub uid: u32,
    /// Group id likewise.
    pub gid: u32,
    /// Its number in the guest; 0 for the guest's kernel.
    pub pid: u32,
    /// What the guest is given.
    pub errno: Errno,
    /// What that comes from, if the file system tells.
    pub cause: Option<Cause>,
}

/// Is told of every errno that a guest is given, once and before the guest has it.
pub trait Failures: std::fmt::Debug + Send + Sync {
    /// Called on any thread. The request waits for it.
    fn failed(&self, failure: &Failure<'_>);
}

/// Who is told, if anybody is.
#[derive(Debug, Default)]
pub(crate) struct Told(Option<Arc<dyn Failures>>);

impl Told {
    pub(crate) fn new(failures: Arc<dyn Failures>) -> Told {
        Told(Some(failures))
    }

    pub(crate) fn listens(&self) -> bool {
        self.0.is_some()
    }

    /// To be kept from the start of a request until its failure is reported.
    pub(crate) fn watch(&self) -> Option<Watch> {
        self.listens().then(Watch::begin)
    }

    /// Tells of an errno that is about to be given to the guest.
    #[cold]
    pub(crate) fn report(&self, header: &wire::InHeader, errno: Errno, places: impl FnOnce() -> Places) {
        let &wire::InHeader {
            opcode: number,
            unique,
            nodeid,
            uid,
            gid,
            pid,
            ..
        } = header;
        let opcode = Opcode::from_number(number);
        tracing::debug!(?opcode, number, nodeid, errno = errno.0, "request failed");
        let Some(failures) = &self.0 else { return };
        let Places { path, to } = places();
        failures.failed(&Failure {
            operation: opcode.map_or_else(|| format!("OPCODE_{number}"), Opcode::name),
            unique,
            node: NodeId(nodeid),
            path: path.as_deref(),
            to: to.as_deref(),
            uid,
            gid,
            pid,
            errno,
            cause: cause::of(errno),
        });
    }
}

/// Where a request is about something.
#[derive(Debug, Default)]
pub(crate) struct Places {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) to: Option<Vec<u8>>,
}

impl Places {
    /// Of a request of which no more than the node is known.
    pub(crate) fn of_node(fs: &impl FileSystem, header: &wire::InHeader) -> Places {
        let node = NodeId(header.nodeid);
        let path = (node.0 != 0).then(|| path(fs, node, None));
        Places { path, to: None }
    }

    pub(crate) fn of_request(fs: &impl FileSystem, request: &Request<'_>) -> Places {
        let node = request.node;
        let (path, to) = match request.operation {
            Operation::Lookup { name }
            | Operation::Symlink { name, .. }
            | Operation::Mknod { name, .. }
            | Operation::Mkdir { name, .. }
            | Operation::Unlink { name }
            | Operation::Rmdir { name }
            | Operation::Create { name, .. } => (path(fs, node, Some(name)), None),
            Operation::Rename { name, to, .. } => (path(fs, node, Some(name)), Some(path(fs, to.0, Some(to.1)))),
            // The request is asked of the directory, and brings the node along.
            Operation::Link { node: old, name } => (path(fs, old, None), Some(path(fs, node, Some(name)))),
            Operation::CopyFileRange { ref range, .. } => (path(fs, node, None), Some(path(fs, range.to.0, None))),
            _ => (path(fs, node, None), None),
        };
        Places { path: Some(path), to }
    }
}

fn path(fs: &impl FileSystem, node: NodeId, name: Option<Name<'_>>) -> Vec<u8> {
    let mut path = cause::aside(|| fs.path_of(node)).unwrap_or_else(|| b"?".to_vec());
    if let Some(name) = name {
        if path != b"/" {
            path.push(b'/');
        }
        path.extend(name.as_c_str().to_bytes());
    }
    path
}
