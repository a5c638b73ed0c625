//! A guest in userspace against the whole block device, over vhost-user and both ring formats, in one process.

mod arbitrary;
mod behaviour;
#[allow(dead_code, reason = "shared with tests that take more of it")]
#[path = "../../../fuse/tests/arbitrary/requests/bytes.rs"]
mod bytes;
mod driver;
mod hostile;
mod image;
mod model;
