//! The refused request to a FUSE server: its operation, and the number that identifies it in the server's own log.

use crate::trace::{Call, Syscall};
use crate::words::fuse_operation_name;

/// Functions of Linux that send a request and wait for its answer (before and since 6.10).
const ASKING: [&str; 2] = ["fuse_simple_request", "__fuse_simple_request"];

/// What the functions of fs/fuse ask for, where that is one thing alone.
const BY_FUNCTION: [(&str, &str); 41] = [
    ("fuse_lookup_name", "LOOKUP"),
    ("fuse_dentry_revalidate", "LOOKUP"),
    ("fuse_get_parent", "LOOKUP"),
    ("fuse_do_getattr", "GETATTR"),
    ("fuse_do_statx", "STATX"),
    ("fuse_do_setattr", "SETATTR"),
    ("fuse_flush_times", "SETATTR"),
    ("fuse_readlink_page", "READLINK"),
    ("fuse_symlink", "SYMLINK"),
    ("fuse_mknod", "MKNOD"),
    ("fuse_mkdir", "MKDIR"),
    ("fuse_unlink", "UNLINK"),
    ("fuse_rmdir", "RMDIR"),
    ("fuse_link", "LINK"),
    ("fuse_create_open", "CREATE"),
    ("fuse_tmpfile", "TMPFILE"),
    ("fuse_dir_open", "OPENDIR"),
    ("fuse_open", "OPEN"),
    ("fuse_do_readpage", "READ"),
    ("fuse_file_read_iter", "READ"),
    ("fuse_file_write_iter", "WRITE"),
    ("fuse_statfs", "STATFS"),
    ("fuse_fsync", "FSYNC"),
    ("fuse_dir_fsync", "FSYNCDIR"),
    ("fuse_setxattr", "SETXATTR"),
    ("fuse_getxattr", "GETXATTR"),
    ("fuse_listxattr", "LISTXATTR"),
    ("fuse_removexattr", "REMOVEXATTR"),
    ("fuse_flush", "FLUSH"),
    ("fuse_access", "ACCESS"),
    ("fuse_permission", "ACCESS"),
    ("fuse_getlk", "GETLK"),
    ("fuse_bmap", "BMAP"),
    ("fuse_do_ioctl", "IOCTL"),
    ("fuse_priv_ioctl", "IOCTL"),
    ("fuse_file_poll", "POLL"),
    ("fuse_file_fallocate", "FALLOCATE"),
    ("fuse_lseek", "LSEEK"),
    ("fuse_sync_fs", "SYNCFS"),
    ("fuse_setup_one_mapping", "SETUPMAPPING"),
    ("fuse_send_removemapping", "REMOVEMAPPING"),
];

/// A request whose refusal made a system call fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// `LOOKUP`, `CREATE` and so on, as fuse.h has it without `FUSE_`; `OPCODE_` and a number if it has none.
    pub operation: String,
    /// Number of the request in its connection, if the kernel showed it. Without, the operation is what the function that
    /// asked usually asks for.
    pub unique: Option<u64>,
    /// Whether events were lost, so that it may have been another one.
    pub lost: bool,
}

/// The request by which `function` was told this errno, if that is a function that asks a FUSE server.
pub(crate) fn refused(syscall: &Syscall, function: &str, errno: i32) -> Option<Refused> {
    if !ASKING.contains(&function) {
        return None;
    }
    let path = way_to(&syscall.tree.roots, function, errno)?;
    let (from, to) = path.first()?.time;
    // A thread waits here for one answer at a time. What it asks for without waiting it asks elsewhere.
    let sent = syscall.requests.iter().rev().find(|request| {
        let within = from <= request.time && to.is_none_or(|to| request.time <= to);
        within && request.answered.is_none_or(|answered| answered == errno)
    });
    if let Some(request) = sent {
        let name = fuse_operation_name(request.opcode);
        return Some(Refused {
            operation: name.map_or_else(|| format!("OPCODE_{}", request.opcode), str::to_owned),
            unique: (request.unique != 0).then_some(request.unique),
            lost: syscall.lost,
        });
    }
    let operation = path.iter().find_map(|call| by_function(&call.function))?;
    Some(Refused {
        operation: operation.to_owned(),
        unique: None,
        lost: syscall.lost,
    })
}

/// The last call of `function` that returned this errno, and all around it, the innermost first.
fn way_to<'t>(calls: &'t [Call], function: &str, errno: i32) -> Option<Vec<&'t Call>> {
    calls.iter().rev().find_map(|call| {
        if call.function == function && call.hands_on(errno) {
            return Some(vec![call]);
        }
        let mut path = way_to(&call.children, function, errno)?;
        path.push(call);
        Some(path)
    })
}

fn by_function(function: &str) -> Option<&'static str> {
    // What the compiler made of a function has the function's name and more: `.isra.0`, `.part.0`.
    let source = function.split('.').next()?;
    let found = BY_FUNCTION.iter().find(|(name, _)| *name == source);
    found.map(|(_, operation)| *operation)
}
