//! Kernel functions that forward a request to a server or a device.

/// Functions that ask somebody else, and who that is: an errno of theirs was made outside of this thread.
const REMOTE: [(&str, &str); 7] = [
    ("__fuse_simple_request", "the FUSE server of this mount"),
    ("fuse_simple_request", "the FUSE server of this mount"),
    ("p9_client_rpc", "the 9p server of this mount"),
    ("rpc_call_sync", "the NFS server of this mount"),
    ("nfs4_call_sync", "the NFS server of this mount"),
    ("compound_send_recv", "the SMB server of this mount"),
    ("submit_bio_wait", "the block device"),
];

/// Whether this function asks somebody else.
pub(super) fn asks(function: &str) -> bool {
    remote(function).is_some()
}

/// Who is asked by this function of the kernel, if anybody is.
pub(super) fn remote(function: &str) -> Option<&'static str> {
    let found = REMOTE.iter().find(|(name, _)| *name == function);
    found.map(|(_, asked)| *asked)
}
