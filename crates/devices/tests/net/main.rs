//! A guest in userspace against the whole network device, over vhost-user and both ring formats, in one process.

mod behaviour;
mod control;
mod driver;
mod hostile;
mod tap;
