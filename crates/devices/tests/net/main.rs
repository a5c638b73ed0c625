//! A guest in userspace against the whole network device, over vhost-user and both ring formats, in one process.

mod arbitrary;
mod behaviour;
#[path = "../../../fuse/tests/arbitrary/requests/bytes.rs"]
mod bytes;
mod control;
mod driver;
mod hostile;
#[path = "../../../fuse/tests/arbitrary/numbers.rs"]
mod numbers;
mod tap;
