//! A guest in userspace: memfd RAM, vhost-user frontend, driver half of the rings, request builders.

pub mod fs;
