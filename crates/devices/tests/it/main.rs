//! A guest in userspace against the whole file system device, over vhost-user and both ring formats, in one process.

mod called_off;
mod control;
mod daemon;
mod dax;
mod early;
mod frontends;
mod hostile;
mod lost_memory;
mod mapping;
#[path = "../../../fuse/tests/arbitrary/numbers.rs"]
mod numbers;
mod requests;
mod session;
mod slots;
mod teardown;
mod waiting;
mod window_buffers;
