//! Shares host directories with virtual machines over vhost-user.

fn main() {}
