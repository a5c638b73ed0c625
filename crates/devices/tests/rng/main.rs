//! A guest in userspace against the whole entropy device, over vhost-user and both ring formats, in one process.

mod arbitrary;
mod behaviour;
#[path = "../../../fuse/tests/arbitrary/requests/bytes.rs"]
mod bytes;
mod driver;
mod hostile;
mod log;
#[path = "../../../fuse/tests/arbitrary/numbers.rs"]
mod numbers;
mod waiting;
