//! A guest in userspace against the whole block device, over vhost-user and both ring formats, in one process.

mod arbitrary;
mod behaviour;
#[expect(dead_code, reason = "other targets use the rest")]
#[path = "../../../fuse/tests/arbitrary/requests/bytes.rs"]
mod bytes;
mod driver;
mod hostile;
mod image;
mod model;
#[path = "../../../fuse/tests/arbitrary/numbers.rs"]
mod numbers;
