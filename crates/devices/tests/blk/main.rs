//! A guest in userspace against the whole block device, over vhost-user and both ring formats, in one process.

mod behaviour;
mod driver;
mod hostile;
mod image;
mod model;
